//! Every option changes the result, the output or the behavior.

use std::fs;
use std::process::Child;

use crate::common::eddy;
use crate::common::images::{colors, noisy};
use crate::common::place::Place;

/// The bytes that `eddy denoise` writes for a small image, and its report.
fn denoised(options: &str) -> (Vec<u8>, serde_json::Value) {
    let place = Place::with("a.png", &noisy(300, 48, 3, 8));
    let record =
        eddy(&format!("denoise a.png -o b.png --json {options}")).within(&place).succeeds().json();
    (place.bytes("b.png"), record)
}

fn changes(one: &str, other: &str) {
    assert!(denoised(one).0 != denoised(other).0, "{one:?} and {other:?} give the same bytes");
}

#[test]
fn sigma_changes_the_result() {
    changes("--sigma 10", "--sigma 25");
    assert!(denoised("").0 == denoised("--sigma auto").0);
    let (_, record) = denoised("--sigma 1000");
    assert_eq!(
        (record["sigma"].as_f64().map(f64::round), record["sigma_limited"].as_bool()),
        (Some(100.0), Some(true))
    );
    for wrong in ["-1", "nan", "inf", "loud"] {
        eddy(&format!("denoise a.png -o b.png --sigma={wrong}")).fails(2).says("--sigma");
    }
}

#[test]
fn steps_change_the_result() {
    changes("--sigma 25 --steps 1", "--sigma 25 --steps 3");
    assert_eq!(denoised("--steps 3").1["steps"].as_u64(), Some(3));
    assert!(denoised("").0 == denoised("--steps 1").0);
    for wrong in ["0", "1001", "many"] {
        eddy(&format!("denoise a.png -o b.png --steps {wrong}")).fails(2).says("--steps");
    }
}

#[test]
fn eta_and_seed_change_the_result() {
    changes("--steps 3 --eta 0", "--steps 3 --eta 1");
    changes("--steps 3 --eta 1 --seed 1", "--steps 3 --eta 1 --seed 2");
    // The upper half of a random seed matters too.
    changes("--steps 3 --eta 1 --seed 1", "--steps 3 --eta 1 --seed 4294967297");
    // A deterministic sampler does not use the random seed.
    assert!(denoised("--steps 3 --seed 1").0 == denoised("--steps 3 --seed 2").0);
    let place = Place::with("a.png", &noisy(8, 8, 3, 8));
    for wrong in ["-0.1", "1.5", "nan"] {
        eddy(&format!("denoise a.png -o b.png --eta={wrong}")).within(&place).fails(2).says("eta");
    }
    place.holds_only(&["a.png"]);
}

#[test]
fn tile_options_change_tiles_but_not_the_result() {
    let ((whole, one), (tiled, many)) = (denoised("--sigma 25"), denoised("--sigma 25 -t 200"));
    assert_eq!(one["tiles"].as_u64(), Some(1));
    assert!(many["tiles"].as_u64() > Some(1) && many["tile_width"].as_u64() <= Some(200), "{many}");
    let (_, wider) = denoised("--sigma 25 -t 200 --tile-overlap 176");
    assert!(wider["tiles"].as_u64() > many["tiles"].as_u64(), "{wider}");
    // Rounding may differ by half a gray level at most.
    let place = Place::new();
    place.file("whole.png", whole);
    place.file("tiled.png", tiled);
    let (whole, tiled) = (colors(&place.image("whole.png")), colors(&place.image("tiled.png")));
    let differences = whole.iter().zip(&tiled).filter(|(a, b)| a != b).count();
    assert!(whole.iter().zip(&tiled).all(|(a, b)| (a - b).abs() < 1.5 / 255.0));
    assert!(differences < whole.len() / 1000, "{differences} of {}", whole.len());
    let place = Place::with("a.png", &noisy(300, 48, 3, 8));
    eddy("denoise a.png -o b.png -t 64").within(&place).fails(2).says("use at least 256");
    eddy("denoise a.png -o b.png -t 200 --tile-overlap 8")
        .within(&place)
        .fails(2)
        .says("at least 126");
    place.holds_only(&["a.png"]);
}

#[test]
fn max_memory_limits_tiles() {
    let place = Place::with("a.png", &noisy(1200, 900, 3, 8));
    let refused = eddy("denoise a.png -o b.png --max-memory 1M")
        .within(&place)
        .fails(2)
        .says("raise --max-memory");
    place.holds_only(&["a.png"]);
    let (_, rest) = refused.stderr.split_once("takes about ").unwrap();
    let floor: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    let tiles = |megabytes: u64| {
        let options = format!("denoise a.png -o b.png --sigma 25 --json --max-memory {megabytes}M");
        eddy(&options).within(&place).succeeds().json()["tiles"].as_u64().unwrap()
    };
    let (few, some, one) = (tiles(floor + 4), tiles(floor + 60), tiles(floor + 2000));
    assert!(few > some && some > one && one == 1, "{few} {some} {one}");
    for wrong in ["0", "12X", "much"] {
        eddy(&format!("denoise a.png -o b.png --max-memory {wrong}")).fails(2).says("--max-memory");
    }
}

#[test]
fn threads_sets_the_number_of_threads() {
    let place = Place::with("a.png", &noisy(320, 240, 3, 8));
    let most = |threads: usize| {
        let options =
            format!("denoise a.png -o b.png --sigma 25 --steps 20 --quiet --threads {threads}");
        most_threads(eddy(&options).within(&place).command().spawn().unwrap())
    };
    // More than there are for a moment at the start, when the library is unpacked.
    let (six, eleven) = (most(6), most(11));
    assert_eq!(eleven, six + 5);
}

/// The largest observed number of threads of a process.
fn most_threads(mut child: Child) -> usize {
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).map_or(0, Iterator::count);
        most = most.max(tasks);
    }
    assert!(child.wait().unwrap().success());
    most
}

#[test]
fn jpeg_quality_changes_the_file_size() {
    let place = Place::with("a.png", &noisy(200, 100, 3, 8));
    let size = |quality: &str| {
        eddy(&format!("denoise a.png -o b.jpg {quality}")).within(&place).succeeds();
        place.bytes("b.jpg").len()
    };
    let (low, default, high) = (size("--jpeg-quality 5"), size(""), size("--jpeg-quality 100"));
    assert!(low < default && default < high, "{low} {default} {high}");
    eddy("denoise a.png -o b.jpg --jpeg-quality 0").within(&place).fails(2).says("--jpeg-quality");
}

#[test]
fn model_selects_the_network() {
    let place = Place::with("a.png", &noisy(31, 17, 3, 8));
    place.model("darker", "darker", |manifest| manifest);
    eddy("denoise a.png -o b.png -m darker --sigma 20").within(&place).succeeds();
    // It subtracts half of sigma from every pixel, and nothing else.
    let (before, after) = (colors(&place.image("a.png")), colors(&place.image("b.png")));
    let wrong = before
        .iter()
        .zip(&after)
        .find(|(b, a)| ((**b - 10.0 / 255.0).max(0.0) - **a).abs() > 0.01 / 255.0);
    assert!(wrong.is_none(), "{wrong:?}");
}

#[test]
fn format_selects_the_encoder() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    eddy("denoise a.png -o plain -f webp").within(&place).succeeds();
    assert_eq!(&place.bytes("plain")[8..12], b"WEBP");
    eddy("denoise a.png -o folder/ -f bmp").within(&place).succeeds();
    assert_eq!(place.names("folder"), ["a.bmp"]);
    eddy("denoise a.png -o named.png -f jpg").within(&place).succeeds();
    assert_eq!(&place.bytes("named.png")[..2], b"\xff\xd8");
    eddy("denoise -i a.png -o b.png").within(&place).succeeds();
    eddy("denoise a.png -o c.png").within(&place).succeeds();
    assert!(place.bytes("b.png") == place.bytes("c.png"));
    eddy("denoise a.png -o b.png -f gif")
        .within(&place)
        .fails(2)
        .says("choose png, jpg, webp, tiff, bmp or qoi");
    eddy("denoise a.png -i a.png -o b.png").within(&place).fails(2).says("cannot be used with");
}

#[test]
fn quiet_and_json_change_the_output() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 16));
    // Not even a warning is printed.
    eddy("denoise a.png -o b.jpg --quiet")
        .within(&place)
        .succeeds()
        .says_nothing()
        .prints_nothing();
    eddy("denoise a.png -o b.png")
        .within(&place)
        .succeeds()
        .says("a.png -> b.png")
        .prints_nothing();
    let outcome = eddy("denoise a.png -o b.png --json").within(&place).succeeds().says_nothing();
    assert_eq!(outcome.json()["output"], "b.png");
    assert_eq!(outcome.stdout.lines().count(), 1);
    eddy("denoise none.png -o b.png --quiet")
        .within(&place)
        .fails(3)
        .says("none.png")
        .prints_nothing();
}

#[test]
fn runtime_selects_the_library() {
    let place = Place::with("a.png", &noisy(40, 20, 3, 8));
    let library = env!("EDDY_EMBEDDED_ONNXRUNTIME");
    let plain = eddy("doctor --json").succeeds().json();
    assert_eq!(plain["library"], "the embedded one");
    let requested = eddy("doctor --json --runtime").arg(library).succeeds().json();
    assert_eq!(requested["library"], library);
    // A folder that contains the library, and the environment variable, which the option overrides.
    fs::create_dir(place.path("lib")).unwrap();
    std::os::unix::fs::symlink(library, place.path("lib/libonnxruntime.so.1")).unwrap();
    let named = eddy("doctor --json").env("ORT_DYLIB_PATH", "lib").within(&place).succeeds().json();
    assert_eq!(named["library"], "lib");
    eddy("denoise a.png -o b.png").within(&place).succeeds();
    eddy("denoise a.png -o c.png --runtime lib")
        .env("ORT_DYLIB_PATH", "none")
        .within(&place)
        .succeeds();
    assert!(place.bytes("b.png") == place.bytes("c.png"));
    eddy("denoise a.png -o d.png")
        .env("ORT_DYLIB_PATH", "none")
        .within(&place)
        .fails(5)
        .says("none");
}

#[test]
fn a_gray_model_takes_only_gray_images() {
    let place =
        Place::with("gray.png", &noisy(20, 20, 1, 8)).and("color.png", &noisy(20, 20, 3, 8));
    place.model("m", "gray", |manifest| manifest.replace("channels = 3", "channels = 1"));
    eddy("denoise gray.png -o b.png -m m").within(&place).succeeds();
    eddy("denoise color.png -o c.png -m m")
        .within(&place)
        .fails(2)
        .says("convert the frame to gray");
    assert_eq!(place.names(""), ["b.png", "color.png", "gray.png", "m"]);
}

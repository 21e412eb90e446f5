//! Models made to do harm: file names, numbers, endless graphs and texts.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::images::noisy;
use crate::common::place::{MANIFEST, Place, data, npy, sha256};
use crate::common::{Outcome, eddy};

/// Longer than any terminating operation takes.
const LONG: Duration = Duration::from_secs(60);

const DENOISE: &str = "denoise a.png -o out.png -m m --sigma 25";

const UNET: &str = r#"{"in_channels": 3, "out_channels": 3, "sample_size": 8}"#;

const CHECK: &str =
    "[check]\nsample = \"x.npy\"\nsigma = \"s.npy\"\ndenoised = \"x.npy\"\ntolerance = 1e-3\n";

fn place() -> Place {
    Place::with("a.png", &noisy(40, 30, 3, 8))
}

/// A diffusers folder `p` with these configurations.
fn pipeline(place: &Place, unet: &str, scheduler: &str) {
    place.file(
        "p/unet/model.onnx",
        fs::read(data("pipelines/int64-batch/unet/model.onnx")).unwrap(),
    );
    place.file("p/unet/config.json", unet);
    place.file("p/scheduler/scheduler_config.json", scheduler);
}

/// The folder `p` is rejected with this message.
fn refused(place: &Place, words: &str) {
    eddy("generate -m p -o out.png --steps 2").within(place).fails(4).says(words);
    place.holds_only(&["a.png", "p"]);
}

/// A length-delimited protobuf field.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    [&[(number << 3) | 2, u8::try_from(body.len()).unwrap()], body].concat()
}

/// A graph with a weight in a file of this name.
fn weighing(location: &str) -> Vec<u8> {
    let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
    field(7, &field(5, &field(13, &entry)))
}

#[test]
fn file_names_stay_inside_the_package() {
    let place = place();
    let secret = "a secret outside";
    place.file("secret", secret);
    let refused = |path: &str, words: &str| {
        place.model("m", "darker", |manifest| {
            manifest.replace("\"network.onnx\"", &format!("{path:?}"))
        });
        let outcome = eddy(DENOISE).within(&place).fails(4).says(words);
        assert!(
            !outcome.stderr.contains(secret)
                && !outcome.stderr.contains(&sha256(secret.as_bytes())),
            "{outcome}"
        );
    };
    let absolute = place.path("secret");
    for path in ["../secret", "../m/network.onnx", absolute.to_str().unwrap(), ""] {
        refused(path, "it lies outside of its folder");
    }
    place.folder("m/folder");
    symlink("../secret", place.path("m/link")).unwrap();
    symlink("/dev/zero", place.path("m/zero")).unwrap();
    symlink("..", place.path("m/up")).unwrap();
    for path in ["link", "zero", "up/secret"] {
        refused(path, "it is a link out of its folder");
    }
    mknodat(CWD, place.path("m/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    for path in ["folder", "fifo"] {
        refused(path, "expected a regular file");
    }
    // A link to a file inside the package is accepted.
    symlink("network.onnx", place.path("m/inside")).unwrap();
    place.model("m", "darker", |manifest| manifest.replace("\"network.onnx\"", "\"inside\""));
    eddy(DENOISE).within(&place).succeeds();
    // Nor may the manifest itself be a link out of the folder.
    fs::remove_file(place.path("m/model.toml")).unwrap();
    symlink("../secret", place.path("m/model.toml")).unwrap();
    let outcome = eddy(DENOISE).within(&place).fails(4).says("model.toml cannot be read");
    assert!(!outcome.stderr.contains(secret), "{outcome}");
}

#[test]
fn record_and_weight_names_stay_inside_the_package() {
    let place = place();
    place.file("secret", npy([1, 3, 8, 8], &[0.5; 192]));
    place.model("m", "darker", |manifest| manifest + &CHECK.replace("x.npy", "../secret"));
    eddy("check m").within(&place).fails(4).says("it lies outside of its folder");
    symlink("../secret", place.path("m/link")).unwrap();
    for (location, words) in [
        ("../secret", "it lies outside of its folder"),
        ("/etc/hostname", "it lies outside of its folder"),
        ("link", "it is a link out of its folder"),
    ] {
        place.model_of("m", &weighing(location), |manifest| manifest);
        eddy(DENOISE).within(&place).fails(4).says(location).says(words);
    }
}

#[test]
fn diffusers_folders_may_link_into_their_cache() {
    let place = place();
    pipeline(&place, UNET, "{}");
    place.folder("cache/blobs");
    place.folder("cache/snapshots");
    fs::rename(place.path("p"), place.path("cache/snapshots/0123")).unwrap();
    for (i, file) in ["unet/model.onnx", "unet/config.json", "scheduler/scheduler_config.json"]
        .into_iter()
        .enumerate()
    {
        let link = place.path("cache/snapshots/0123").join(file);
        fs::rename(&link, place.path(&format!("cache/blobs/{i}"))).unwrap();
        symlink(format!("../../../blobs/{i}"), link).unwrap();
    }
    eddy("generate -m cache/snapshots/0123 -o b.png --steps 2").within(&place).succeeds();
    eddy("import cache/snapshots/0123 -o package").within(&place).succeeds();
    // In other places such links lead out of the folder.
    fs::rename(place.path("cache/snapshots"), place.path("cache/other")).unwrap();
    eddy("generate -m cache/other/0123 -o c.png --steps 2")
        .within(&place)
        .fails(4)
        .says("a link out of its folder");
}

#[test]
fn rejects_manifest_numbers_out_of_range() {
    let deep = format!("a = {}1{}\n[sigma]", "[".repeat(10_000), "]".repeat(10_000));
    let long = "a".repeat(2 << 20);
    let channels = |more: &str| format!("channels = 3\n{more}");
    let place = place();
    for (from, to, words) in [
        ("channels = 3", "channels = 0", "channels = 0; expected 1 to 256"),
        ("channels = 3", "channels = 1000000000", "channels = 1000000000; expected 1 to 256"),
        ("channels = 3", "channels = -1", "channels = -1"),
        ("channels = 3", "channels = 3.0", "channels = 3.0"),
        ("channels = 3", "channels = 99999999999999999999", "channels = 9999"),
        (
            "channels = 3",
            &channels("multiple_of = 100000"),
            "multiple_of = 100000; expected 1 to 1024",
        ),
        (
            "channels = 3",
            &channels("multiple_of = 512\nscale = 512"),
            "multiple_of times scale = 262144",
        ),
        ("channels = 3", &channels("scale = 0"), "scale = 0; expected 1 to 1024"),
        ("channels = 3", &channels("size = [8, 0]"), "size = 0; expected 1 to 65535"),
        ("channels = 3", &channels("size = [100000, 8]"), "size = 100000; expected 1 to 65535"),
        (
            "receptive_field = 0",
            "receptive_field = 9223372036854775807",
            "receptive_field = 9223372036854775807; expected",
        ),
        (
            "bytes_per_pixel = 64",
            "bytes_per_pixel = 0",
            "bytes_per_pixel = 0; expected 1 to 1073741824",
        ),
        ("max = 1.0", "max = 1e308", "sigma.max = 1000"),
        ("max = 1.0", "max = nan", "sigma.max = NaN; expected 0 to 1000000"),
        ("max = 1.0", "max = inf", "sigma.max = inf"),
        ("min = 0.0", "min = -1.0", "sigma.min = -1; expected 0 to 1000000"),
        ("[0.0, 1.0]", "[0.0, 1e30]", "range = "),
        (
            "[files.f32]",
            "[defaults]\nsteps = 1000000000\n[files.f32]",
            "defaults.steps = 1000000000; expected 1 to 1000",
        ),
        ("[sigma]", &deep, "model.toml is not readable"),
        ("a test", &long, "expected at most 1048576"),
    ] {
        place.model("m", "darker", |manifest| manifest.replacen(from, to, 1));
        eddy(DENOISE).within(&place).fails(4).says("model.toml").says(words);
        place.holds_only(&["a.png", "m"]);
    }
}

#[test]
fn rejects_scheduler_numbers_out_of_range() {
    let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!("{{\"a\": \"{}\"}}", "a".repeat(100 << 20));
    let place = place();
    for (config, words) in [
        (
            r#"{"num_train_timesteps": 9223372036854775807}"#,
            "num_train_timesteps = 9223372036854775807",
        ),
        (r#"{"num_train_timesteps": 1000000000}"#, "possible: a whole number, 2 to 100000"),
        (r#"{"num_train_timesteps": 0}"#, "num_train_timesteps = 0"),
        (r#"{"num_train_timesteps": -1}"#, "num_train_timesteps = -1"),
        (r#"{"num_train_timesteps": 1000.5}"#, "num_train_timesteps = 1000.5"),
        (
            r#"{"beta_start": 0}"#,
            "beta_start = 0, which is not supported; possible: between 0 and 1",
        ),
        (r#"{"beta_end": 1e308}"#, "beta_end = 1000"),
        (r#"{"beta_end": NaN}"#, "beta_end = \"NaN\""),
        (r#"{"beta_end": 1e999}"#, "scheduler_config.json is not JSON"),
        (r#"{"trained_betas": [0.1, 0.2]}"#, "trained_betas = 2 betas"),
        (
            r#"{"num_train_timesteps": 2, "trained_betas": [0.1, -0.2]}"#,
            "trained_betas = [... -0.2 ...]",
        ),
        (r#"{"sigma_min": 0, "sigma_max": 9}"#, "sigma_min = 0"),
        (
            r#"{"sigma_min": 9, "sigma_max": 1}"#,
            "sigma_min = 9, which is not supported; possible: less than sigma_max, 1",
        ),
        (r#"{"steps_offset": 18446744073709551615}"#, "steps_offset = 18446744073709551615"),
        (deep.as_str(), "scheduler_config.json is not JSON"),
        (long.as_str(), "expected at most 1048576"),
    ] {
        pipeline(&place, UNET, config);
        refused(&place, words);
    }
}

#[test]
fn rejects_unet_numbers_out_of_range() {
    let sized = |size: &str| UNET.replace(": 8}", &format!(": {size}}}"));
    let place = place();
    for (config, words) in [
        (sized("0"), "unet/config.json has sample_size = 0; expected a whole number, 1 to 8192"),
        (sized("100000"), "sample_size = 100000"),
        (sized("1000000000"), "sample_size = 1000000000"),
        (sized("18446744073709551615"), "sample_size = 18446744073709551615"),
        (sized("-8"), "sample_size = -8"),
        (sized("[8, 8.5]"), "sample_size = [8,8.5]"),
        (sized("[8]"), "sample_size = [8]"),
        (
            UNET.replace("3, \"out", "1000000000, \"out"),
            "in_channels = 1000000000; expected a whole number, 1 to 256",
        ),
        (
            UNET.replace('{', "{\"block_out_channels\": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "),
            "at most 11 whole numbers",
        ),
        (UNET.replace('{', "{\"num_class_embeds\": 0, "), "num_class_embeds = 0"),
        ("[".repeat(10_000), "config.json is not as diffusers writes it"),
        ("{}".to_owned(), "number of channels"),
    ] {
        pipeline(&place, &config, "{}");
        refused(&place, words);
    }
}

#[test]
fn rejects_records_with_excessive_sizes() {
    let place = place();
    place.model("m", "darker", |manifest| manifest + CHECK);
    let bytes = npy([1, 3, 8, 8], &[0.5; 192]);
    for shape in [
        "(1, 3, 1000000, 1000000)",
        "(1, 3, 0, 8)",
        "(99999999999999999999, 1, 1, 1)",
        "(1, 3, 8, -8)",
    ] {
        let text = String::from_utf8_lossy(&bytes[10..128]).replace("(1, 3, 8, 8)", shape);
        let head = format!("{:<117}\n", text.trim_end());
        place.file("m/x.npy", [&bytes[..10], head.as_bytes(), &bytes[128..]].concat());
        eddy("check m").within(&place).fails(4).says("its x.npy");
    }
}

/// Runs the binary; sends it `signal`, if any, once it has worked for a while. Returns the exit
/// code, the messages, and the time from the signal to the end.
fn ends(place: &Place, arguments: &str, signal: Option<Signal>) -> (Option<i32>, String, Duration) {
    let mut command = eddy(arguments).within(place).command();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stat = format!("/proc/{}/stat", child.id());
    // User and system time, in hundredths of a second.
    let worked = || -> u64 {
        let text = fs::read_to_string(&stat).unwrap();
        let fields = text.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    };
    let started = Instant::now();
    if let Some(signal) = signal {
        // The time is spent in the network.
        while worked() < 200 {
            assert!(started.elapsed() < LONG, "nothing is at work");
            std::thread::sleep(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
    }
    let requested = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if requested.elapsed() > LONG {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = requested.elapsed();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), took)
}

#[test]
fn interrupts_an_endless_evaluation() {
    let place = place();
    place.model("m", "endless", |manifest| manifest);
    for signal in [Signal::INT, Signal::TERM] {
        let (code, said, _) = ends(&place, DENOISE, Some(signal));
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("interrupted; what was finished is kept"), "{said}");
    }
    let (code, said, _) = ends(&place, &format!("{DENOISE} --timeout 1"), None);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("model tested: an evaluation") && said.contains("longer than 1 s"),
        "{said}"
    );
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn fails_when_a_network_allocates_beyond_max_memory() {
    let place = place();
    place.model("m", "greedy", |manifest| manifest);
    // Many threads need only their stacks.
    eddy("denoise a.png -o out.png --sigma 25 --max-memory 60M --threads 8 --timeout 20")
        .within(&place)
        .succeeds();
    fs::remove_file(place.path("out.png")).unwrap();
    let failed = eddy(&format!("{DENOISE} --max-memory 200M")).within(&place).fails(1);
    failed.says("failed for lack of memory").says("raise --max-memory");
    place.holds_only(&["a.png", "m"]);
}

/// Processors of other kinds give the smallest integer.
#[cfg(target_arch = "x86_64")]
#[test]
fn fails_when_a_network_divides_the_smallest_integer() {
    let place = place();
    place.model("m", "overflow", |manifest| manifest);
    eddy(DENOISE).within(&place).fails(1).says("the network failed: it divides an integer");
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn interrupts_an_endless_load() {
    let place = place();
    place.model("m", "nested", |manifest| manifest + CHECK);
    place.file("m/x.npy", npy([1, 3, 8, 8], &[0.5; 192]));
    place.file("m/s.npy", npy([1, 1, 8, 8], &[0.5; 64]));
    for command in [DENOISE, "info m", "check m"] {
        let (code, said, took) = ends(&place, command, Some(Signal::INT));
        assert_eq!(code, Some(130), "{said}");
        // Sooner than an evaluation would be terminated.
        assert!(took < Duration::from_secs(4), "{command}: {took:?}");
    }
    let (code, said, _) = ends(&place, &format!("{DENOISE} --timeout 0.5"), None);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("cannot use model tested: loading it takes longer than 0.5 s"), "{said}");
    // An incomplete folder is deleted, too.
    let import = "import m/network.onnx -o out --task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma \
                  --output-name denoised";
    assert_eq!(ends(&place, import, Some(Signal::TERM)).0, Some(130));
    place.holds_only(&["a.png", "m"]);
    assert_eq!(ends(&place, &format!("{import} --timeout 0.5"), None).0, Some(4));
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn interrupts_an_endless_load_during_a_run() {
    let place = place();
    place.model("m", "nested", |manifest| {
        let broken = fs::read(data("models/nan.onnx")).unwrap();
        place.file("m/int8.onnx", &broken);
        manifest
            + &format!("[files.int8]\npath = \"int8.onnx\"\nsha256 = \"{}\"\n", sha256(&broken))
    });
    let (code, said, _) = ends(&place, &format!("{DENOISE} --precision int8 --timeout 1"), None);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("cannot use model tested: loading it takes longer than 1 s"), "{said}");
    let (code, said, _) = ends(&place, &format!("{DENOISE} --precision int8"), Some(Signal::INT));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted; what was finished is kept"), "{said}");
    place.holds_only(&["a.png", "m"]);
}

#[test]
fn unknown_manifest_keys_are_attributed_to_the_manifest() {
    let place = place();
    place.model("m", "darker", |manifest| {
        let manifest = manifest.replace("prediction = \"denoised\"", "prediction = \"epsilon\"");
        manifest.replace("[sigma]\nmin = 0.0\nmax = 1.0", "[schedule]\nbeta_schedule = \"cubic\"")
    });
    eddy("sample m --input x.npy -o y.npy --sampler ddim --steps 2")
        .within(&place)
        .fails(4)
        .says("its model.toml's [schedule] has beta_schedule = cubic");
}

#[test]
fn a_sufficient_time_limit_changes_nothing() {
    let place = place();
    place.model("m", "darker", |manifest| manifest);
    eddy(&format!("{DENOISE} --timeout 100")).within(&place).succeeds();
    for text in ["0", "-1", "nan", "inf", "soon"] {
        eddy(&format!("{DENOISE} --timeout={text}"))
            .within(&place)
            .fails(2)
            .says("expected seconds");
    }
}

#[test]
fn strips_control_characters_from_untrusted_text() {
    let place = place();
    let clean = |outcome: &Outcome| {
        let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202E}';
        assert!(
            !outcome.stdout.contains(steers) && !outcome.stderr.contains(steers),
            "{:?}",
            outcome.stderr
        );
    };
    // As TOML writes them.
    let evil = r"\u001B]0;gone\u0007\u001B[2J\u009Bx\u202E\nlicense";
    place
        .model("m", "darker", |manifest| manifest.replace("a test", evil).replace("CC0-1.0", evil));
    let shown = r"\u{1b}]0;gone\u{7}\u{1b}[2J\u{9b}x\u{202e}\nlicense";
    clean(&eddy("info m").within(&place).succeeds().prints(shown));
    let named = |manifest: String| manifest.replace("\"tested\"", &format!("\"{evil}\""));
    place.model("m", "darker", |manifest| {
        named(manifest).replace("network.onnx", r"\u001B[2J.onnx")
    });
    clean(&eddy(DENOISE).within(&place).fails(4).says(r"\u{1b}[2J.onnx"));
    place.model_of("m", b"", |_| named(MANIFEST.replace("{sha256}", evil)));
    clean(&eddy(DENOISE).within(&place).fails(4).says(r"\u{1b}]0;gone"));
    // The name of a graph's input.
    let mut graph = fs::read(data("models/names.onnx")).unwrap();
    for at in 0..graph.len() - 6 {
        if &graph[at..at + 6] == b"pixels" {
            graph[at..at + 6].copy_from_slice(b"\x1B[2J\x07p");
        }
    }
    place.model_of("m", &graph, |manifest| manifest);
    clean(&eddy(DENOISE).within(&place).fails(4).says(r"\u{1b}[2J\u{7}"));
    // The names of images.
    place.model("m", "darker", |manifest| manifest);
    let denoise = || eddy("denoise -o out.png -m m --sigma 25").within(&place);
    fs::copy(place.path("a.png"), place.path("\u{1B}[2J.png")).unwrap();
    clean(&denoise().arg("\u{1B}[2J.png").succeeds().says(r"\u{1b}[2J.png"));
    place.file("\u{1B}.png", "no image");
    clean(&denoise().arg("\u{1B}.png").fails(3).says(r"\u{1b}.png"));
}

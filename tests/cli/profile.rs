//! `eddy profile`, and its use by `eddy denoise --noise-profile`.

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::{Image, Samples};

use crate::common::eddy;
use crate::common::images::{encoded, noisy, psnr, read, values};
use crate::common::place::{Place, data};

/// A photograph as a camera with noise variance `a * signal + b` delivers it.
fn shot(clean: &Image, (a, b): (f64, f64), seed: u64, bits: u32) -> Image {
    let (stride, white) = (clean.width * clean.channels, if bits == 8 { 255.0 } else { 65535.0 });
    let mut row = vec![0.0; stride];
    let mut shot = Vec::with_capacity(stride * clean.height);
    for (y, line) in values(clean).chunks_exact(stride).enumerate() {
        Philox::new(seed).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 }, 0, &mut row);
        let delivered = line
            .iter()
            .zip(&row)
            .map(|(signal, z)| signal + (a * signal + b).sqrt() * f64::from(*z));
        shot.extend(delivered.map(|value| (white * value).round().clamp(0.0, white)));
    }
    let samples = match bits {
        8 => Samples::U8(shot.iter().map(|value| *value as u8).collect()),
        _ => Samples::U16(shot.iter().map(|value| *value as u16).collect()),
    };
    Image { samples, ..clean.clone() }
}

/// Noise of 3 gray levels in dark areas and 30 in bright areas.
const STRONG: (f64, f64) = (0.016, 1e-4);

/// The red channel as a gray image.
fn gray(image: &Image) -> Image {
    let red = |samples: &[u8]| samples.iter().step_by(3).copied().collect();
    let Samples::U8(samples) = &image.samples else {
        panic!("the photograph has {} bits", image.samples.bits())
    };
    Image { channels: 1, samples: Samples::U8(red(samples)), ..image.clone() }
}

/// A place with five frames of a static scene, another image of that camera, and a profile measured
/// on the frames.
fn profiled(scene: &Image, image: &Image, bits: u32) -> Place {
    let place = Place::new();
    for seed in 1..=5 {
        place.file(&format!("still/{seed}.png"), encoded(&shot(scene, STRONG, seed, bits), "png"));
    }
    let place = place.and("noisy.png", &shot(image, STRONG, 77, bits));
    eddy("profile still -o camera.toml")
        .within(&place)
        .succeeds()
        .says("the noise of 5 frames")
        .prints_nothing();
    place
}

#[test]
fn a_profile_improves_denoising() {
    let clean = read(&data("coffee.png"));
    let place = profiled(&read(&data("chelsea.png")), &clean, 8);
    let record = eddy("profile noisy.png -o single.toml --json")
        .within(&place)
        .succeeds()
        .says_nothing()
        .json();
    assert_eq!((record["method"].as_str(), record["frames"].as_u64()), (Some("image"), Some(1)));
    assert_eq!(record["channels"].as_array().map(Vec::len), Some(3));
    let after = |options: &str| {
        eddy(&format!("denoise noisy.png -o clean.png {options}")).within(&place).succeeds();
        psnr(&clean, &place.image("clean.png"))
    };
    let (auto, images, single) = (
        after("--sigma auto"),
        after("--noise-profile camera.toml"),
        after("--noise-profile single.toml"),
    );
    assert!(
        images > auto + 0.5 && single > auto + 0.5,
        "auto {auto}, frames {images}, single {single}"
    );
    // The true profile gives no better result.
    place.file("true.toml", truth_of_strong());
    let truth = after("--noise-profile true.toml");
    assert!(
        (truth - images).abs() < 0.1 && (truth - single).abs() < 0.3,
        "{truth}: {images} {single}"
    );
    // More steps keep more texture and still use the noise map.
    let (auto, images) =
        (after("--steps 3 --eta 1"), after("--steps 3 --eta 1 --noise-profile camera.toml"));
    assert!(images > auto + 0.3, "in 3 steps: auto {auto}, frames {images}");
}

fn truth_of_strong() -> String {
    let (a, b) = STRONG;
    let line = format!("[[channels]]\na = {a:e}\nb = {b:e}\nsignal = [0.0, 1.0]\n");
    format!(
        "version = 1\nmethod = \"frames\"\nframes = 2\nwidth = 9\nheight = 9\n{}",
        line.repeat(3)
    )
}

#[test]
fn profiles_gray_and_16_bit_images() {
    let photograph = read(&data("coffee.png"));
    for (clean, bits) in [(gray(&photograph), 8), (gray(&photograph), 16), (photograph.clone(), 16)]
    {
        let place = profiled(&clean, &clean, bits);
        let options = ["--sigma auto", "--noise-profile camera.toml"];
        let [auto, by_profile] = options.map(|options| {
            eddy(&format!("denoise noisy.png -o clean.png {options}")).within(&place).succeeds();
            let after = place.image("clean.png");
            assert_eq!((after.channels, after.samples.bits()), (clean.channels, bits));
            psnr(&clean, &after)
        });
        assert!(
            by_profile > auto + 0.3,
            "{} channels of {bits} bits: {auto} {by_profile}",
            clean.channels
        );
    }
}

#[test]
fn tiles_with_a_noise_map_match_the_whole_image() {
    let place = profiled(&read(&data("chelsea.png")), &read(&data("chelsea.png")), 8);
    for steps in [1, 2] {
        for (output, tile) in [("whole.png", 0), ("tiled.png", 256)] {
            let options = format!(
                "denoise noisy.png -o {output} --noise-profile camera.toml --steps {steps} -t {tile} --json"
            );
            let record = eddy(&options).within(&place).succeeds().json();
            assert_eq!(record["tiles"].as_u64() > Some(1), tile > 0, "{record}");
            // The root of the mean variance: 0.016 times the mean of the photograph, plus a little.
            let sigma = record["sigma"].as_f64().unwrap();
            assert!((18.0..26.0).contains(&sigma), "{record}");
        }
        let (whole, tiled) = (values(&place.image("whole.png")), values(&place.image("tiled.png")));
        assert!(whole.iter().zip(&tiled).all(|(a, b)| (a - b).abs() < 1.5 / 255.0));
        assert!(whole.iter().zip(&tiled).filter(|(a, b)| a != b).count() < whole.len() / 1000);
    }
}

#[test]
fn reports_noise_above_the_range_of_the_model() {
    let place = Place::with("a.png", &noisy(40, 30, 1, 8));
    let profile = |b: f64| {
        format!(
            "version = 1\nmethod = \"image\"\nframes = 1\nwidth = 9\nheight = 9\n[[channels]]\na = 0.0\nb = {b}\nsignal = [0.5, 0.5]\n"
        )
    };
    place.file("loud.toml", profile(0.5));
    place.file("none.toml", profile(0.0));
    let options = "denoise a.png -o b.png --noise-profile";
    let record = eddy(options).arg("loud.toml").arg("--json").within(&place).succeeds().json();
    assert_eq!(
        (record["sigma"].as_f64().map(f64::round), record["sigma_limited"].as_bool()),
        (Some(100.0), Some(true))
    );
    eddy(options).arg("loud.toml").within(&place).succeeds().says("where it is exceeded");
    eddy(options).arg("none.toml").within(&place).succeeds().says("nothing to do");
    assert_eq!(place.image("b.png").samples, place.image("a.png").samples);
}

#[test]
fn reports_a_flat_scene() {
    let flat = Image { samples: Samples::U8(vec![120; 200 * 100]), ..noisy(200, 100, 1, 8) };
    let place = Place::new()
        .and("a.png", &shot(&flat, STRONG, 1, 8))
        .and("b.png", &shot(&flat, STRONG, 2, 8));
    eddy("profile a.png b.png -o flat.toml")
        .within(&place)
        .succeeds()
        .says("too flat")
        .says("a = 0");
    let record = eddy("profile a.png -o flat.toml --json").within(&place).succeeds().json();
    assert_eq!(
        (record["channels"][0]["a"].as_f64(), record["channels"][0]["flat"].as_bool()),
        (Some(0.0), Some(true))
    );
}

#[test]
fn failed_measurements_leave_nothing_behind() {
    let place = Place::with("a.png", &noisy(60, 40, 3, 8))
        .and("b.png", &noisy(61, 40, 3, 8))
        .and("deep.png", &noisy(60, 40, 3, 16))
        .and("white.png", &Image { samples: Samples::U8(vec![255; 7200]), ..noisy(60, 40, 3, 8) });
    let before = place.names("");
    let refused = |arguments: &str, code: i32, words: &str| {
        eddy("profile").args(arguments).within(&place).fails(code).says(words).prints_nothing();
        assert_eq!(place.names(""), before);
    };
    refused("a.png b.png -o c.toml", 3, "b.png: it is 61x40 in 8-bit RGB, but a.png is 60x40");
    refused("a.png deep.png -o c.toml", 3, "16-bit");
    refused("a.png a.png -o c.toml", 3, "does not differ from the frames before");
    refused("white.png -o c.toml", 3, "expose so");
    refused("none.png -o c.toml", 3, "no such file");
    refused("a.png -o a.png", 2, "would replace the input");
    refused("a.png -o none/c.toml", 1, "the folder none does not exist");
    refused("a.png -o -", 2, "a stream");
    refused("a.png", 2, "--output");
    refused("-o c.toml", 2, "SOURCE");
}

#[test]
fn rejects_profiles_that_do_not_fit() {
    let place = Place::with("a.png", &noisy(60, 40, 3, 8)).and("gray.png", &noisy(200, 150, 1, 8));
    place.file("wrong.toml", "version = 7\n");
    eddy("profile gray.png -o gray.toml").within(&place).succeeds();
    let before = place.names("");
    let refused = |options: &str, code: i32, words: &str| {
        eddy("denoise a.png -o b.png --noise-profile")
            .args(options)
            .within(&place)
            .fails(code)
            .says(words);
        assert_eq!(place.names(""), before);
    };
    refused("gray.toml", 2, "measured gray, the image is in color");
    refused("wrong.toml", 3, "wrong.toml: it is not a noise profile");
    refused("a.png", 3, "it is a binary file, not a noise profile");
    refused("none.toml", 3, "make one with `eddy profile`");
    refused("gray.toml --sigma 25", 2, "cannot be used with");
    refused("gray.toml --sigma auto", 2, "cannot be used with");
}

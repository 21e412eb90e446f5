//! `eddy upscale`, with a network of closed form and with the bundled ones.

use eddy::media::{Image, Samples};
use image::imageops::FilterType;

use crate::common::eddy;
use crate::common::images::{self, psnr};
use crate::common::place::{Place, data};

/// A place with `larger`, whose result is the mean of the nearest-neighbor enlargement and of the
/// state.
fn place(image: &Image) -> Place {
    let place = Place::with("small.png", image);
    place.model("larger", "larger", |manifest| {
        manifest
            .replace("task = \"denoise\"", "task = \"upscale\"\nscale = 2\nmultiple_of = 4")
            .replace("sigma = \"sigma\"", "sigma = \"sigma\"\ncondition = \"low\"")
            .replace("receptive_field = 0", "receptive_field = 3")
    });
    place
}

fn bytes(image: &Image) -> Vec<u8> {
    match &image.samples {
        Samples::U8(samples) => samples.clone(),
        Samples::U16(samples) => samples.iter().map(|sample| (sample >> 8) as u8).collect(),
    }
}

/// One channel of an image, resized as the `image` crate does.
fn resized(
    image: &Image,
    channel: usize,
    (width, height): (usize, usize),
    filter: FilterType,
) -> Vec<u8> {
    let plane: Vec<u8> = bytes(image).into_iter().skip(channel).step_by(image.channels).collect();
    let plane = image::GrayImage::from_raw(image.width as u32, image.height as u32, plane).unwrap();
    image::imageops::resize(&plane, width as u32, height as u32, filter).into_raw()
}

#[test]
fn upscales_every_kind_of_image_from_its_bicubic_enlargement() {
    for (channels, bits) in [(1, 8), (2, 16), (3, 8), (3, 16), (4, 8), (4, 16)] {
        let small = images::noisy(37, 22, channels, bits);
        let place = place(&small);
        eddy("upscale small.png -o large.png -m larger").within(&place).succeeds();
        let large = place.image("large.png");
        assert_eq!((large.width, large.height, large.channels), (74, 44, channels));
        assert_eq!(large.samples.bits(), bits);
        for channel in 0..channels {
            let near = resized(&small, channel, (74, 44), FilterType::Nearest);
            let cubic = resized(&small, channel, (74, 44), FilterType::CatmullRom);
            let is_alpha = large.has_alpha() && channel == channels - 1;
            let found = bytes(&large).into_iter().skip(channel).step_by(channels);
            for (i, found) in found.enumerate() {
                // The `image` crate omits pixels beyond an edge, Eddy repeats the edge.
                let (x, y) = (i % 74, i / 74);
                if x < 4 || y < 4 || x >= 70 || y >= 40 {
                    continue;
                }
                let cubic = f64::from(cubic[i]);
                let expected = if is_alpha { cubic } else { (f64::from(near[i]) + cubic) / 2.0 };
                let difference = (f64::from(found) - expected).abs();
                assert!(
                    difference <= 2.0,
                    "{channels} channels of {bits} bits: {found} for {expected} at {x},{y}"
                );
            }
        }
    }
}

#[test]
fn exceeds_the_quality_of_bicubic_on_a_photograph() {
    let truth = images::read(&data("chelsea.png"));
    let even = |side: usize| side / 4 * 4;
    let truth =
        image::RgbImage::from_raw(truth.width as u32, truth.height as u32, bytes(&truth)).unwrap();
    let truth = image::imageops::crop_imm(
        &truth,
        0,
        0,
        even(truth.width() as usize) as u32,
        even(truth.height() as usize) as u32,
    );
    let truth = truth.to_image();
    for (scale, gain) in [(2, 1.0), (4, 0.4)] {
        let place = Place::new();
        let (width, height) = truth.dimensions();
        let small =
            image::imageops::resize(&truth, width / scale, height / scale, FilterType::CatmullRom);
        small.save(place.path("small.png")).unwrap();
        truth.save(place.path("truth.png")).unwrap();
        image::imageops::resize(&small, width, height, FilterType::CatmullRom)
            .save(place.path("bicubic.png"))
            .unwrap();
        eddy(&format!("upscale small.png -o large.png -s {scale}")).within(&place).succeeds();
        let truth = place.image("truth.png");
        let (ours, bicubic) =
            (psnr(&place.image("large.png"), &truth), psnr(&place.image("bicubic.png"), &truth));
        assert!(ours > bicubic + gain, "{scale}: {ours} dB, bicubic {bicubic} dB");
    }
}

#[test]
fn tiles_match_the_whole_image() {
    let place = Place::with("small.png", &images::noisy(300, 290, 3, 8));
    for steps in [1, 2] {
        let run = |name: &str, tile: &str| {
            let run = eddy(&format!(
                "upscale small.png -o {name} --steps {steps} --seed 3 --json {tile}"
            ));
            run.within(&place).succeeds().json()
        };
        assert_eq!(run("whole.png", "")["tiles"], 1);
        let tiled = run("tiled.png", "-t 264");
        assert!(tiled["tiles"].as_u64().unwrap() > 1, "{tiled}");
        assert_eq!(place.bytes("whole.png"), place.bytes("tiled.png"), "{steps} steps");
    }
}

#[test]
fn the_seed_matters_with_several_steps_only() {
    let place = Place::with("small.png", &images::noisy(40, 32, 3, 8));
    let result = |options: &str| {
        eddy(&format!("upscale small.png -o large.png {options}")).within(&place).succeeds();
        place.bytes("large.png")
    };
    assert_eq!(result("--seed 1"), result("--seed 2"));
    assert_ne!(result("--steps 3 --seed 1"), result("--steps 3 --seed 2"));
    assert_eq!(result("--steps 3 --seed 1"), result("--steps 3 --seed 1"));
    assert_ne!(result("--steps 3"), result("--steps 2"));
    assert_ne!(result("--steps 3 --eta 1"), result("--steps 3"));
}

#[test]
fn the_scale_selects_a_model() {
    let small = images::noisy(24, 16, 3, 8);
    let place = place(&small);
    let size = |options: &str| {
        let record = eddy(&format!("upscale small.png -o large.png --json {options}"))
            .within(&place)
            .succeeds()
            .json();
        (
            record["width"].as_u64().unwrap(),
            record["height"].as_u64().unwrap(),
            record["upscale_factor"].as_u64().unwrap(),
        )
    };
    assert_eq!(size(""), (48, 32, 2));
    assert_eq!(size("-s 4"), (96, 64, 4));
    assert_eq!(size("-m larger"), (48, 32, 2));
    assert_eq!(size("-m larger -s 2"), (48, 32, 2));
    let refused = |options: &str, code: i32, words: &str| {
        eddy(&format!("upscale small.png -o other.png {options}"))
            .within(&place)
            .fails(code)
            .says(words);
    };
    refused("-s 3", 2, "use -s 2 or -s 4");
    refused("-m larger -s 4", 2, "enlarges 2 times, 4 was requested");
    refused("-m denoise-fast", 4, "expected one to upscale");
    eddy("denoise small.png -o other.png -m upscale-x2")
        .within(&place)
        .fails(4)
        .says("expected denoise or deblur");
    place.holds_only(&["large.png", "larger", "small.png"]);
}

#[test]
fn rejects_impossible_outputs_before_processing() {
    let place = Place::with("wide.png", &images::noisy(9000, 8, 3, 8));
    eddy("upscale wide.png -o wide.webp").within(&place).fails(1).says("16383");
    eddy("upscale wide.png -o large.png -s 4 --max-memory 1M")
        .within(&place)
        .fails(2)
        .says("raise --max-memory");
    place.holds_only(&["wide.png"]);
}

#[test]
fn rejects_an_upscaling_manifest_without_a_condition() {
    let place = Place::with("small.png", &images::noisy(8, 8, 3, 8));
    place.model("m", "larger", |manifest| {
        manifest.replace("task = \"denoise\"", "task = \"upscale\"\nscale = 2")
    });
    eddy("upscale small.png -o large.png -m m").within(&place).fails(4).says("condition");
}

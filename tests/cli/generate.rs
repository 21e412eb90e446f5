//! `eddy generate` and `eddy inpaint`, with the bundled networks.

use eddy::media::{Image, Samples};

use crate::common::eddy;
use crate::common::images::{noisy, psnr, read};
use crate::common::place::{Place, data};

fn samples(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("8 bits were expected"),
    }
}

/// A mask of that size, white in a rectangle.
fn mask(width: usize, height: usize, [x, y, wide, high]: [usize; 4]) -> Image {
    let inside =
        |i: usize| (x..x + wide).contains(&(i % width)) && (y..y + high).contains(&(i / width));
    let samples = (0..width * height).map(|i| if inside(i) { 255 } else { 0 }).collect();
    Image {
        width,
        height,
        channels: 1,
        samples: Samples::U8(samples),
        metadata: eddy::media::Metadata::default(),
    }
}

/// The part of an image's pixels whose red is larger than their green and blue by this.
fn red_part(image: &Image) -> f64 {
    let is_red = |pixel: &[u8]| i32::from(pixel[0]) - i32::from(pixel[1].max(pixel[2])) > 60;
    let pixels = samples(image).chunks_exact(3);
    pixels.clone().filter(|pixel| is_red(pixel)).count() as f64 / pixels.len() as f64
}

#[test]
fn a_prompt_needs_no_model_and_is_followed() {
    let place = Place::new();
    let of = |prompt: &str, output: &str| {
        let run = format!("generate --seed 2 -o {output} --prompt");
        eddy(&run).arg(prompt).within(&place).succeeds().says("one image of 64x64 by shapes-glide");
        red_part(&place.image(output))
    };
    let [red, blue] = [of("a large red square", "red.png"), of("a large blue square", "blue.png")];
    assert!(red > 0.1 && blue < 0.02, "{red} {blue}");
    eddy("generate -o dog.png --prompt").arg("a red dog").within(&place).succeeds().says("\"dog\"");
    // The same from its folder.
    eddy("generate --seed 2 -o folder.png --prompt")
        .arg("a large red square")
        .args("-m")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes-glide"))
        .within(&place)
        .succeeds();
    assert_eq!(samples(&place.image("folder.png")), samples(&place.image("red.png")));
    for model in ["shapes-imagen", "shapes-unclip"] {
        let of = |color: &str| {
            eddy(&format!("generate -m {model} --seed 2 -o {color}.png --prompt"))
                .arg(format!("a large {color} square"))
                .within(&place)
                .succeeds()
                .says(&format!("one image of 64x64 by {model}"));
            red_part(&place.image(&format!("{color}.png")))
        };
        let [red, blue] = [of("red"), of("blue")];
        assert!(red > 0.1 && blue < 0.02, "{model}: {red} {blue}");
    }
    let negative = "generate -o red-not.png --seed 2 --prompt square --negative-prompt red";
    eddy(negative).within(&place).succeeds();
}

#[test]
fn a_seed_gives_one_image_alone_and_in_a_batch() {
    let place = Place::new();
    eddy("generate -o all/ --size 32x32 --steps 3 --count 3 --seed 5")
        .within(&place)
        .succeeds()
        .says("3 images of 32x32");
    assert_eq!(place.names("all"), ["000005.png", "000006.png", "000007.png"]);
    eddy("generate -o one.png --size 32x32 --steps 3 --seed 6").within(&place).succeeds();
    let (one, same, other) =
        (place.image("one.png"), place.image("all/000006.png"), place.image("all/000005.png"));
    // Batches may sum in another order.
    let most = samples(&one).iter().zip(samples(&same)).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most <= 1, "{most}");
    assert_ne!(samples(&one), samples(&other));
    // The parameters are stored in the file.
    let text = String::from_utf8_lossy(&place.bytes("one.png")).into_owned();
    for part in [
        "parameters",
        r#""seed":6"#,
        r#""model":"prior""#,
        r#""sampler":"dpmpp-2m""#,
        r#""sha256""#,
    ] {
        assert!(text.contains(part), "{part}");
    }
    eddy("generate -o grid.png --size 32x32 --steps 1 --count 5 --grid --json")
        .within(&place)
        .succeeds()
        .json();
    let grid = place.image("grid.png");
    assert_eq!((grid.width, grid.height), (96, 64));
}

#[test]
fn generates_from_an_initial_image() {
    let image = noisy(32, 32, 3, 8);
    let place = Place::with("a.png", &image);
    let distance = |strength: &str| {
        let command = format!(
            "generate -o out.png --size 32x32 --steps 10 --from a.png --strength {strength}"
        );
        eddy(&command).within(&place).succeeds();
        psnr(&place.image("out.png"), &image)
    };
    let (near, far) = (distance("0.2"), distance("1"));
    assert!(near > far + 3.0, "{near} {far}");
}

#[test]
fn saves_steps() {
    let place = Place::new();
    eddy("generate -o a.png --size 16x16 --steps 4 --sampler euler --save-steps steps")
        .within(&place)
        .succeeds();
    assert_eq!(place.names("steps"), ["step-1.png", "step-2.png", "step-3.png", "step-4.png"]);
    // The prediction of the last step is the result.
    assert_eq!(place.image("steps/step-4.png").samples, place.image("a.png").samples);
}

#[test]
fn inpainting_keeps_known_pixels_and_fills_the_mask() {
    let photo = read(&data("chelsea.png"));
    for (channels, bits) in [(3, 8), (4, 16), (3, 16)] {
        let image = noisy(96, 64, channels, bits);
        let place = Place::with("a.png", &image).and("mask.png", &mask(96, 64, [40, 20, 9, 7]));
        eddy("inpaint a.png --mask mask.png -o b.png --steps 3 --resample 2")
            .within(&place)
            .succeeds()
            .says("63 pixels filled");
        let result = place.image("b.png");
        let mut changed = 0;
        let (before, after) = (each(&image), each(&result));
        for (i, (before, after)) in before.chunks(channels).zip(after.chunks(channels)).enumerate()
        {
            let is_missing = (40..49).contains(&(i % 96)) && (20..27).contains(&(i / 96));
            assert!(is_missing || before == after, "{channels} {bits}: {i}");
            assert_eq!(before.get(3), after.get(3), "alpha is not a color");
            changed += usize::from(before[..3] != after[..3]);
        }
        assert!(changed > 50, "{changed}");
    }
    // The result is better than filling with the mean of the surroundings.
    let place = Place::with("a.png", &photo)
        .and("mask.png", &mask(photo.width, photo.height, [130, 180, 12, 12]));
    eddy("inpaint a.png --mask mask.png -o b.png --steps 10").within(&place).succeeds();
    let error = |image: &Image| {
        let hole = (0..photo.width * photo.height).filter(|i| {
            (130..142).contains(&(i % photo.width)) && (180..192).contains(&(i / photo.width))
        });
        let of = |i: usize| samples(image)[3 * i..][..3].iter().zip(&samples(&photo)[3 * i..][..3]);
        hole.flat_map(of).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum::<f64>() / 432.0
    };
    let around = (0..3)
        .map(|c| {
            let ring = (0..photo.width * photo.height).filter(|i| {
                let (x, y) = (i % photo.width, i / photo.width);
                (126..146).contains(&x)
                    && (176..196).contains(&y)
                    && !((130..142).contains(&x) && (180..192).contains(&y))
            });
            let values: Vec<f64> = ring.map(|i| f64::from(samples(&photo)[3 * i + c])).collect();
            (values.iter().sum::<f64>() / values.len() as f64).round() as u8
        })
        .collect::<Vec<_>>();
    let mut flat = photo.clone();
    if let Samples::U8(samples) = &mut flat.samples {
        samples.iter_mut().enumerate().for_each(|(i, sample)| *sample = around[i % 3]);
    }
    let (drawn, flat) = (error(&place.image("b.png")), error(&flat));
    assert!(drawn < flat, "{drawn} {flat}");
}

#[test]
fn restorations_are_consistent_with_the_measurement() {
    let photo = read(&data("chelsea.png"));
    let part = |image: &Image, side: usize| {
        let rows = (100..100 + side)
            .flat_map(|y| samples(image)[3 * (y * image.width + 120)..][..3 * side].to_vec());
        Image {
            width: side,
            height: side,
            channels: 3,
            samples: Samples::U8(rows.collect()),
            metadata: image.metadata.clone(),
        }
    };
    let sharp = part(&photo, 48);
    let mean = |image: &Image, scale: usize| {
        let (width, height) = (image.width / scale, image.height / scale);
        let of = |i: usize| {
            let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
            let sum: u32 = (0..scale * scale)
                .map(|j| {
                    u32::from(
                        samples(image)[3
                            * ((scale * y + j / scale) * image.width + scale * x + j % scale)
                            + c],
                    )
                })
                .sum();
            (f64::from(sum) / (scale * scale) as f64).round() as u8
        };
        let samples = Samples::U8((0..3 * width * height).map(of).collect());
        Image { width, height, channels: 3, samples, metadata: image.metadata.clone() }
    };
    let place = Place::with("small.png", &mean(&sharp, 3)).and("sharp.png", &sharp);
    eddy("upscale small.png --prior -s 3 --steps 8 -o large.png")
        .within(&place)
        .succeeds()
        .says("48x48 by prior");
    let large = place.image("large.png");
    // Averaging the result gives the input.
    assert!(psnr(&mean(&large, 3), &place.image("small.png")) > 40.0);
    // A kernel of one point changes nothing, and the noise has the given sigma.
    eddy("deblur sharp.png --kernel gaussian:0.2 --sigma 0.5 --steps 8 -o same.png")
        .within(&place)
        .succeeds();
    assert!(psnr(&place.image("same.png"), &sharp) > 35.0);
    let cases = [
        ("deblur sharp.png --kernel gaussian:x -o b.png", 2, "gaussian:1.6"),
        ("deblur sharp.png --kernel gaussian:0 -o b.png", 2, "a blur of 0 pixels is out of range"),
        ("deblur sharp.png --kernel sharp.png -o b.png", 2, "has no middle"),
        ("deblur sharp.png --kernel gone.png -o b.png", 3, "no such file"),
        ("upscale small.png --prior -s 9 -o b.png", 2, "2 to 8 times"),
    ];
    for (command, code, words) in cases {
        eddy(command).within(&place).fails(code).says(words);
    }
    place.holds_only(&["large.png", "same.png", "sharp.png", "small.png"]);
}

/// Samples of any depth.
fn each(image: &Image) -> Vec<u16> {
    match &image.samples {
        Samples::U8(samples) => samples.iter().map(|sample| u16::from(*sample)).collect(),
        Samples::U16(samples) => samples.clone(),
    }
}

/// The generated digits correlate most with the mean image of their own class.
#[test]
fn generates_digits_of_the_requested_class() {
    let place = Place::new();
    let drawn = |options: &str| {
        eddy(&format!("generate -m digits-ddpm -o d/ --count 8 --steps 10 {options}"))
            .within(&place)
            .succeeds();
        let images: Vec<Image> =
            place.names("d").iter().map(|name| place.image(&format!("d/{name}"))).collect();
        assert!(
            images.iter().all(|image| (image.width, image.height, image.channels) == (8, 8, 1))
        );
        let sum = |i: usize| {
            images.iter().map(|image| u32::from(samples(image)[i])).sum::<u32>() as f64 / 8.0
        };
        (0..64).map(sum).collect::<Vec<f64>>()
    };
    // A zero is empty in its middle, a one is not.
    let middle = |mean: &[f64]| [27, 28, 35, 36].iter().map(|i| mean[*i]).sum::<f64>() / 4.0;
    for guidance in [
        "",
        "--guidance-scale 1",
        "--classifier digits-classifier --guidance-scale 3",
        "--negative-class 8",
    ] {
        let (zero, one) =
            (drawn(&format!("--class 0 {guidance}")), drawn(&format!("--class 1 {guidance}")));
        assert!(
            middle(&zero) < 80.0 && middle(&one) > 140.0,
            "{guidance}: {} {}",
            middle(&zero),
            middle(&one)
        );
    }
    eddy("generate -m digits-ncsn -o n.png --sampler langevin --steps 20")
        .within(&place)
        .succeeds();
    eddy("generate -m digits-ddpm -o n.png --class 10")
        .within(&place)
        .fails(2)
        .says("the classes 0 to 9; there is no class 10");
    eddy("generate -m digits-ddpm -o n.png --size 16x16").within(&place).fails(2).says("8x8 only");
    let wrong = "generate -o n.png --size 8x8 --class 1 --classifier digits-classifier";
    eddy(wrong).within(&place).fails(4).says("expected a classifier of 3 channels");
}

#[test]
fn rejects_impossible_requests() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8))
        .and("mask.png", &mask(20, 20, [2, 2, 3, 3]))
        .and("empty.png", &mask(20, 20, [0, 0, 0, 0]))
        .and("other.png", &mask(21, 20, [2, 2, 3, 3]));
    let cases = [
        ("inpaint a.png -o b.png", 2, "--mask"),
        ("inpaint a.png --mask empty.png -o b.png", 2, "nothing is missing"),
        (
            "inpaint a.png --mask other.png -o b.png",
            2,
            "the mask has 21x20 pixels and the image 20x20",
        ),
        ("inpaint a.png --mask gone.png -o b.png", 3, "no such file"),
        ("inpaint a.png --mask mask.png -o b.png -m denoise-fast", 4, "expected generate"),
        (
            "inpaint a.png --mask mask.png -o b.png --sampler heun --resample 2",
            2,
            "cannot resample",
        ),
        ("generate -o b.png --count 2", 2, "name a folder"),
        ("generate -o b.txt", 2, "does not have the extension of an image"),
        ("generate -o b.png --class 3", 2, "is not conditioned on a class"),
        ("generate -o b.png --steps 4 --from a.png --size 16x16", 2, "differ in size"),
        ("generate -o b.png --size 16x16 --from a.png --strength 0", 2, "strength is 0"),
        ("generate -o b.png --sampler magic", 2, "unknown sampler 'magic'"),
        ("generate -o b.png --classifier prior", 2, "--class"),
        ("generate -o b.png --guidance-interval 5,1 --class 1", 2, "two sigmas"),
    ];
    for (command, code, words) in cases {
        eddy(command).within(&place).fails(code).says(words);
    }
    place.holds_only(&["a.png", "empty.png", "mask.png", "other.png"]);
}

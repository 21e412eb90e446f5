//! Orientation and transparency: images are processed upright, without their transparent pixels.

use eddy::media::{Image, Metadata, Samples};

use crate::common::eddy;
use crate::common::images::{distance, noisy};
use crate::common::place::Place;

/// An 8-bit image whose pixels are a function of column and row.
fn drawn<const N: usize>(
    width: usize,
    height: usize,
    pixel: impl Fn(usize, usize) -> [u8; N],
) -> Image {
    let samples =
        Samples::U8((0..width * height).flat_map(|i| pixel(i % width, i / width)).collect());
    Image { width, height, channels: N, samples, metadata: Metadata::default() }
}

fn bytes(image: &Image) -> &[u8] {
    match &image.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("8 bits were expected"),
    }
}

/// The same image as a phone stores it that was held upright: on its side, with orientation 6.
fn on_its_side(shown: &Image) -> Image {
    let (width, height, channels) = (shown.height, shown.width, shown.channels);
    let from = |i: usize| (i % width) * shown.width + height - 1 - i / width;
    let samples = (0..width * height)
        .flat_map(|i| &bytes(shown)[from(i) * channels..][..channels])
        .copied()
        .collect();
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let metadata = Metadata { exif: Some(exif), ..Metadata::default() };
    Image { width, height, channels, samples: Samples::U8(samples), metadata }
}

/// White within a rectangle, and black.
fn mask(width: usize, height: usize) -> Image {
    drawn(width, height, |x, y| {
        [if (4..24).contains(&x) && (4..14).contains(&y) { 255 } else { 0 }]
    })
}

#[test]
fn a_mask_applies_to_the_upright_image() {
    let (photo, mask) = (noisy(40, 64, 3, 8), mask(40, 64));
    let place = Place::with("up.png", &photo)
        .and("side.png", &on_its_side(&photo))
        .and("mask.png", &mask)
        .and("mask-side.png", &on_its_side(&mask));
    for photo in ["up", "side"] {
        for mask in ["mask", "mask-side"] {
            eddy(&format!("inpaint {photo}.png --mask {mask}.png -o {photo}-{mask}.png --steps 1"))
                .within(&place)
                .succeeds()
                .says("200 pixels filled");
        }
    }
    let expected = place.image("up-mask.png");
    let changed = |i: &usize| bytes(&expected)[3 * i..][..3] != bytes(&photo)[3 * i..][..3];
    assert!((0..40 * 64).filter(changed).all(|i| bytes(&mask)[i] == 255));
    assert!((0..40 * 64).filter(changed).count() > 150);
    for name in ["up-mask-side", "side-mask", "side-mask-side"] {
        assert_eq!(place.image(&format!("{name}.png")).upright(), expected, "{name}");
    }
}

#[test]
fn a_kernel_and_an_initial_image_apply_to_the_upright_image() {
    let photo = noisy(32, 48, 3, 8);
    let kernel = drawn(5, 5, |x, y| [if x == 2 && y > 1 { 255 } else { 0 }]);
    let place = Place::with("up.png", &photo)
        .and("side.png", &on_its_side(&photo))
        .and("kernel.png", &kernel)
        .and("kernel-side.png", &on_its_side(&kernel));
    let result = |command: &str| {
        eddy(&format!("{command} -o out.png")).within(&place).succeeds();
        place.image("out.png").upright()
    };
    let deblur = "--sigma 1 --samples 1 --steps 2";
    let expected = result(&format!("deblur up.png --kernel kernel.png {deblur}"));
    assert_eq!(result(&format!("deblur side.png --kernel kernel.png {deblur}")), expected);
    assert_eq!(result(&format!("deblur up.png --kernel kernel-side.png {deblur}")), expected);
    let generate = "--size 32x48 --strength 0.3 --steps 3";
    let expected = result(&format!("generate --from up.png {generate}"));
    assert_eq!(result(&format!("generate --from side.png {generate}")).samples, expected.samples);
}

#[test]
fn streams_upright_images() {
    let photo = noisy(32, 48, 3, 8);
    let place = Place::with("1.png", &photo).and("2.png", &on_its_side(&photo));
    eddy("denoise 1.png 1.png -o up.y4m --sigma 9").within(&place).succeeds();
    eddy("denoise 1.png 2.png -o mixed.y4m --sigma 9")
        .within(&place)
        .succeeds()
        .says("2 frames of 32x48");
    eddy("denoise 2.png -o side.y4m --sigma 9").within(&place).succeeds().says("32x48");
    assert!(place.bytes("up.y4m") == place.bytes("mixed.y4m"));
    assert!(place.bytes("up.y4m").starts_with(&place.bytes("side.y4m")));
}

#[test]
fn ignores_transparent_parts_of_a_mask() {
    let inside = |x: usize, y: usize| (4..34).contains(&x) && (4..14).contains(&y);
    let layer = |color: [u8; 3], hidden: u8| {
        drawn(48, 40, move |x, y| match inside(x, y) {
            true => [color[0], color[1], color[2], 255],
            false => [hidden, hidden, hidden, 0],
        })
    };
    let place = Place::with("a.png", &noisy(48, 40, 3, 8))
        .and("white.png", &layer([255; 3], 255))
        .and("black.png", &layer([0; 3], 255))
        .and("red.png", &layer([255, 0, 0], 0))
        // White marks pixels to fill, also on opaque black.
        .and(
            "both.png",
            &drawn(48, 40, |x, y| match (inside(x, y), x) {
                (true, _) => [255, 255],
                (_, 0..40) => [0, 255],
                _ => [255, 0],
            }),
        );
    for name in ["white", "black", "red", "both"] {
        eddy(&format!("inpaint a.png --mask {name}.png -o out.png --steps 1"))
            .within(&place)
            .succeeds()
            .says("300 pixels filled within");
    }
}

#[test]
fn fills_the_smooth_edge_of_a_mask() {
    // White, with a gray border of one pixel, and a distant dark spot that is not part of the mask.
    let soft = drawn(48, 40, |x, y| match (x, y) {
        (11..=20, 11..=20) => [255],
        (10..=21, 10..=21) => [90],
        (40, 30) => [90],
        (_, 0) => [20],
        _ => [0],
    });
    let place = Place::with("a.png", &noisy(48, 40, 3, 8)).and("soft.png", &soft);
    let drawn = |options: &str, words: &str| {
        let command = format!("inpaint a.png --mask soft.png -o out.png --steps 1 {options}");
        eddy(&command).within(&place).succeeds().says(words);
    };
    drawn("", "144 pixels filled");
    // A rim of two pixels along each side, and a pixel at each corner.
    drawn("--grow 2", "244 pixels filled");
}

#[test]
fn hidden_colors_do_not_affect_the_noise_level() {
    let noise = noisy(96, 80, 3, 8);
    let cutout = drawn(96, 80, |x, y| {
        let pixel = &bytes(&noise)[3 * (96 * y + x)..][..3];
        if x < 40 { [pixel[0], pixel[1], pixel[2], 255] } else { [0, 200, 0, 0] }
    });
    let place = Place::with("a.png", &cutout).and(
        "opaque.png",
        &drawn(40, 80, |x, y| {
            let pixel = &bytes(&noise)[3 * (96 * y + x)..][..3];
            [pixel[0], pixel[1], pixel[2]]
        }),
    );
    let sigma = eddy("denoise a.png -o out.png --json").within(&place).succeeds().json()["sigma"]
        .as_f64()
        .unwrap();
    assert!((20.0..30.0).contains(&sigma), "{sigma}");
    eddy("denoise opaque.png -o alone.png").within(&place).succeeds();
    let (before, after, alone) = (&cutout, place.image("out.png"), place.image("alone.png"));
    let visible = drawn(40, 80, |x, y| {
        let pixel = &bytes(&after)[4 * (96 * y + x)..][..3];
        [pixel[0], pixel[1], pixel[2]]
    });
    // The result is that of the visible part alone, and the rest is unchanged.
    assert!(distance(&visible, &alone) < 4.0, "{}", distance(&visible, &alone));
    for (before, after) in
        bytes(before).as_chunks::<4>().0.iter().zip(bytes(&after).as_chunks::<4>().0)
    {
        assert!(before[3] == 255 || before == after);
    }
}

#[test]
fn enlarges_a_cutout_without_fringes() {
    let disc = drawn(40, 40, |x, y| {
        let distance = (x as f32 - 19.5).hypot(y as f32 - 19.5);
        match (13.0 - distance).clamp(0.0, 1.0) {
            0.0 => [0, 0, 0, 0],
            alpha => [250, 240, 60, (255.0 * alpha) as u8],
        }
    });
    let place = Place::with("disc.png", &disc);
    for command in
        ["upscale disc.png -s 2", "upscale disc.png -s 4", "upscale disc.png -s 2 --steps 2"]
    {
        eddy(command).args("-o out.png").within(&place).succeeds();
        let out = place.image("out.png");
        let seen = bytes(&out).as_chunks::<4>().0.iter().filter(|pixel| pixel[3] > 0);
        let worst = seen
            .map(|[r, g, b, _]| r.abs_diff(250).max(g.abs_diff(240)).max(b.abs_diff(60)))
            .max()
            .unwrap();
        assert!(worst <= 8, "{command}: {worst}");
    }
}

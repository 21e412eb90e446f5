//! Successful runs of `eddy denoise`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::common::eddy;
use crate::common::images::{alpha, distance, noisy, psnr, read};
use crate::common::place::{Place, data};

#[test]
fn keeps_format_depth_and_alpha() {
    let kinds = [
        ("gray8.png", 1, 8),
        ("gray_alpha8.png", 2, 8),
        ("rgb8.png", 3, 8),
        ("rgba8.png", 4, 8),
        ("gray16.png", 1, 16),
        ("gray_alpha16.png", 2, 16),
        ("rgb16.png", 3, 16),
        ("rgba16.png", 4, 16),
        ("gray8.tiff", 1, 8),
        ("gray_alpha8.tiff", 2, 8),
        ("rgb8.tif", 3, 8),
        ("rgba8.tiff", 4, 8),
        ("gray16.tiff", 1, 16),
        ("rgb16.tiff", 3, 16),
        ("rgba16.tiff", 4, 16),
        ("gray8.jpg", 1, 8),
        ("rgb8.jpeg", 3, 8),
        ("rgb8.webp", 3, 8),
        ("rgba8.webp", 4, 8),
        ("rgb8.bmp", 3, 8),
        ("rgba8.bmp", 4, 8),
    ];
    let place = Place::new();
    for (name, channels, bits) in kinds {
        let (_, extension) = name.rsplit_once('.').unwrap();
        let image = noisy(61, 45, channels, bits);
        place.file(&format!("in/{name}"), crate::common::images::encoded(&image, extension));
    }
    eddy("denoise in -o out --sigma 25")
        .within(&place)
        .succeeds()
        .prints_nothing()
        .says("sigma 25.0");
    let mut names: Vec<&str> = kinds.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(place.names("out"), names);
    for (name, channels, bits) in kinds {
        let (before, after) =
            (place.image(&format!("in/{name}")), place.image(&format!("out/{name}")));
        assert_eq!((after.width, after.height, after.channels), (61, 45, channels), "{name}");
        assert_eq!(after.samples.bits(), bits, "{name}");
        assert_eq!(alpha(&after), alpha(&before), "{name}");
        // The noise of about 25 gray levels is removed.
        let removed = distance(&before, &after);
        assert!((20.0..28.0).contains(&removed), "{name}: {removed}");
    }
}

#[test]
fn denoises_a_photograph() {
    let place = Place::new();
    let noisy = data("noisy-chelsea.png");
    let record = eddy("denoise -o clean.png --json")
        .arg(&noisy)
        .within(&place)
        .succeeds()
        .says_nothing()
        .json();
    // Decoded by an independent decoder.
    let opened = image::open(place.path("clean.png")).unwrap();
    assert_eq!((opened.width(), opened.height()), (451, 300));
    let (clean, noisy) = (read(&data("chelsea.png")), read(&noisy));
    let (before, after) = (psnr(&clean, &noisy), psnr(&clean, &place.image("clean.png")));
    assert!((20.0..20.6).contains(&before), "{before}");
    assert!(after > 29.0, "{after}");
    let sigma = record["sigma"].as_f64().unwrap();
    assert!((22.5..27.5).contains(&sigma), "{sigma}");
    assert_eq!((record["width"].as_u64(), record["height"].as_u64()), (Some(451), Some(300)));
    assert_eq!(
        (record["steps"].as_u64(), record["sigma_limited"].as_bool()),
        (Some(1), Some(false))
    );
}

#[test]
fn sigma_zero_leaves_the_image_unchanged() {
    let image = noisy(40, 30, 4, 16);
    let place = Place::with("a.png", &image);
    eddy("denoise a.png -o b.png --sigma 0").within(&place).succeeds().says("nothing to do");
    assert_eq!(place.image("b.png").samples, image.samples);
}

#[test]
fn writes_several_images_and_folders_into_a_folder() {
    let image = noisy(24, 24, 3, 8);
    let place = Place::with("one.png", &image);
    for name in ["more/2.bmp", "more/10.bmp", "more/.hidden.bmp"] {
        place.file(name, crate::common::images::encoded(&image, "bmp"));
    }
    place.file("more/notes.txt", "no image");
    let outcome = eddy("denoise one.png more -o new/folder --json").within(&place).succeeds();
    assert_eq!(place.names("new/folder"), ["10.bmp", "2.bmp", "one.png"]);
    let records: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outputs: Vec<&str> =
        records.iter().map(|record| record["output"].as_str().unwrap()).collect();
    assert_eq!(outputs, ["new/folder/one.png", "new/folder/2.bmp", "new/folder/10.bmp"]);
}

#[test]
fn equal_arguments_give_equal_bytes() {
    let place = Place::with("a.png", &noisy(70, 50, 3, 8));
    for output in ["b.png", "c.png"] {
        eddy("denoise a.png --steps 3 --eta 1 --seed 9 -o").arg(output).within(&place).succeeds();
    }
    assert!(place.bytes("b.png") == place.bytes("c.png"));
}

#[test]
fn replaces_an_existing_result() {
    let place = Place::with("a.png", &noisy(20, 20, 1, 8));
    place.file("b.png", "old");
    eddy("denoise a.png -o b.png").within(&place).succeeds();
    assert_eq!(place.image("b.png").width, 20);
    place.holds_only(&["a.png", "b.png"]);
}

#[test]
fn denoises_tiny_and_narrow_images() {
    for (width, height) in [(1, 1), (1, 9), (9, 1), (2, 3), (300, 2)] {
        let place = Place::with("a.png", &noisy(width, height, 3, 8));
        for options in ["", "--sigma 25", "--sigma 25 --steps 2"] {
            eddy(&format!("denoise a.png -o b.png {options}")).within(&place).succeeds();
            let after = place.image("b.png");
            assert_eq!((after.width, after.height), (width, height));
        }
    }
}

#[test]
fn reports_what_a_format_cannot_store() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 16));
    let outcome =
        eddy("denoise a.png -o b.jpg").within(&place).succeeds().says("16 were reduced to 8");
    assert!(outcome.stderr.contains("b.jpg"), "{outcome}");
    let record = eddy("denoise a.png -o b.jpg --json").within(&place).succeeds().json();
    assert_eq!(record["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn accepts_names_that_are_not_utf8() {
    let place = Place::with("a.png", &noisy(20, 20, 3, 8));
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe.png");
    fs::rename(place.path("a.png"), place.path("").join(name)).unwrap();
    for options in ["", "--json"] {
        eddy(&format!("denoise -o out/ {options}")).arg(name).within(&place).succeeds();
        assert!(place.path("out").join(Path::new(name)).is_file());
    }
}

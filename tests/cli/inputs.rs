//! Invalid input images: exit code 3, a message that says what was found, and nothing left behind.

use crate::common::eddy;
use crate::common::images::{encoded, noisy};
use crate::common::place::Place;

/// Denoising the file `name` with these bytes fails with this message and leaves nothing.
fn refused(name: &str, bytes: &[u8], words: &str) {
    let place = Place::new();
    place.file(name, bytes);
    eddy("denoise -o out.png")
        .arg(name)
        .within(&place)
        .fails(3)
        .says(name)
        .says(words)
        .prints_nothing();
    place.holds_only(&[name]);
}

#[test]
fn rejects_a_missing_file() {
    let place = Place::new();
    eddy("denoise none.png -o out.png")
        .within(&place)
        .fails(3)
        .says("none.png")
        .says("there is no such file");
    eddy("denoise none/ -o out/").within(&place).fails(3).says("there is no such file or folder");
    place.holds_only(&[]);
}

#[test]
fn rejects_a_folder_without_images() {
    let place = Place::new();
    place.file("in/notes.txt", "none here");
    place.file("in/deeper/a.png", encoded(&noisy(8, 8, 3, 8), "png"));
    eddy("denoise in -o out")
        .within(&place)
        .fails(3)
        .says("the folder holds no image; looked for png");
    place.holds_only(&["in"]);
}

#[test]
fn rejects_truncated_files() {
    for extension in ["png", "jpg", "webp", "tiff", "bmp"] {
        let whole = encoded(&noisy(40, 30, 3, 8), extension);
        for part in [whole.len() / 4, whole.len() / 2, whole.len() - 3] {
            refused(&format!("a.{extension}"), &whole[..part], "the file is cut off");
        }
    }
}

#[test]
fn rejects_damaged_files() {
    let mut png = encoded(&noisy(40, 30, 3, 8), "png");
    let middle = png.len() / 2;
    png[middle] ^= 0x55;
    refused("a.png", &png, "damaged");
    let mut jpeg = encoded(&noisy(40, 30, 3, 8), "jpg");
    jpeg[20..200].fill(0);
    refused("a.jpg", &jpeg, "a.jpg");
}

#[test]
fn rejects_files_that_are_not_images() {
    refused("a.png", b"Dear diary, today I was renamed to .png.\n", "its content is not an image");
    refused("a.png", b"GIF89a\x01\0\x01\0\0\0\0;", "by its content it is a GIF");
    refused("a.png", b"", "the file is empty");
    refused("a.png", b"\x89PNG\r\n\x1a\n", "cut off");
    refused("a.bmp", b"BM", "cut off");
}

#[test]
fn rejects_zero_width_and_height() {
    for (width, height) in [(0, 5), (5, 0)] {
        refused("a.png", &png_of_size(width, height), "a.png");
        refused("a.bmp", &bmp_of_size(width, height), "a.bmp");
    }
    // This error is not blamed on the file's author.
    let place = Place::new();
    place.file("a.bmp", bmp_of_size(1, 1));
    place.file("a.png", png_of_size(1, 1));
    eddy("denoise a.bmp a.png -o out").within(&place).succeeds();
}

#[test]
fn rejects_images_that_exceed_memory() {
    refused(
        "a.png",
        &png_of_size(60_000, 60_000),
        "at most 65535 pixels a side and 1024 MiB are read",
    );
    refused("a.png", &png_of_size(2_000_000, 1), "at most 65535 pixels a side");
    refused(
        "a.tiff",
        &tiff_of_size(u32::MAX, u32::MAX),
        "at most 65535 pixels a side and 1024 MiB are read",
    );
}

#[test]
fn rejects_devices_and_files_used_as_folders() {
    let place = Place::new();
    eddy("denoise /dev/null -o out.png").within(&place).fails(3).says("the file is empty");
    place.file("a.png", "x");
    eddy("denoise a.png/b.png -o out.png").within(&place).fails(3).says("a.png/b.png");
    place.holds_only(&["a.png"]);
}

#[test]
fn processes_the_other_images_after_a_failure() {
    let image = noisy(24, 20, 3, 8);
    let place = Place::with("1.png", &image).and("3.png", &image);
    place.file("2.png", "no image");
    place.file("4.png", &encoded(&image, "png")[..100]);
    eddy("denoise 1.png 2.png 3.png 4.png -o out")
        .within(&place)
        .fails(3)
        .says("cannot read 2.png: its content is not an image")
        .says("cannot read 4.png: the file is cut off")
        .says("2 of 4 images failed; the others are done");
    assert_eq!(place.names("out"), ["1.png", "3.png"]);
    for name in ["out/1.png", "out/3.png"] {
        assert_eq!(place.image(name).width, 24);
    }
}

#[test]
fn reports_a_missing_image_before_processing() {
    let place = Place::with("1.png", &noisy(24, 20, 3, 8));
    eddy("denoise 1.png none.png -o out").within(&place).fails(3).says("none.png");
    place.holds_only(&["1.png"]);
}

/// A TIFF with one byte of data that claims to be RGB of this size.
fn tiff_of_size(width: u32, height: u32) -> Vec<u8> {
    let entries = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 2),
        (273, 8),
        (277, 3),
        (278, height),
        (279, 1),
    ];
    let mut tiff = [&b"II*\0"[..], &8_u32.to_le_bytes(), &[entries.len() as u8, 0]].concat();
    for (tag, value) in entries {
        // One LONG.
        tiff.extend((tag as u16).to_le_bytes());
        tiff.extend([4, 0, 1, 0, 0, 0]);
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    tiff
}

/// A PNG with one gray pixel that claims this size.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    // One stored block of two bytes, filter 0 and a gray sample, and its checksum.
    let data = [0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 128, 0, 0x82, 0, 0x81].to_vec();
    for (kind, body) in [(b"IHDR", &header), (b"IDAT", &data), (b"IEND", &Vec::new())] {
        png.extend((body.len() as u32).to_be_bytes());
        let chunk = [&kind[..], body].concat();
        png.extend(&chunk);
        png.extend(crc32(&chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A BMP with room for one pixel that claims this size.
fn bmp_of_size(width: u32, height: u32) -> Vec<u8> {
    let fields: [u32; 9] = [58, 0, 54, 40, width, height, 1 | (24 << 16), 0, 4];
    let numbers: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    [b"BM", &numbers[..], &[0; 16], &[1, 2, 3, 0]].concat()
}

use super::{Format, Limits, decode, decoded, encoded, refusal, smooth};
use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, Instant};

/// A TIFF with its directory before its pixels, so that truncation keeps the directory.
fn tiff_with_directory_first(width: u16, height: u16) -> Vec<u8> {
    let (entries, pixels) = (8_u16, u32::from(width) * u32::from(height));
    let offset = 8 + 2 + u32::from(entries) * 12 + 4;
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend(entries.to_le_bytes());
    let short = |tag: u16, value: u16| [tag, 3, 1, 0, value, 0].map(u16::to_le_bytes).concat();
    let long = |tag: u16, value: u32| {
        [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0], &value.to_le_bytes()].concat()
    };
    file.extend(short(256, width));
    file.extend(short(257, height));
    file.extend(short(258, 8));
    file.extend(short(259, 1));
    file.extend(short(262, 1));
    file.extend(long(273, offset));
    file.extend(short(278, height));
    file.extend(long(279, pixels));
    file.extend([0; 4]);
    file.extend((0..pixels).map(|at| (at * 7) as u8 | 1));
    file
}

/// Directories of copies that lead to one another without end, each of thousands of tags.
#[test]
fn reads_a_tiff_whose_directories_form_a_loop() {
    const TAGS: u16 = 50_000;
    let mut file = tiff_with_directory_first(41, 33);
    let copy = file.len() as u32;
    file[106..110].copy_from_slice(&copy.to_le_bytes());
    file.extend(TAGS.to_le_bytes());
    for i in 0..TAGS {
        // NewSubfileType says that it is a reduced copy; the others are of no use.
        let tag = if i == 0 { 254 } else { 10_000 + i };
        file.extend([tag, 4, 1, 0, 1, 0].map(u16::to_le_bytes).concat());
    }
    file.extend(copy.to_le_bytes());
    let begun = Instant::now();
    assert_eq!(decoded(&file).unwrap().width, 41);
    // Followed for ever, or for thousands of times, they take minutes.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Decoders take memory by these lengths before they read.
#[test]
fn rejects_lengths_beyond_the_file() {
    let mut webp = encoded(&smooth(41, 33, 3, 8), Format::WebP).0;
    webp.extend(b"EXIF\x00\x00\x59\x59");
    let length = webp.len() as u32 - 8;
    webp[4..8].copy_from_slice(&length.to_le_bytes());
    assert!(decoded(&webp).is_err());
    let mut tiff = tiff_with_directory_first(41, 33);
    tiff[14..18].copy_from_slice(&0x0041_bd00_u32.to_le_bytes());
    assert!(refusal(&tiff).contains("claims 4308224 values"));
}

fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |cut| *cut < 300 || cut % 7 == 0 || len - cut < 300)
}

#[test]
fn rejects_truncated_files() {
    let mut files = vec![tiff_with_directory_first(41, 33)];
    for format in Format::ALL {
        for (channels, bits) in [(1, 8), (3, 8), (3, 16), (4, 8)] {
            if format != Format::Jpeg || channels != 4 {
                files.push(encoded(&smooth(41, 33, channels, bits), format).0);
            }
        }
    }
    for bytes in files {
        let whole = decoded(&bytes).unwrap();
        let format = Format::from_content(&bytes).unwrap();
        for cut in cuts(bytes.len()) {
            match decoded(&bytes[..cut]) {
                Ok(image) => assert_eq!(image, whole, "{format} cut to {cut} of {}", bytes.len()),
                Err(crate::Error::Input { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let message = refusal(&bytes[..bytes.len() * 3 / 4]);
        assert!(message.contains("cut off") || format == Format::Tiff, "{message}");
    }
}

#[test]
fn survives_flipped_bytes() {
    for format in Format::ALL {
        let (bytes, _) = encoded(&smooth(23, 17, 3, 8), format);
        for at in 0..bytes.len().min(1500) {
            for flip in [0x01, 0x80, 0xFF] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let limits = Limits { max_side: 4096, max_bytes: 1 << 24, ..Limits::default() };
                let _ = decode(Path::new("damaged"), Cursor::new(damaged), &limits);
            }
        }
    }
}

#[test]
fn rejects_too_large_images_before_allocating() {
    // The header of a PNG that claims 60000x60000 pixels of 16-bit RGBA.
    let (mut png, _) = encoded(&smooth(8, 8, 4, 16), Format::Png);
    png[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let mut crc = flate_crc(&png[12..29]);
    png.splice(29..33, std::mem::take(&mut crc));
    let message = refusal(&png);
    assert!(message.contains("60000 x 60000") && message.contains("at most 65535"), "{message}");

    let (mut bmp, _) = encoded(&smooth(8, 8, 3, 8), Format::Bmp);
    bmp[18..22].copy_from_slice(&65_000_u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&65_000_u32.to_le_bytes());
    assert!(refusal(&bmp).contains("65000 x 65000"));

    for format in Format::ALL {
        let (bytes, _) = encoded(&smooth(50, 20, 3, 8), format);
        let refuses = |max_side, max_bytes| {
            decode(
                Path::new("large"),
                Cursor::new(&bytes),
                &Limits { max_side, max_bytes, ..Limits::default() },
            )
            .is_err_and(|error| error.to_string().contains("50 x 20"))
        };
        assert!(refuses(49, 1 << 30), "{format}");
        assert!(refuses(65_535, 2_999), "{format}");
        let bounds = Limits { max_side: 50, max_bytes: 3_000, ..Limits::default() };
        let found = decode(Path::new("exact"), Cursor::new(&bytes), &bounds);
        assert!(found.is_ok(), "{format} {found:?}");
    }
}

/// The checksum of a PNG chunk.
fn flate_crc(bytes: &[u8]) -> Vec<u8> {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    });
    (!crc).to_be_bytes().to_vec()
}

#[test]
fn reports_what_a_file_is_instead_of_an_image() {
    assert!(refusal(b"").contains("the file is empty"));
    assert!(refusal(b"hello, this is text").contains("its content is not an image"));
    assert!(refusal(b"GIF89a......").contains("a GIF"));
    assert!(refusal(b"\0\0\0\x20ftypheic....").contains("a HEIF"));
    let missing =
        super::super::read(Path::new("/nowhere/at/all.png"), &Limits::default()).unwrap_err();
    assert!(missing.to_string().contains("there is no such file"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let found = super::super::read(folder.path(), &Limits::default()).unwrap_err();
    assert!(found.to_string().contains("folder"), "{found}");
}

#[test]
fn limits_images_by_process_memory() {
    let image = smooth(300, 200, 3, 8);
    for format in Format::ALL {
        let bytes = encoded(&image, format).0;
        let within =
            |max_memory| decode(Path::new("a"), Cursor::new(&bytes), &Limits::within(max_memory));
        let held = crate::machine::resident_memory();
        assert!(within(held + (64 << 20)).is_ok(), "{format}");
        let refused = within(1 << 20).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("raise {}", crate::setting::MAX_MEMORY)),
            "{format}: {refused}"
        );
    }
}

#[test]
fn drops_a_profile_that_decompresses_beyond_the_limit() {
    let mut image = smooth(30, 20, 3, 8);
    image.metadata.icc = Some(vec![0; 40 << 20]);
    let read = decoded(&encoded(&image, Format::Png).0).unwrap();
    assert!(read.metadata.icc.is_none() && read.metadata.is_partial);
    image.metadata.icc = Some(vec![0; 3 << 20]);
    let read = decoded(&encoded(&image, Format::Png).0).unwrap();
    assert!(read.metadata.icc == image.metadata.icc && !read.metadata.is_partial);
}

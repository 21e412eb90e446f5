use super::super::orientation;
use super::{Format, Image, Metadata, Samples, Warning, decoded, encoded, smooth};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

/// An EXIF block like a camera's: orientation, a similar tag of another type, and some text.
fn camera_exif(orientation: u8) -> Vec<u8> {
    let mut block = b"MM\0*\0\0\0\x08\0\x02".to_vec();
    block.extend(b"\x01\x0f\0\x02\0\0\0\x03ab\0\0");
    block.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    block.extend([0; 4]);
    block
}

fn profile(space: &[u8; 4]) -> Vec<u8> {
    let mut profile = vec![0x5A; 700];
    profile[..4].copy_from_slice(&700_u32.to_be_bytes());
    profile[16..20].copy_from_slice(space);
    profile
}

fn with_metadata(image: Image, exif: Option<Vec<u8>>, icc: Option<Vec<u8>>) -> Image {
    Image { metadata: Metadata { exif, icc, ..Metadata::default() }, ..image }
}

/// The image rotated by an independent implementation.
fn turned(image: &Image, orientation: u8) -> Image {
    let Samples::U8(samples) = &image.samples else { panic!("8 bits") };
    let pixels =
        RgbImage::from_raw(image.width as u32, image.height as u32, samples.clone()).unwrap();
    let mut image = DynamicImage::ImageRgb8(pixels);
    image.apply_orientation(Orientation::from_exif(orientation).unwrap());
    Image {
        width: image.width() as usize,
        height: image.height() as usize,
        channels: 3,
        samples: Samples::U8(image.into_rgb8().into_raw()),
        metadata: Metadata::default(),
    }
}

#[test]
fn keeps_exif_and_profile() {
    for format in [Format::Png, Format::Jpeg, Format::WebP] {
        for channels in [1, 3] {
            let icc =
                profile(if channels == 1 && format != Format::WebP { b"GRAY" } else { b"RGB " });
            let image = with_metadata(smooth(9, 6, channels, 8), Some(camera_exif(6)), Some(icc));
            let (bytes, warnings) = encoded(&image, format);
            assert_eq!(warnings, []);
            let back = decoded(&bytes).unwrap();
            assert_eq!(back.metadata, image.metadata, "{format}");
            assert_eq!((back.width, back.height), (9, 6), "kept and not turned as well");
        }
    }
}

#[test]
fn keeps_orientation_and_profile_in_tiff() {
    for orientation in 1..=8 {
        let image = with_metadata(
            smooth(9, 6, 4, 16),
            Some(camera_exif(orientation)),
            Some(profile(b"RGB ")),
        );
        let (bytes, warnings) = encoded(&image, Format::Tiff);
        assert_eq!(warnings, [Warning::ExifDropped(Format::Tiff)]);
        let back = decoded(&bytes).unwrap();
        assert_eq!(back.samples, image.samples);
        assert_eq!(back.metadata.icc, image.metadata.icc);
        assert_eq!(orientation::of(&back.metadata).to_exif(), orientation);
        // The tags of a TIFF become an EXIF block and back, without a warning.
        let (png, warnings) = encoded(&back, Format::Png);
        assert_eq!(warnings, []);
        assert_eq!(decoded(&png).unwrap(), back);
        assert_eq!(encoded(&back, Format::Tiff), (bytes, vec![]));
    }
}

#[test]
fn rotates_bmp() {
    for orientation in 1..=8 {
        let image = smooth(9, 6, 3, 8);
        let expected = turned(&image, orientation);
        let tagged = with_metadata(image, Some(camera_exif(orientation)), Some(profile(b"RGB ")));
        let (bytes, warnings) = encoded(&tagged, Format::Bmp);
        assert_eq!(warnings, [Warning::ExifDropped(Format::Bmp), Warning::IccDropped(Format::Bmp)]);
        assert_eq!(decoded(&bytes).unwrap(), expected, "orientation {orientation}");

        let bare = Image {
            metadata: Metadata { exif: orientation::exif_of(orientation), ..Metadata::default() },
            ..tagged
        };
        assert_eq!(encoded(&bare, Format::Bmp), (bytes, vec![]));
    }
}

#[test]
fn drops_exif_too_large_for_jpeg_and_rotates_the_image() {
    for (len, fits) in [(65_527, true), (65_528, false), (200_000, false)] {
        let mut exif = camera_exif(8);
        exif.resize(len, 7);
        let image = with_metadata(smooth(16, 8, 3, 8), Some(exif), None);
        let (bytes, warnings) = encoded(&image, Format::Jpeg);
        let back = decoded(&bytes).unwrap();
        if fits {
            assert_eq!((warnings, &back.metadata, back.width), (vec![], &image.metadata, 16));
        } else {
            assert_eq!(warnings, [Warning::ExifDropped(Format::Jpeg)]);
            assert_eq!((back.metadata.exif, back.width, back.height), (None, 8, 16));
        }
    }
}

#[test]
fn drops_a_gray_profile_for_color() {
    let image = with_metadata(smooth(4, 4, 1, 8), None, Some(profile(b"GRAY")));
    let (bytes, warnings) = encoded(&image, Format::WebP);
    assert_eq!(warnings, [Warning::IccDropped(Format::WebP)]);
    assert_eq!(decoded(&bytes).unwrap().metadata.icc, None);
    for format in [Format::Png, Format::Jpeg, Format::Tiff] {
        assert_eq!(decoded(&encoded(&image, format).0).unwrap().metadata.icc, image.metadata.icc);
    }
}

#[test]
fn reads_exif_after_the_pixels_of_a_png() {
    let image = with_metadata(smooth(4, 3, 3, 8), Some(camera_exif(3)), None);
    let (early, _) = encoded(&image, Format::Png);
    let at = early.windows(4).position(|kind| kind == b"eXIf").unwrap() - 4;
    let length = 12 + camera_exif(3).len();
    let mut late = early.clone();
    let chunk: Vec<u8> = late.drain(at..at + length).collect();
    let end = late.len() - 12;
    late.splice(end..end, chunk);
    assert_eq!(decoded(&late).unwrap(), image);
}

#[test]
fn strips_the_jpeg_marker_in_other_formats() {
    let exif = [b"Exif\0\0", camera_exif(6).as_slice()].concat();
    let (bytes, _) = encoded(&with_metadata(smooth(4, 3, 3, 8), Some(exif), None), Format::WebP);
    assert_eq!(decoded(&bytes).unwrap().metadata.exif, Some(camera_exif(6)));
}

/// A block with the image's size in both of its directories, in this byte order.
fn sized_exif(big_endian: bool) -> Vec<u8> {
    let short = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let entry = |tag: u16, kind: u16, value: u32| {
        let value =
            if kind == 3 { [short(value as u16), [0; 2]].concat() } else { long(value).to_vec() };
        [&short(tag)[..], &short(kind), &long(1), &value].concat()
    };
    let mut block = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
    block.extend(long(8));
    block.extend(short(3));
    block.extend([entry(0x0100, 4, 53), entry(0x0112, 3, 6), entry(0x8769, 4, 50)].concat());
    block.extend(long(0));
    block.extend(short(2));
    block.extend([entry(0xA002, 3, 53), entry(0xA003, 4, 37)].concat());
    block.extend(long(0));
    block
}

#[test]
fn updates_the_size_in_the_exif_block() {
    for big_endian in [false, true] {
        for (width, height) in [(53, 37), (106, 74), (70_000, 1)] {
            let exif = sized_exif(big_endian);
            let image = with_metadata(smooth(width, height, 1, 8), Some(exif.clone()), None);
            let written = decoded(&encoded(&image, Format::Png).0);
            // Larger ones are not read.
            let Ok(written) = written else { continue };
            let found = written.metadata.exif.unwrap();
            let number = |at: usize| {
                let bytes: [u8; 4] = found[at..at + 4].try_into().unwrap();
                if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            assert_eq!((found.len(), number(18)), (exif.len(), width as u32));
            let short = if big_endian { number(60) >> 16 } else { number(60) & 0xFFFF };
            assert_eq!((short, number(72)), (width as u32, height as u32));
            if (width, height) == (53, 37) {
                assert_eq!(found, exif);
            }
        }
    }
}

#[test]
fn marks_rotated_images_as_upright() {
    let image = with_metadata(smooth(9, 6, 3, 8), Some(sized_exif(true)), None);
    let upright = image.clone().upright();
    assert_eq!((upright.width, upright.height), (6, 9));
    assert_eq!(orientation::of(&upright.metadata), Orientation::NoTransforms);
    assert_eq!(upright.samples, turned(&image, 6).samples);
    let damaged = with_metadata(smooth(9, 6, 3, 8), Some(b"MM\0*\xff\xff\xff\xff".to_vec()), None);
    assert_eq!(damaged.clone().upright(), damaged);
    for cut in 0..sized_exif(false).len() {
        let part = with_metadata(smooth(9, 6, 3, 8), Some(sized_exif(false)[..cut].to_vec()), None);
        encoded(&part.upright(), Format::Png);
    }
}

fn with_chunks(image: Image, chunks: &[(&[u8; 4], &[u8])]) -> Image {
    let chunks = chunks.iter().map(|(name, body)| (**name, body.to_vec())).collect();
    Image { metadata: Metadata { chunks, ..Metadata::default() }, ..image }
}

#[test]
fn keeps_png_color_chunks_or_warns() {
    let linear = 100_000_u32.to_be_bytes();
    let gamma = 45_455_u32.to_be_bytes();
    type Chunk<'a> = (&'a [u8; 4], &'a [u8]);
    let chunks: [(&[Chunk<'_>], bool); 5] = [
        (&[(b"gAMA", &linear)], true),
        (&[(b"cICP", &[9, 16, 0, 1])], true),
        (
            &[(
                b"cHRM",
                &[
                    0, 0, 0x80, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0,
                    0, 0, 5, 0, 0, 0, 6,
                ],
            )],
            true,
        ),
        (&[(b"sRGB", &[0]), (b"gAMA", &gamma)], false),
        (&[(b"gAMA", &gamma), (b"pHYs", &[0, 0, 0x2E, 0x23, 0, 0, 0x2E, 0x23, 1])], false),
    ];
    for (chunks, missed) in chunks {
        for channels in 1..=4 {
            let image = with_chunks(smooth(9, 6, channels, 16), chunks);
            let (bytes, warnings) = encoded(&image, Format::Png);
            assert_eq!((decoded(&bytes).unwrap(), warnings), (image, vec![]));
        }
        for format in [Format::Jpeg, Format::WebP, Format::Tiff, Format::Bmp] {
            let (_, warnings) = encoded(&with_chunks(smooth(9, 6, 3, 8), chunks), format);
            assert_eq!(
                warnings.contains(&Warning::ColorDropped(format)),
                missed,
                "{format} {chunks:?}"
            );
        }
    }
    // Damaged chunks are ignored.
    let (mut bytes, _) =
        encoded(&with_chunks(smooth(9, 6, 3, 8), &[(b"gAMA", &linear)]), Format::Png);
    let at = bytes.windows(4).position(|name| name == b"gAMA").unwrap();
    bytes[at + 5] ^= 1;
    assert_eq!(decoded(&bytes).unwrap().metadata.chunks, []);
}

#[test]
fn keeps_density_in_jpeg_and_png() {
    let density = |dots: u32| [&dots.to_be_bytes()[..], &dots.to_be_bytes(), &[1]].concat();
    for dots in [2835, 11_811, 23_622] {
        let image = with_chunks(smooth(9, 6, 3, 8), &[(b"pHYs", &density(dots))]);
        let jpeg = decoded(&encoded(&image, Format::Jpeg).0).unwrap();
        assert_eq!(jpeg.metadata, image.metadata);
        assert_eq!(decoded(&encoded(&jpeg, Format::Png).0).unwrap().metadata, image.metadata);
    }
    let wide = with_chunks(smooth(9, 6, 3, 8), &[(b"pHYs", &[0, 0, 0, 4, 0, 0, 0, 3, 0])]);
    assert_eq!(decoded(&encoded(&wide, Format::Jpeg).0).unwrap().metadata, wide.metadata);
}

#[test]
fn reports_metadata_that_was_not_read() {
    // One gray pixel, and an invalid pointer to an EXIF block.
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    let entries: [(u16, u16, u32); 9] = [
        (0x100, 3, 1),
        (0x101, 3, 1),
        (0x102, 3, 8),
        (0x103, 3, 1),
        (0x106, 3, 1),
        (0x111, 4, 122),
        (0x116, 3, 1),
        (0x117, 4, 1),
        (0x8769, 4, 8),
    ];
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        file.extend(tag.to_le_bytes().into_iter().chain(kind.to_le_bytes()));
        file.extend(1_u32.to_le_bytes().into_iter().chain(value.to_le_bytes()));
    }
    file.extend([0, 0, 0, 0, 77]);
    let image = decoded(&file).unwrap();
    assert!(image.metadata.is_partial);
    assert!(encoded(&image, Format::Png).1.contains(&Warning::MetadataUnread));
}

use super::{Format, Samples, decoded, encoded, refusal, smooth};
use ::tiff::encoder::colortype::{Gray32Float, GrayI8, RGB8, RGB32Float};
use ::tiff::encoder::{TiffEncoder, colortype};
use ::tiff::tags::{ExtraSamples, Tag};
use std::io::Cursor;

fn png_of(
    color: png::ColorType,
    depth: png::BitDepth,
    data: &[u8],
    palette: Option<(&[u8], &[u8])>,
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 4, 2);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if let Some((colors, alpha)) = palette {
        encoder.set_palette(colors.to_vec());
        encoder.set_trns(alpha.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

#[test]
fn expands_png_palettes_and_low_depths() {
    let found = decoded(&png_of(
        png::ColorType::Grayscale,
        png::BitDepth::One,
        &[0b0110_0000, 0b1001_0000],
        None,
    ));
    assert_eq!(found.unwrap().samples, Samples::U8(vec![0, 255, 255, 0, 255, 0, 0, 255]));
    let found = decoded(&png_of(
        png::ColorType::Grayscale,
        png::BitDepth::Four,
        &[0x01, 0x2F, 0x88, 0x0F],
        None,
    ));
    assert_eq!(found.unwrap().samples, Samples::U8(vec![0, 17, 34, 255, 136, 136, 0, 255]));
    let palette = (&[1, 2, 3, 40, 50, 60][..], &[255, 7][..]);
    let found = decoded(&png_of(
        png::ColorType::Indexed,
        png::BitDepth::Eight,
        &[0, 1, 0, 0, 0, 0, 0, 1],
        Some(palette),
    ))
    .unwrap();
    assert_eq!(found.channels, 4);
    let Samples::U8(samples) = found.samples else { panic!("8 bits") };
    assert_eq!(samples[..8], [1, 2, 3, 255, 40, 50, 60, 7]);
}

#[test]
fn rejects_animations() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 2, 2);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0; 4]).unwrap();
    writer.write_image_data(&[9; 4]).unwrap();
    writer.finish().unwrap();
    assert!(refusal(&file).contains("animation"));
}

fn tiff_of<L: colortype::ColorType>(data: &[L::Inner], extra: Option<ExtraSamples>) -> Vec<u8>
where
    [L::Inner]: ::tiff::encoder::TiffValue,
{
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut page = encoder.new_image::<L>(2, 2).unwrap();
    if let Some(extra) = extra {
        page.extra_samples(&[extra]).unwrap();
    }
    page.write_data(data).unwrap();
    file.into_inner()
}

#[test]
fn rejects_tiff_with_unsupported_samples() {
    assert!(refusal(&tiff_of::<RGB32Float>(&[0.5; 12], None)).contains("floating point"));
    assert!(refusal(&tiff_of::<Gray32Float>(&[0.5; 4], None)).contains("floating point"));
    assert!(refusal(&tiff_of::<GrayI8>(&[-5; 4], None)).contains("signed"));
    assert!(
        refusal(&tiff_of::<RGB8>(&[5; 16], Some(ExtraSamples::AssociatedAlpha)))
            .contains("multiplied by alpha")
    );
}

/// Position of a tag's value in a little-endian TIFF.
fn value_at(file: &[u8], tag: u16) -> usize {
    let word = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
    let directory = long_at(file, 4);
    let entries = (0..usize::from(word(directory))).map(|entry| directory + 2 + 12 * entry);
    entries.clone().find(|at| word(*at) == tag).unwrap() + 8
}

fn long_at(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn reads_compressed_tiff_and_rejects_a_truncated_one() {
    use ::tiff::encoder::Compression;
    let data: Vec<u8> = (0..64 * 48 * 3).map(|at| (at * at / 97) as u8).collect();
    let compressions = [
        ("LZW", Compression::Lzw),
        ("bits", Compression::Packbits),
        ("flate", Compression::Deflate(Default::default())),
    ];
    for (name, compression) in compressions {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap().with_compression(compression);
        let mut page = encoder.new_image::<RGB8>(64, 48).unwrap();
        page.rows_per_strip(48).unwrap();
        page.write_data(&data).unwrap();
        let file = file.into_inner();
        assert_eq!(decoded(&file).unwrap().samples, Samples::U8(data.clone()), "{name}");
        // Appends a copy of the strip, and truncates within it while the directory stays intact.
        let (offset_at, length) = (value_at(&file, 273), long_at(&file, value_at(&file, 279)));
        let strip = &file[long_at(&file, offset_at)..][..length];
        for cut in (0..length - 8).step_by(97).chain([length / 2, length - 16]) {
            let mut moved = file.clone();
            moved[offset_at..offset_at + 4].copy_from_slice(&(file.len() as u32).to_le_bytes());
            moved.extend(&strip[..cut]);
            let found = decoded(&moved);
            assert!(
                matches!(found, Err(crate::Error::Input { .. })),
                "{name} cut to {cut} of {length}"
            );
        }
    }
}

#[test]
fn reads_planar_tiff() {
    // Three planes of 2x2, one strip each.
    let entries = 10_u16;
    let data_at = 8 + 2 + u32::from(entries) * 12 + 4;
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend(entries.to_le_bytes());
    let entry = |tag: u16, kind: u16, count: u32, value: u32| {
        [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()]
            .concat()
    };
    file.extend(entry(256, 3, 1, 2));
    file.extend(entry(257, 3, 1, 2));
    file.extend(entry(258, 3, 3, data_at));
    file.extend(entry(259, 3, 1, 1));
    file.extend(entry(262, 3, 1, 2));
    file.extend(entry(273, 4, 3, data_at + 6));
    file.extend(entry(277, 3, 1, 3));
    file.extend(entry(278, 3, 1, 2));
    file.extend(entry(279, 4, 3, data_at + 18));
    file.extend(entry(284, 3, 1, 2));
    file.extend([0; 4]);
    file.extend([8, 0, 8, 0, 8, 0]);
    (0..3_u32).for_each(|plane| file.extend((data_at + 30 + plane * 4).to_le_bytes()));
    (0..3).for_each(|_| file.extend(4_u32.to_le_bytes()));
    file.extend([1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24]);
    let found = decoded(&file).unwrap();
    assert_eq!((found.width, found.height, found.channels), (2, 2, 3));
    assert_eq!(found.samples, Samples::U8(vec![1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24]));
}

#[test]
fn expands_one_bit_tiff() {
    for (photometric, expected) in [(1, [255, 0, 255, 0, 0, 255]), (0, [0, 255, 0, 255, 255, 0])] {
        let mut file = b"II*\0\x08\0\0\0\x08\0".to_vec();
        let entry = |tag: u16, value: u32| {
            [
                &tag.to_le_bytes()[..],
                &4_u16.to_le_bytes(),
                &1_u32.to_le_bytes(),
                &value.to_le_bytes(),
            ]
            .concat()
        };
        let data_at = 8 + 2 + 8 * 12 + 4;
        for (tag, value) in [
            (256, 3),
            (257, 2),
            (258, 1),
            (259, 1),
            (262, photometric),
            (273, data_at),
            (278, 2),
            (279, 2),
        ] {
            file.extend(entry(tag, value));
        }
        file.extend([0, 0, 0, 0, 0b1010_0000, 0b0010_0000]);
        assert_eq!(
            decoded(&file).unwrap().samples,
            Samples::U8(expected.to_vec()),
            "photometric {photometric}"
        );
    }
}

#[test]
fn converts_cmyk_to_rgb_with_a_warning() {
    let inks = [[0, 0, 0, 0], [255, 0, 0, 0], [0, 102, 255, 51], [10, 20, 30, 255]];
    let expected = [[255, 255, 255], [0, 255, 255], [204, 122, 0], [0, 0, 0]];
    let eight = decoded(&tiff_of::<colortype::CMYK8>(&inks.concat(), None)).unwrap();
    assert_eq!((eight.channels, &eight.samples), (3, &Samples::U8(expected.concat())));
    let inks: Vec<u16> = inks.concat().iter().map(|ink| u16::from(*ink) * 257).collect();
    let sixteen = decoded(&tiff_of::<colortype::CMYK16>(&inks, None)).unwrap();
    let expected: Vec<u16> =
        expected.concat().iter().map(|sample| u16::from(*sample) * 257).collect();
    let Samples::U16(found) = &sixteen.samples else { panic!("16 bits") };
    assert!(found.iter().zip(&expected).all(|(found, expected)| found.abs_diff(*expected) < 129));
    // From another encoder, in Adobe's convention.
    let jpeg =
        decoded(include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/cmyk.jpg")))
            .unwrap();
    let Samples::U8(samples) = &jpeg.samples else { panic!("8 bits") };
    for (i, pixel) in samples.as_chunks::<3>().0.iter().enumerate() {
        let (x, y) = ((i % 48) as i32, (i / 48) as i32);
        let light = |ink: i32| (255 - ink) * (255 - 40) / 255;
        let expected = [light(5 * x), light(6 * y), light(30)];
        let near = pixel
            .iter()
            .zip(expected)
            .all(|(found, expected)| (i32::from(*found) - expected).abs() <= 6);
        assert!(near, "{pixel:?} for {expected:?} at {x},{y}");
    }
    for image in [eight, sixteen, jpeg] {
        assert_eq!(encoded(&image, Format::Png).1, [super::Warning::PrintColors]);
    }
}

#[test]
fn rejects_cmyk_of_unknown_convention() {
    let (mut bytes, _) = encoded(&smooth(8, 8, 3, 8), Format::Jpeg);
    let at = bytes.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    bytes[at + 9] = 4;
    assert!(refusal(&bytes).contains("CMYK"));
}

#[test]
fn ignores_a_tag_of_wrong_type() {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut page = encoder.new_image::<RGB8>(2, 2).unwrap();
    page.encoder().write_tag(Tag::Orientation, "left").unwrap();
    page.write_data(&[7; 12]).unwrap();
    assert_eq!(decoded(&file.into_inner()).unwrap().metadata.exif, None);
}

#[test]
fn rejects_tiff_with_several_pages_other_than_reduced_copies() {
    let pages = |kinds: &[Option<u32>]| {
        let mut file = Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut file).unwrap();
        for (i, kind) in kinds.iter().enumerate() {
            let mut page = encoder.new_image::<RGB8>(2, 2).unwrap();
            if let Some(kind) = kind {
                page.encoder().write_tag(Tag::NewSubfileType, *kind).unwrap();
            }
            page.write_data(&[i as u8; 12]).unwrap();
        }
        file.into_inner()
    };
    assert!(refusal(&pages(&[None, None])).contains("several pages"));
    assert!(refusal(&pages(&[Some(0), Some(1), Some(2)])).contains("several pages"));
    assert!(refusal(&pages(&[Some(1), Some(0)])).contains("develop it"));
    for kinds in [&[None][..], &[None, Some(1)], &[Some(0), Some(4), Some(1)], &[Some(2)]] {
        assert_eq!(decoded(&pages(kinds)).unwrap().samples, Samples::U8(vec![0; 12]), "{kinds:?}");
    }
}

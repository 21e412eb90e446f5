use super::{Format, Image, Samples, Warning, decoded, encoded, smooth};

/// Converts gray to three equal channels, as WebP and BMP return it.
fn colored(image: &Image) -> Image {
    let Samples::U8(samples) = &image.samples else { panic!("8 bits") };
    let pixels = samples.chunks_exact(image.channels);
    let (channels, samples) = match image.channels {
        1 => (3, pixels.flat_map(|gray| [gray[0]; 3]).collect()),
        2 => (4, pixels.flat_map(|gray| [gray[0], gray[0], gray[0], gray[1]]).collect()),
        channels => (channels, samples.clone()),
    };
    Image { channels, samples: Samples::U8(samples), ..image.clone() }
}

#[test]
fn round_trips_png_and_tiff_exactly() {
    for format in [Format::Png, Format::Tiff] {
        for bits in [8, 16] {
            for channels in 1..=4 {
                for (width, height) in [(1, 1), (7, 5), (300, 211), (1, 90), (90, 1)] {
                    let image = smooth(width, height, channels, bits);
                    let (bytes, warnings) = encoded(&image, format);
                    assert_eq!(Format::from_content(&bytes), Some(format));
                    assert_eq!(warnings, []);
                    assert_eq!(
                        decoded(&bytes).unwrap(),
                        image,
                        "{format} {width}x{height}x{channels} {bits}"
                    );
                }
            }
        }
    }
}

#[test]
fn webp_and_bmp_return_8_bits() {
    for format in [Format::WebP, Format::Bmp, Format::Qoi] {
        for channels in 1..=4 {
            for (width, height) in [(1, 1), (7, 5), (300, 211)] {
                let image = smooth(width, height, channels, 8);
                let (bytes, warnings) = encoded(&image, format);
                assert_eq!(Format::from_content(&bytes), Some(format));
                assert_eq!(warnings, []);
                assert_eq!(
                    decoded(&bytes).unwrap(),
                    colored(&image),
                    "{format} {width}x{height}x{channels}"
                );
            }
        }
    }
}

#[test]
fn round_trips_jpeg_approximately() {
    for channels in [1, 3] {
        let image = smooth(37, 29, channels, 8);
        let (bytes, warnings) = encoded(&image, Format::Jpeg);
        assert_eq!(warnings, []);
        let back = decoded(&bytes).unwrap();
        assert_eq!((back.width, back.height, back.channels), (37, 29, channels));
        let (Samples::U8(before), Samples::U8(after)) = (&image.samples, &back.samples) else {
            panic!("8 bits")
        };
        let error: u32 = before.iter().zip(after).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        assert!(
            error < 2 * before.len() as u32,
            "mean error {}",
            f64::from(error) / before.len() as f64
        );
    }
}

#[test]
fn sixteen_bits_are_rounded_with_a_warning() {
    for format in [Format::WebP, Format::Bmp, Format::Qoi, Format::Jpeg] {
        for channels in [1, 3] {
            let image = smooth(24, 16, channels, 16);
            let (bytes, warnings) = encoded(&image, format);
            assert_eq!(warnings, [Warning::DepthReduced(format)]);
            let Samples::U16(samples) = &image.samples else { panic!("16 bits") };
            let samples =
                samples.iter().map(|value| (f64::from(*value) / 257.0).round() as u8).collect();
            let expected = Image { samples: Samples::U8(samples), ..image.clone() };
            assert_eq!(bytes, encoded(&expected, format).0);
        }
    }
}

#[test]
fn accepts_only_opaque_alpha_for_jpeg() {
    for channels in [2, 4] {
        for bits in [8, 16] {
            let mut image = smooth(5, 4, channels, bits);
            let mut file = std::io::Cursor::new(Vec::new());
            let refused =
                super::encode(&image, Format::Jpeg, &super::Options::default(), &mut file)
                    .unwrap_err();
            assert!(refused.problem.contains("transparency"));
            match &mut image.samples {
                Samples::U8(samples) => {
                    samples.chunks_mut(channels).for_each(|pixel| pixel[channels - 1] = u8::MAX)
                }
                Samples::U16(samples) => {
                    samples.chunks_mut(channels).for_each(|pixel| pixel[channels - 1] = u16::MAX)
                }
            }
            let (bytes, _) = encoded(&image, Format::Jpeg);
            assert_eq!(decoded(&bytes).unwrap().channels, channels - 1);
        }
    }
}

#[test]
fn rejects_sides_beyond_the_limit_of_a_format() {
    for (format, width) in [(Format::WebP, 16_384), (Format::Jpeg, 65_536), (Format::Bmp, 65_536)] {
        let mut file = std::io::Cursor::new(Vec::new());
        let refused =
            super::encode(&smooth(width, 1, 1, 8), format, &super::Options::default(), &mut file)
                .unwrap_err();
        assert!(refused.problem.contains("a side"), "{}", refused.problem);
    }
    let (bytes, _) = encoded(&smooth(16_383, 1, 1, 8), Format::WebP);
    assert_eq!(decoded(&bytes).unwrap().width, 16_383);
    let (bytes, _) = encoded(&smooth(65_535, 1, 1, 8), Format::Bmp);
    assert_eq!(decoded(&bytes).unwrap().width, 65_535);
}

#[test]
fn round_trips_names_and_extensions() {
    for extension in Format::extensions() {
        let format: Format = extension.parse().unwrap();
        assert_eq!(
            Format::from_path(std::path::Path::new(&format!("x.y.{}", extension.to_uppercase()))),
            Some(format)
        );
    }
    for format in Format::ALL {
        assert_eq!(format.extension().parse::<Format>().unwrap(), format);
        assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
    }
    assert!(
        "gif"
            .parse::<Format>()
            .unwrap_err()
            .to_string()
            .contains("png, jpg, webp, tiff, bmp or qoi")
    );
    assert_eq!(Format::from_path(std::path::Path::new("png")), None);
}

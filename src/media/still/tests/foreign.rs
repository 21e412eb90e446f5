//! Images that other programs wrote; `tests/data/images/make.py` made them.

use super::super::orientation;
use super::{Format, Image, Samples, decoded};
use image::metadata::Orientation;

macro_rules! image {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images/", $name))
    };
}

/// The mean difference from what was drawn, in steps of 8 bits.
fn error(image: &Image) -> f64 {
    let Samples::U8(samples) = &image.samples else { panic!("8 bits") };
    let drawn = (0..40_u8).flat_map(|y| (0..48_u8).flat_map(move |x| [5 * x, 6 * y, 2 * (x + y)]));
    let total: u32 = samples.iter().zip(drawn).map(|(found, drawn)| u32::from(found.abs_diff(drawn))).sum();
    f64::from(total) / samples.len() as f64
}

#[test]
fn are_read_whole_or_refused() {
    let images: [(&[u8], f64, bool); 6] = [
        (image!("progressive.jpg"), 2.0, true),
        (image!("restart.jpg"), 2.0, true),
        (image!("lossy.webp"), 3.0, true),
        (image!("lossless.webp"), 0.0, true),
        (image!("predictor.tiff"), 0.0, true),
        (image!("palette.bmp"), 6.0, false),
    ];
    for (bytes, tolerance, tagged) in images {
        let format = Format::from_content(bytes).unwrap();
        let whole = decoded(bytes).unwrap();
        assert_eq!((whole.width, whole.height, whole.channels), (48, 40, 3), "{format}");
        assert!(error(&whole) <= tolerance, "{format} is off by {}", error(&whole));
        let orientation = if tagged { Orientation::Rotate90 } else { Orientation::NoTransforms };
        assert_eq!(orientation::of(&whole.metadata), orientation, "{format}");
        assert_eq!(whole.metadata.icc.is_some(), tagged, "{format}");
        for cut in 0..bytes.len() {
            if let Ok(part) = decoded(&bytes[..cut]) {
                assert_eq!(part, whole, "{format} cut to {cut} of {}", bytes.len());
            }
        }
    }
}

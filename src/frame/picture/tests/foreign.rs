//! Pictures that other programs wrote; `tests/data/pictures/make.py` made them.

use super::super::orientation;
use super::{Format, Frame, Samples, decoded};
use image::metadata::Orientation;

macro_rules! picture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pictures/", $name))
    };
}

/// The mean difference from what was drawn, in steps of 8 bits.
fn error(frame: &Frame) -> f64 {
    let Samples::U8(samples) = &frame.samples else { panic!("8 bits") };
    let drawn = (0..40_u8).flat_map(|y| (0..48_u8).flat_map(move |x| [5 * x, 6 * y, 2 * (x + y)]));
    let total: u32 = samples.iter().zip(drawn).map(|(found, drawn)| u32::from(found.abs_diff(drawn))).sum();
    f64::from(total) / samples.len() as f64
}

#[test]
fn are_read_whole_or_refused() {
    let pictures: [(&[u8], f64, bool); 6] = [
        (picture!("progressive.jpg"), 2.0, true),
        (picture!("restart.jpg"), 2.0, true),
        (picture!("lossy.webp"), 3.0, true),
        (picture!("lossless.webp"), 0.0, true),
        (picture!("predictor.tiff"), 0.0, true),
        (picture!("palette.bmp"), 6.0, false),
    ];
    for (bytes, tolerance, tagged) in pictures {
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

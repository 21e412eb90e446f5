//! The caps of the pads, and those of enlarged frames.

use eddy::media::stream::GSTREAMER_FORMATS;
use gst::prelude::*;
use gst_video::VideoInfo;

/// The largest side of a frame.
const MAX_SIDE: i32 = 65_535;

/// The caps of both pads: every format that Eddy reads, in the memory of this process.
pub(crate) fn supported() -> gst::Caps {
    let formats = GSTREAMER_FORMATS.iter().map(|(name, _)| *name);
    gst::Caps::builder("video/x-raw")
        .field("format", gst::List::new(formats))
        .field("width", gst::IntRange::new(1, MAX_SIDE))
        .field("height", gst::IntRange::new(1, MAX_SIDE))
        .field(
            "framerate",
            gst::FractionRange::new(gst::Fraction::new(0, 1), gst::Fraction::new(i32::MAX, 1)),
        )
        .build()
}

/// The caps of frames that are `scale` times larger, or if `is_reverse`, of those that are so much
/// smaller. Where the scale is not known yet, of any size.
pub(crate) fn scaled(caps: &gst::Caps, scale: Option<i32>, is_reverse: bool) -> gst::Caps {
    let mut scaled = gst::Caps::new_empty();
    for (structure, features) in caps.iter_with_features() {
        let mut structure = structure.to_owned();
        if !is_reverse {
            keep_color(&mut structure);
        }
        let sides = ["width", "height"];
        let is_possible = sides.iter().all(|side| match (structure.value(*side), scale) {
            (Ok(value), Some(scale)) => match scale_value(value, scale, is_reverse) {
                Some(value) => {
                    structure.set_value(*side, value);
                    true
                }
                None => false,
            },
            _ => {
                structure.set(*side, gst::IntRange::new(1, MAX_SIDE));
                true
            }
        });
        if is_possible && let Some(scaled) = scaled.get_mut() {
            scaled.append_structure_full(structure, Some(features.to_owned()));
        }
    }
    scaled
}

/// Declares the color of frames that leave it to the default, which depends on their height.
fn keep_color(structure: &mut gst::Structure) {
    if structure.has_field("colorimetry") {
        return;
    }
    let caps = gst::Caps::builder_full().structure(structure.clone()).build();
    if caps.is_fixed()
        && let Ok(info) = VideoInfo::from_caps(&caps)
        && info.format_info().is_yuv()
    {
        structure.set("colorimetry", info.colorimetry().to_string());
    }
}

fn scale_value(
    value: &gst::glib::SendValue,
    scale: i32,
    is_reverse: bool,
) -> Option<gst::glib::SendValue> {
    if let Ok(side) = value.get::<i32>() {
        let side = match is_reverse {
            true if side % scale != 0 => return None,
            true => side / scale,
            false => side.checked_mul(scale)?,
        };
        return Some(side.to_send_value());
    }
    if let Ok(range) = value.get::<gst::IntRange<i32>>() {
        let (least, most) = match is_reverse {
            true => ((range.min() + scale - 1) / scale, range.max() / scale),
            false => (range.min().saturating_mul(scale), range.max().saturating_mul(scale)),
        };
        return match least.cmp(&most) {
            std::cmp::Ordering::Less => Some(gst::IntRange::new(least, most).to_send_value()),
            std::cmp::Ordering::Equal => Some(least.to_send_value()),
            std::cmp::Ordering::Greater => None,
        };
    }
    let list = value.get::<gst::List>().ok()?;
    let sides: Vec<_> =
        list.iter().filter_map(|side| scale_value(side, scale, is_reverse)).collect();
    (!sides.is_empty()).then(|| gst::List::new(sides).to_send_value())
}

//! The figures of an element, and the messages that have them.

use std::time::{Duration, Instant};

use eddy::video::{QualityLevel, StreamStatus};
use gst::prelude::*;

/// How often figures are posted.
const INTERVAL: Duration = Duration::from_secs(1);

/// The figures since the element was started.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    frames: u64,
    work: Duration,
    status: Option<StreamStatus>,
    posted: Option<Instant>,
}

impl Figures {
    /// Adds a frame, with the time that it took. Posts its quality if that is another one than that
    /// of the frame before, and once a second all figures.
    pub(crate) fn add(&mut self, element: &gst::Element, took: Duration, status: StreamStatus) {
        self.frames += 1;
        self.work += took;
        let quality = status.quality.clone();
        let before = self.status.replace(status);
        if before.is_none_or(|before| before.quality != quality) {
            post(element, structure_of(&quality));
        }
        let since = *self.posted.get_or_insert_with(Instant::now);
        if since.elapsed() >= INTERVAL {
            self.posted = Some(Instant::now());
            post(element, self.structure());
        }
    }

    /// Posts all figures.
    pub(crate) fn post(&self, element: &gst::Element) {
        if self.frames > 0 {
            post(element, self.structure());
        }
    }

    /// All figures: `sigma` is in 8-bit units, and `milliseconds` the mean time of a frame.
    pub(crate) fn structure(&self) -> gst::Structure {
        let mean = 1000.0 * self.work.as_secs_f64() / self.frames.max(1) as f64;
        let mut structure = gst::Structure::builder("eddy-statistics")
            .field("frames", self.frames)
            .field("milliseconds", mean)
            .build();
        if let Some(status) = &self.status {
            structure.set("quality", status.quality.to_string());
            structure.set("quality-changes", status.changes);
            structure.set("temporal", status.temporal);
            structure.set("tiles-repeated", status.repeated);
            structure.set("passed-through", status.failed);
            if let Some(sigma) = status.sigma {
                structure.set("sigma", sigma);
            }
        }
        structure
    }
}

fn structure_of(quality: &QualityLevel) -> gst::Structure {
    gst::Structure::builder("eddy-quality")
        .field("model", &*quality.model)
        .field("precision", quality.precision.name())
        .field("steps", u32::try_from(quality.steps).unwrap_or(u32::MAX))
        .field("scale", quality.scale.to_string())
        .field("tiles-reused-longer", quality.reuse_tiles_longer)
        .build()
}

fn post(element: &gst::Element, structure: gst::Structure) {
    // Without a bus nobody wants it.
    let _ = element.post_message(gst::message::Element::builder(structure).src(element).build());
}

//! Measures flicker in static areas of the result.

use super::{BLOCK, Temporal};

/// A block counts only after this many static frames.
const MIN_FRAMES: u32 = 8;

/// Standard deviation over time of static pixels: one pixel of each block, from when it becomes
/// static until it moves.
#[derive(Default)]
pub(in crate::video) struct Flicker {
    /// For each block: number of static frames, and the mean and the sum of squared deviations
    /// over them.
    places: Vec<(u32, f32, f32)>,
    sum: f64,
    count: u64,
}

impl Flicker {
    /// Adds a result: planes of one size, `[planes, height, width]`.
    pub(in crate::video) fn add(
        &mut self,
        temporal: &Temporal,
        result: &[f32],
        [width, height]: [usize; 2],
    ) {
        let across = temporal.across();
        self.places.resize(temporal.residual().len(), (0, 0.0, 0.0));
        let area = width * height;
        let channels = (result.len() / area) as f32;
        for (i, (place, moving)) in self.places.iter_mut().zip(temporal.moving()).enumerate() {
            if *moving {
                close(place, &mut self.sum, &mut self.count);
                continue;
            }
            let x = (i % across * BLOCK + BLOCK / 2).min(width - 1);
            let y = (i / across * BLOCK + BLOCK / 2).min(height - 1);
            let value = result[y * width + x..].iter().step_by(area).sum::<f32>() / channels;
            let (frames, mean, squares) = place;
            *frames += 1;
            let before = value - *mean;
            *mean += before / *frames as f32;
            *squares += before * (value - *mean);
        }
    }

    /// Mean standard deviation over all static periods so far, in the result's units; `None`
    /// before the first of sufficient length.
    pub(in crate::video) fn mean(&self) -> Option<f64> {
        let (mut sum, mut count) = (self.sum, self.count);
        self.places.iter().for_each(|place| close(&mut place.clone(), &mut sum, &mut count));
        (count > 0).then(|| sum / count as f64)
    }
}

fn close(place: &mut (u32, f32, f32), sum: &mut f64, count: &mut u64) {
    let (frames, _, squares) = std::mem::take(place);
    if frames >= MIN_FRAMES {
        *sum += f64::from(squares / (frames - 1) as f32).max(0.0).sqrt();
        *count += 1;
    }
}

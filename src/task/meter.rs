//! Estimates the noise of a stream for each group of planes, from single frames and from changes
//! between frames.

use super::plane_noise::{
    NoiseKind, Plane, PlaneNoise, PlaneRole, SpatialEstimator, TemporalNoise, kind,
};
use super::profile::NoiseLine;
use crate::tensor::Range;

/// The spatial estimator runs on the first `INITIAL_FRAMES` frames, and then on one of `INTERVAL`.
const INITIAL_FRAMES: u64 = 4;
const INTERVAL: u64 = 8;

/// Weight of a new estimate in the average.
const NEW_WEIGHT: f64 = 0.25;

/// The noise level of a group of planes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    /// Standard deviation of the noise, as a part of the full range.
    pub(crate) sigma: f64,
    /// Variance as a function of the signal; its mean over the frame is the square of `sigma`.
    pub(crate) line: NoiseLine,
}

/// The estimate of a meter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reading {
    /// For each group of planes.
    pub(crate) levels: Vec<Level>,
    /// Whether there is no noise worth removing.
    pub(crate) is_clean: bool,
    /// Whether the noise passed through a camera's processing or a codec.
    pub(crate) is_correlated: bool,
}

/// A group of planes of one size: their number, samples in a row, and content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) count: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) role: PlaneRole,
}

/// The estimators of one plane.
struct Channel {
    temporal: TemporalNoise,
    spatial: Option<PlaneNoise>,
}

/// Estimates the noise of a stream.
pub(crate) struct StreamMeter {
    groups: Vec<Planes>,
    estimator: SpatialEstimator,
    channels: Vec<Channel>,
    /// The current frame and the one before, as parts of the full range.
    now: Vec<f32>,
    before: Vec<f32>,
    /// Whether the previous frame was aligned with the current one.
    is_aligned: bool,
    frames: u64,
    plane_noise: Vec<PlaneNoise>,
    reading: Reading,
}

impl StreamMeter {
    /// A meter for frames with such planes.
    pub(crate) fn new(groups: Vec<Planes>) -> Self {
        let channels = groups.iter().flat_map(|group| (0..group.count).map(|_| group.role));
        let channels = channels
            .map(|role| Channel { temporal: TemporalNoise::new(role), spatial: None })
            .collect();
        let samples = groups.iter().map(|group| group.count * group.width * group.height).sum();
        Self {
            groups,
            estimator: SpatialEstimator::default(),
            channels,
            now: vec![0.0; samples],
            before: vec![0.0; samples],
            is_aligned: false,
            frames: 0,
            plane_noise: Vec::new(),
            reading: Reading::default(),
        }
    }

    /// Bytes held between frames.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.now.len() * size_of::<f32>()
    }

    /// Forgets all estimates, after a change of scene or settings.
    pub(crate) fn restart(&mut self) {
        self.frames = 0;
        self.channels.iter_mut().for_each(|channel| {
            channel.temporal.clear();
            channel.spatial = None;
        });
        self.reading = Reading::default();
    }

    /// Aligns the last measured frame with the next, before both are compared. `move_along` gets
    /// its planes, as parts of the full range, and returns whether there was global motion.
    pub(crate) fn align(&mut self, move_along: impl FnOnce(&mut [f32]) -> bool) {
        self.is_aligned = move_along(&mut self.now);
    }

    /// Whether most of the scene is static, apart from global motion that was compensated, judged
    /// by its first plane.
    pub(crate) fn is_static(&self) -> bool {
        self.channels.first().is_some_and(|channel| channel.temporal.is_static())
    }

    /// Measures a frame, whose planes follow each other and have the range `range`.
    pub(crate) fn measure(&mut self, frame: &[f32], range: Range) -> &Reading {
        std::mem::swap(&mut self.now, &mut self.before);
        let (lo, scale) = (range.lo(), 1.0 / range.span());
        self.now.iter_mut().zip(frame).for_each(|(now, value)| *now = (value - lo) * scale);
        let is_looked_at = self.frames < INITIAL_FRAMES || self.frames.is_multiple_of(INTERVAL);
        let mut start = 0;
        let mut channels = self.channels.iter_mut();
        self.reading.levels.clear();
        self.plane_noise.clear();
        for group in &self.groups {
            let area = group.width * group.height;
            let (mut variance, mut line) =
                (0.0_f64, NoiseLine { a: 0.0, b: 0.0, signal: [0.5, 0.5] });
            for channel in channels.by_ref().take(group.count) {
                let plane = start..start + area;
                start += area;
                if is_looked_at
                    && let Some(measured) = self.estimator.estimate(Plane::new(
                        &self.now[plane.clone()],
                        group.width,
                        group.role,
                    ))
                {
                    channel.spatial =
                        Some(channel.spatial.map_or(measured, |before| mixed(before, measured)));
                }
                if self.frames > 0 {
                    let pair = [&self.before[plane.clone()], &self.now[plane]];
                    channel.temporal.update(pair, group.width, self.is_aligned);
                }
                let Some(spatial) = channel.spatial else { continue };
                let own =
                    channel.temporal.estimate(&spatial).map_or(spatial, |stream| stream.noise);
                let part = 1.0 / group.count as f64;
                variance += part * own.sigma * own.sigma;
                let NoiseLine { a, b, signal } = own.line;
                line = NoiseLine { a: line.a + part * a, b: line.b + part * b, signal };
                self.plane_noise.push(own);
            }
            self.reading.levels.push(Level { sigma: variance.sqrt(), line });
        }
        let kind = kind(&self.plane_noise);
        self.reading.is_clean = kind == NoiseKind::Clean;
        self.reading.is_correlated = kind == NoiseKind::Correlated;
        self.frames += 1;
        self.is_aligned = false;
        &self.reading
    }
}

/// Moving average of the previous estimates with a new one.
fn mixed(before: PlaneNoise, new: PlaneNoise) -> PlaneNoise {
    let mix = |before: f64, new: f64| before + NEW_WEIGHT * (new - before);
    PlaneNoise {
        role: new.role,
        sigma: mix(before.sigma, new.sigma),
        fine: mix(before.fine, new.fine),
        coarse: mix(before.coarse, new.coarse),
        clean: mix(before.clean, new.clean),
        flat: mix(before.flat, new.flat),
        line: NoiseLine {
            a: mix(before.line.a, new.line.a),
            b: mix(before.line.b, new.line.b),
            signal: new.line.signal,
        },
    }
}

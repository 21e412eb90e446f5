//! Noise as a function of position: `z(seed, step, batch, channel, y, x)`.
//!
//! A counter-based generator has no state, so tiles, threads, batch sizes and machines all draw the same numbers:
//! tiles have no seams, and a seed means the same picture everywhere.

use crate::error::{Error, Result};
use crate::network::Shape;

/// Which row of noise: everything but the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseAt {
    /// The row of the plan, or [`INITIAL`](Self::INITIAL).
    pub step: u32,
    /// The sample of the batch, below 65536.
    pub batch: u32,
    /// The channel, below 65536.
    pub channel: u32,
    /// The row of the whole frame, not of a tile.
    pub y: u32,
}

impl NoiseAt {
    /// The step of the noise that a state starts from; no plan is this long.
    pub const INITIAL: u32 = u32::MAX;
}

/// Standard normal noise that depends on where it is drawn and on nothing else.
pub trait NoiseSource: Sync {
    /// Fills `out` with the noise of row `at` from column `x` on.
    ///
    /// The numbers for a pixel are the same whatever segment asks for them. Allocates nothing.
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]);

    /// Whether noise for `steps` rows of a plan and a state of `shape` can be drawn; asked once before a run.
    ///
    /// # Errors
    /// When it cannot, saying what is there and what is needed.
    fn covers(&self, _steps: usize, _shape: Shape) -> Result<()> {
        Ok(())
    }
}

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and a Box-Muller transform.
///
/// The key is the seed and the counter the position; one call serves four neighbours in a row. The transform uses
/// `libm` in f32, never the platform's, so that the bits are the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The noise that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The four normals of columns `4 * quad ..= 4 * quad + 3`.
    fn quad(&self, at: NoiseAt, quad: u32) -> [f32; 4] {
        let counter = [quad, at.y, (at.batch << 16) | (at.channel & 0xffff), at.step];
        let [a, b, c, d] = philox4x32_10(counter, self.key);
        let ([n0, n1], [n2, n3]) = (box_muller(a, b), box_muller(c, d));
        [n0, n1, n2, n3]
    }
}

impl NoiseSource for Philox {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        let lead = ((4 - x % 4) % 4).min(out.len());
        let (head, body) = out.split_at_mut(lead);
        if !head.is_empty() {
            let values = self.quad(at, (x / 4) as u32);
            head.copy_from_slice(&values[x % 4..x % 4 + lead]);
        }
        let first = x.div_ceil(4) as u32;
        for (quad, chunk) in (first..).zip(body.chunks_mut(4)) {
            let values = self.quad(at, quad);
            chunk.copy_from_slice(&values[..chunk.len()]);
        }
    }
}

/// Ten rounds of Philox on a counter of four words and a key of two.
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let [c0, c1, c2, c3] = counter;
        let (p0, p1) = (MULTIPLIERS[0] * u64::from(c0), MULTIPLIERS[1] * u64::from(c2));
        counter = [(p1 >> 32) as u32 ^ c1 ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ c3 ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Two independent normals from two uniform words (Box and Muller 1958).
fn box_muller(radius: u32, angle: u32) -> [f32; 2] {
    // In (0, 1]: never zero, so the logarithm is finite; the largest radius is 6.76.
    let uniform = (radius as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let radius = (-2.0 * libm::logf(uniform)).sqrt();
    // Signed, so that the angle lies in -pi..=pi, where a sine needs no reduction.
    let angle = (angle as i32) as f32 * (std::f32::consts::PI / 2_147_483_648.0);
    let (sin, cos) = libm::sincosf(angle);
    [radius * cos, radius * sin]
}

/// Noise that was recorded elsewhere: an array `[steps, batch, channels, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    steps: usize,
    shape: Shape,
    values: Vec<f32>,
}

impl Recorded {
    /// Takes the values of `steps` draws of `shape`, dense, in row order.
    ///
    /// # Errors
    /// When their number does not fit.
    pub fn new(steps: usize, shape: Shape, values: Vec<f32>) -> Result<Self> {
        let needed = steps * shape.iter().product::<usize>();
        if values.len() != needed {
            return Err(Error::usage(format!(
                "recorded noise of shape [{steps}, {shape:?}] needs {needed} values, but there are {}",
                values.len()
            )));
        }
        Ok(Self { steps, shape, values })
    }
}

impl NoiseSource for Recorded {
    /// # Panics
    /// Outside what was recorded; [`covers`](NoiseSource::covers) tells beforehand.
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        let [batch, channels, height, width] = self.shape;
        let row = ((at.step as usize * batch + at.batch as usize) * channels + at.channel as usize) * height;
        let start = (row + at.y as usize) * width + x;
        out.copy_from_slice(&self.values[start..start + out.len()]);
    }

    fn covers(&self, steps: usize, shape: Shape) -> Result<()> {
        if self.shape == shape && self.steps >= steps {
            return Ok(());
        }
        Err(Error::usage(format!(
            "this run reads {steps} steps of noise of shape {shape:?}, but {} of shape {:?} were recorded: hand in an \
             array of shape [steps, batch, channels, height, width]",
            self.steps, self.shape
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{NoiseAt, NoiseSource, Philox, Recorded, box_muller, philox4x32_10};

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    const AT: NoiseAt = NoiseAt { step: 3, batch: 1, channel: 2, y: 17 };

    #[test]
    fn a_pixel_has_its_noise_whatever_segment_asks() {
        let source = Philox::new(42);
        let mut row = [0.0; 64];
        source.fill(AT, 0, &mut row);
        for start in 0..20 {
            for len in 0..20 {
                let mut segment = vec![0.0; len];
                source.fill(AT, start, &mut segment);
                assert_eq!(segment, row[start..start + len]);
            }
        }
    }

    #[test]
    fn every_coordinate_matters() {
        let draw = |seed: u64, at: NoiseAt, x: usize| {
            let mut out = [0.0];
            Philox::new(seed).fill(at, x, &mut out);
            out[0].to_bits()
        };
        let mut seen = std::collections::HashSet::from([draw(42, AT, 5)]);
        assert!(seen.insert(draw(43, AT, 5)));
        assert!(seen.insert(draw(42 + (1 << 32), AT, 5)));
        assert!(seen.insert(draw(42, NoiseAt { step: 4, ..AT }, 5)));
        assert!(seen.insert(draw(42, NoiseAt { batch: 2, ..AT }, 5)));
        assert!(seen.insert(draw(42, NoiseAt { channel: 3, ..AT }, 5)));
        assert!(seen.insert(draw(42, NoiseAt { y: 18, ..AT }, 5)));
        assert!(seen.insert(draw(42, AT, 6)));
    }

    #[test]
    fn the_noise_is_standard_normal() {
        let mut values = vec![0.0; 1 << 18];
        let width = 512;
        for (y, row) in values.chunks_mut(width).enumerate() {
            Philox::new(7).fill(NoiseAt { y: y as u32, ..AT }, 0, row);
        }
        let mean_of = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / 262_144.0;
        assert!(mean_of(&|v| v).abs() < 0.01);
        assert!((mean_of(&|v| v * v) - 1.0).abs() < 0.01);
        assert!(mean_of(&|v| v * v * v).abs() < 0.03);
        assert!((mean_of(&|v| v.powi(4)) - 3.0).abs() < 0.06);
        // Neighbours in a row, which share a call, and in a column, which do not.
        let product = |lag: usize| {
            let pairs = values.iter().zip(&values[lag..]);
            pairs.map(|(a, b)| f64::from(a * b)).sum::<f64>() / 262_144.0
        };
        assert!(product(1).abs() < 0.01 && product(2).abs() < 0.01 && product(width).abs() < 0.01);
    }

    /// The bits themselves, so that a machine which rounds differently is found out.
    #[test]
    fn the_bits_are_the_same_everywhere() {
        let mut out = [0.0; 4];
        Philox::new(0).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut out);
        assert_eq!(out.map(f32::to_bits), EXPECTED_BITS);
    }

    const EXPECTED_BITS: [u32; 4] = [1_065_204_529, 3_211_572_912, 3_206_421_407, 3_203_846_579];

    #[test]
    fn the_ends_of_the_uniform_range_are_finite() {
        for radius in [0, 1, u32::MAX] {
            for angle in [0, 1, 1 << 31, u32::MAX] {
                assert!(box_muller(radius, angle).iter().all(|v| v.is_finite() && v.abs() < 7.0));
            }
        }
    }

    #[test]
    fn recorded_noise_is_read_back() {
        let values: Vec<f32> = (0..2 * 2 * 3 * 4).map(|v| v as f32).collect();
        let source = Recorded::new(2, [1, 2, 3, 4], values).unwrap();
        let mut out = [0.0; 2];
        source.fill(NoiseAt { step: 1, batch: 0, channel: 1, y: 2 }, 1, &mut out);
        assert_eq!(out, [45.0, 46.0]);
        assert!(source.covers(2, [1, 2, 3, 4]).is_ok());
        assert!(source.covers(3, [1, 2, 3, 4]).is_err());
        assert!(source.covers(1, [1, 2, 4, 4]).is_err());
        assert!(Recorded::new(2, [1, 2, 3, 4], vec![0.0; 47]).is_err());
    }
}

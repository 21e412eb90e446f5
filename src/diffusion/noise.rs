//! Noise as a function of position: `z(seed, step, batch, channel, y, x)`.
//!
//! A counter-based generator has no state, so tiles, threads, batch sizes and machines generate
//! equal numbers. Tiles have no seams, and a random seed gives one image everywhere.

use ndarray::Array4;

use crate::error::{Error, Result};
use crate::network::Shape;

/// A row of noise: all coordinates but the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseAt {
    /// The step of the plan, or [`INITIAL`](Self::INITIAL).
    pub step: u32,
    /// The sample of the batch, below 65536.
    pub batch: u32,
    /// The channel, below 65536.
    pub channel: u32,
    /// The row of the whole image, not of a tile.
    pub y: u32,
}

impl NoiseAt {
    /// The step index of the initial noise. No plan has this many steps.
    pub const INITIAL: u32 = u32::MAX;
}

/// A source of standard normal noise that depends on the position alone.
pub trait NoiseSource: Sync {
    /// Fills `out` with the noise of row `at`, from column `x` on.
    ///
    /// The value of a pixel does not depend on the segment that contains it. Allocates nothing.
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]);

    /// Checks that there is noise for `steps` steps and a state of `shape`. Called once before a
    /// run.
    ///
    /// # Errors
    /// When there is not, naming what is there and what is needed.
    fn covers(&self, _steps: usize, _shape: Shape) -> Result<()> {
        Ok(())
    }
}

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and a
/// Box-Muller transform.
///
/// The key is the random seed, and the counter is the position. One call gives four adjacent values
/// of a row. The transform uses only f32 addition, multiplication and square root, which every
/// machine rounds alike, so the bits are equal on all machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    /// The noise of random seed `seed`.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32] }
    }

    /// The initial noise of a state of `shape`, `[batch, channels, height, width]`: standard normal
    /// values, the same on every machine. For one sample, it is the noise from which
    /// [`Generator`](crate::task::Generator) starts with that seed.
    pub fn initial(self, shape: Shape) -> Array4<f32> {
        let [_, channels, height, width] = shape;
        let mut noise = Array4::zeros(shape);
        let rows = noise.as_slice_mut().unwrap_or_default().chunks_exact_mut(width.max(1));
        for (i, row) in rows.enumerate() {
            let (plane, y) = (i / height, (i % height) as u32);
            let (batch, channel) = ((plane / channels) as u32, (plane % channels) as u32);
            self.fill(NoiseAt { step: NoiseAt::INITIAL, batch, channel, y }, 0, row);
        }
        noise
    }

    /// The values of columns `4 * quad .. 4 * (quad + LANES)`.
    fn block(&self, at: NoiseAt, quad: u32) -> [f32; 4 * LANES] {
        let counter = [quad, at.y, (at.batch << 16) | (at.channel & 0xffff), at.step];
        let [a, b, c, d] = philox4x32_10(counter, self.key);
        let ([n0, n1], [n2, n3]) = (box_muller(&a, &b), box_muller(&c, &d));
        let mut normals = [0.0; 4 * LANES];
        for (lane, four) in normals.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *four = [n0[lane], n1[lane], n2[lane], n3[lane]];
        }
        normals
    }
}

impl NoiseSource for Philox {
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        // Blocks start at multiples of four columns, so the segment may start inside a quad.
        let skipped = x % 4;
        let mut quad = (x / 4) as u32;
        let (head, body) = out.split_at_mut((4 * LANES - skipped).min(out.len()));
        head.copy_from_slice(&self.block(at, quad)[skipped..skipped + head.len()]);
        for chunk in body.chunks_mut(4 * LANES) {
            quad += LANES as u32;
            chunk.copy_from_slice(&self.block(at, quad)[..chunk.len()]);
        }
    }
}

/// How many counters are computed side by side, so that the compiler can use vector registers.
const LANES: usize = 32;

/// Ten rounds of Philox with a key of two words on [`LANES`] counters of four words. The first
/// words are consecutive.
fn philox4x32_10([first, c1, c2, c3]: [u32; 4], mut key: [u32; 2]) -> [[u32; LANES]; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut words = [
        std::array::from_fn(|lane| first.wrapping_add(lane as u32)),
        [c1; LANES],
        [c2; LANES],
        [c3; LANES],
    ];
    for _ in 0..10 {
        let [w0, w1, w2, w3] = words;
        for lane in 0..LANES {
            let (p0, p1) =
                (MULTIPLIERS[0] * u64::from(w0[lane]), MULTIPLIERS[1] * u64::from(w2[lane]));
            words[0][lane] = (p1 >> 32) as u32 ^ w1[lane] ^ key[0];
            words[1][lane] = p1 as u32;
            words[2][lane] = (p0 >> 32) as u32 ^ w3[lane] ^ key[1];
            words[3][lane] = p0 as u32;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    words
}

/// Two independent normal values from each two uniform words (Box and Muller 1958).
fn box_muller(radius: &[u32; LANES], angle: &[u32; LANES]) -> [[f32; LANES]; 2] {
    let mut normals = [[0.0; LANES]; 2];
    for lane in 0..LANES {
        // In (0, 1]: never zero, so the logarithm is finite. The largest radius is 6.76.
        let uniform = (radius[lane] as f32 + 0.5) * (1.0 / 4_294_967_296.0);
        // Rounding can give a tiny negative value where the logarithm is near zero.
        let radius = (-2.0 * ln(uniform)).max(0.0).sqrt();
        let [sin, cos] = sin_cos(angle[lane]);
        normals[0][lane] = radius * cos;
        normals[1][lane] = radius * sin;
    }
    normals
}

/// The natural logarithm of a positive normal number, to about an ulp (the polynomial of Cephes'
/// `logf`, Moshier 1989). Branch-free, so that it vectorizes.
#[inline]
fn ln(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_87e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // x = m * 2^e with m in [1/2, 1), then in [sqrt(1/2), sqrt(2)).
    let bits = x.to_bits();
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let is_low = m < std::f32::consts::FRAC_1_SQRT_2;
    let e = ((bits >> 23) as i32 - 126) as f32 - if is_low { 1.0 } else { 0.0 };
    let m = (m - 1.0) + if is_low { m } else { 0.0 };
    let square = m * m;
    let tail = P.iter().fold(0.0, |sum, p| sum * m + p) * m * square;
    // ln 2 in two parts. The first has few bits, so that its product with the exponent is exact.
    let low = tail - 2.121_944_4e-4 * e - 0.5 * square;
    (m + low) + 0.693_359_4 * e
}

/// Sine and cosine of `angle / 2^32` turns (the polynomials of Cephes' `sinf` and `cosf`, Moshier
/// 1989). Branch-free.
#[inline]
fn sin_cos(angle: u32) -> [f32; 2] {
    // The nearest quarter turn, and the remainder of at most an eighth of a turn either way.
    let quarter = angle.wrapping_add(1 << 29) >> 30;
    let left = angle.wrapping_sub(quarter << 30).cast_signed() as f32
        * (std::f32::consts::FRAC_PI_2 / 1_073_741_824.0);
    let z = left * left;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * left + left;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let is_odd = quarter & 1 == 1;
    let (s, c) = if is_odd { (cos, sin) } else { (sin, cos) };
    // Sine is negative in the lower half of the circle, cosine in the left half.
    let sign = |negative: u32| (negative & 2) << 30;
    [f32::from_bits(s.to_bits() ^ sign(quarter)), f32::from_bits(c.to_bits() ^ sign(quarter + 1))]
}

/// Noise that was recorded by another program: an array `[steps, batch, channels, height, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    steps: usize,
    shape: Shape,
    values: Vec<f32>,
}

impl Recorded {
    /// Takes the noise of `steps` steps for a state of `shape`, dense, in row order.
    ///
    /// # Errors
    /// When the number of values does not match.
    pub fn new(steps: usize, shape: Shape, values: Vec<f32>) -> Result<Self> {
        let needed = steps * shape.iter().product::<usize>();
        if values.len() != needed {
            return Err(Error::usage(format!(
                "recorded noise of shape [{steps}, {shape:?}] needs {needed} values, but there are \
                 {}",
                values.len()
            )));
        }
        Ok(Self { steps, shape, values })
    }
}

impl NoiseSource for Recorded {
    /// # Panics
    /// Outside the recorded range; call [`covers`](NoiseSource::covers) first.
    fn fill(&self, at: NoiseAt, x: usize, out: &mut [f32]) {
        let [batch, channels, height, width] = self.shape;
        let row = ((at.step as usize * batch + at.batch as usize) * channels + at.channel as usize)
            * height;
        let start = (row + at.y as usize) * width + x;
        out.copy_from_slice(&self.values[start..start + out.len()]);
    }

    fn covers(&self, steps: usize, shape: Shape) -> Result<()> {
        if self.shape == shape && self.steps >= steps {
            return Ok(());
        }
        Err(Error::usage(format!(
            "this run reads {steps} steps of noise of shape {shape:?}, but {} of shape {:?} were \
             recorded: hand in an array of shape [steps, batch, channels, height, width]",
            self.steps, self.shape
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        LANES, NoiseAt, NoiseSource, Philox, Recorded, box_muller, ln, philox4x32_10, sin_cos,
    };

    /// The known answers published with Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn matches_the_known_answers_of_random123() {
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
            assert_eq!(philox4x32_10(counter, key).map(|word| word[0]), expected);
            // Each lane is a call with the next counter.
            let [first, rest @ ..] = counter;
            for lane in 0..LANES {
                let next = [first.wrapping_add(lane as u32), rest[0], rest[1], rest[2]];
                let alone = philox4x32_10(next, key).map(|word| word[0]);
                assert_eq!(philox4x32_10(counter, key).map(|word| word[lane]), alone);
            }
        }
    }

    const AT: NoiseAt = NoiseAt { step: 3, batch: 1, channel: 2, y: 17 };

    #[test]
    fn noise_of_a_pixel_does_not_depend_on_the_segment() {
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
    fn noise_depends_on_every_coordinate() {
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
    fn noise_is_standard_normal() {
        let mut values = vec![0.0; 1 << 18];
        let width = 512;
        for (y, row) in values.chunks_mut(width).enumerate() {
            Philox::new(7).fill(NoiseAt { y: y as u32, ..AT }, 0, row);
        }
        let mean_of = |f: &dyn Fn(f64) -> f64| {
            values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / 262_144.0
        };
        assert!(mean_of(&|v| v).abs() < 0.01);
        assert!((mean_of(&|v| v * v) - 1.0).abs() < 0.01);
        assert!(mean_of(&|v| v * v * v).abs() < 0.03);
        assert!((mean_of(&|v| v.powi(4)) - 3.0).abs() < 0.06);
        // Neighbors in a row share a call; neighbors in a column do not.
        let product = |lag: usize| {
            let pairs = values.iter().zip(&values[lag..]);
            pairs.map(|(a, b)| f64::from(a * b)).sum::<f64>() / 262_144.0
        };
        assert!(product(1).abs() < 0.01 && product(2).abs() < 0.01 && product(width).abs() < 0.01);
    }

    /// Compares bits, to detect machines that round differently.
    #[test]
    fn bits_equal_recorded_bits() {
        let mut out = [0.0; 1000];
        Philox::new(0).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut out);
        let bits = out.map(f32::to_bits);
        assert_eq!(bits[..4], EXPECTED_BITS);
        assert_eq!(
            bits.iter().fold(0, |hash: u32, bits| hash.rotate_left(5) ^ bits),
            EXPECTED_HASH
        );
    }

    const EXPECTED_BITS: [u32; 4] = [1_065_204_529, 3_211_572_912, 3_206_421_407, 3_203_846_578];
    const EXPECTED_HASH: u32 = 3_984_302_546;

    #[test]
    fn logarithm_sine_and_cosine_match_std() {
        for i in 0..200_000_u32 {
            let word = i.wrapping_mul(0x9E37_79B9);
            let x = (word as f32 + 0.5) / 4_294_967_296.0;
            let expected = f64::from(x).ln();
            assert!(
                (f64::from(ln(x)) - expected).abs() <= 2e-7 * expected.abs().max(1e-3),
                "ln {x}: {}",
                ln(x)
            );
            let (sin, cos) = (f64::from(word) * std::f64::consts::TAU / 4_294_967_296.0).sin_cos();
            let [found_sin, found_cos] = sin_cos(word).map(f64::from);
            assert!(
                (found_sin - sin).abs() < 2e-7 && (found_cos - cos).abs() < 2e-7,
                "{word}: {found_sin} {found_cos}"
            );
        }
    }

    #[test]
    fn noise_is_finite_at_both_ends_of_the_uniform_range() {
        for radius in [0, 1, u32::MAX] {
            for angle in [0, 1, 1 << 31, u32::MAX] {
                let normals = box_muller(&[radius; LANES], &[angle; LANES]);
                assert!(normals.iter().all(|n| n[0].is_finite() && n[0].abs() < 7.0));
            }
        }
    }

    #[test]
    fn recorded_noise_reads_back() {
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

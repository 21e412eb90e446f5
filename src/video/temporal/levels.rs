//! Learns the distribution of differences between frames in static areas from the frames
//! themselves.
//!
//! Noise that passed through a camera's image processor and an encoder does not have one level: it
//! depends on brightness and texture, and some blocks have far more of it than others. In a mostly
//! static scene, the typical difference of blocks of one brightness and texture is noise, and the
//! spread between blocks determines the limit for outliers.

/// Histogram of energies from 2^-10 to 2^6, with this many bins per octave.
const PARTS: usize = 8;
const LOWEST: f32 = -10.0;
const OCTAVES: usize = 16;
const BUCKETS: usize = OCTAVES * PARTS;

/// Classes of blocks, by brightness and by texture.
const BRIGHTNESSES: usize = 6;
const TEXTURES: usize = 3;
const CLASSES: usize = BRIGHTNESSES * TEXTURES;

/// Weight of the previous frames' histogram with each new frame.
const HISTOGRAM_DECAY: f32 = 0.75;

/// A class with fewer blocks than this uses the statistics of all blocks.
const MIN_BLOCKS: f32 = 200.0;

/// The rise of energies from the median to this quantile, to the power of `TAIL_EXPONENT`, gives
/// the ratio of the largest noise energy to the median.
const UPPER_QUANTILE: f32 = 0.7;
const TAIL_EXPONENT: f32 = 8.0;

/// Bounds of a level, relative to the energy of noise of the known level. An energy above
/// `OUTLIER_ENERGY` in these units, or by that factor above the level of its class, is not noise,
/// however much blocks differ.
const MIN_LEVEL: f32 = 0.15;
const MAX_LEVEL: f32 = 5.0;
const OUTLIER_ENERGY: f32 = 4.5;
const OUTLIER_TO_LEVEL: f32 = 2.6;

/// Upper limit of the median of all blocks that is attributed to noise.
const MAX_MEDIAN: f32 = 1.5;

/// Energy of differences in a class: the typical one, and the largest that counts as noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::video) struct ClassLimits {
    pub(in crate::video) level: f32,
    pub(in crate::video) limit: f32,
}

/// Histograms of energies, relative to those of noise of the known level.
pub(in crate::video) struct Levels {
    /// Histogram of energies for each class.
    histograms: Vec<[f32; BUCKETS]>,
    /// Least ratio of the limit to the level.
    min_limit: f32,
    limits: [ClassLimits; CLASSES],
}

impl Levels {
    /// For energies that noise alone raises to at most `min_limit` times its level.
    pub(in crate::video) fn new(min_limit: f32) -> Self {
        Self {
            histograms: vec![[0.0; BUCKETS]; CLASSES],
            min_limit,
            limits: [ClassLimits { level: 1.0, limit: min_limit }; CLASSES],
        }
    }

    /// Clears the histograms.
    pub(in crate::video) fn clear(&mut self) {
        self.histograms.iter_mut().for_each(|histogram| histogram.fill(0.0));
    }

    /// Learns from the energies of a frame's blocks, whose classes are `classes`. In a scene that
    /// is known to be static, the energy of most blocks is noise, even where its level was
    /// underestimated.
    pub(in crate::video) fn learn(
        &mut self,
        energies: &[f32],
        classes: impl Iterator<Item = u8>,
        is_still: bool,
    ) {
        self.histograms.iter_mut().flatten().for_each(|count| *count *= HISTOGRAM_DECAY);
        for (energy, class) in energies.iter().zip(classes) {
            let at = (energy.max(f32::MIN_POSITIVE).log2() - LOWEST) * PARTS as f32;
            self.histograms[usize::from(class)][(at.max(0.0) as usize).min(BUCKETS - 1)] += 1.0;
        }
        let mut all = [0.0; BUCKETS];
        for histogram in &self.histograms {
            all.iter_mut().zip(histogram).for_each(|(sum, count)| *sum += count);
        }
        // Noise of known level gives about 1 in most blocks; if the median is far above, most of
        // them move.
        let most = if is_still { MAX_LEVEL } else { MAX_MEDIAN };
        let trusted = (most / quantile(&all, 0.5).max(f32::MIN_POSITIVE)).min(1.0);
        for (histogram, limits) in self.histograms.iter().zip(&mut self.limits) {
            let histogram =
                if histogram.iter().sum::<f32>() < MIN_BLOCKS { &all } else { histogram };
            let [half, upper] = [0.5, UPPER_QUANTILE].map(|part| quantile(histogram, part));
            let level = (trusted * half).clamp(MIN_LEVEL, MAX_LEVEL);
            let tail =
                (upper / half.max(f32::MIN_POSITIVE)).powf(TAIL_EXPONENT).max(self.min_limit);
            *limits = ClassLimits {
                level,
                limit: (level * tail)
                    .min((OUTLIER_TO_LEVEL * level).max(OUTLIER_ENERGY))
                    .max(self.min_limit * level),
            };
        }
    }

    /// The limits of a class.
    pub(in crate::video) fn of(&self, class: u8) -> ClassLimits {
        self.limits[usize::from(class)]
    }
}

/// The class of a block by its brightness, as a part of the full range, and its texture: gradient
/// energy relative to noise.
pub(in crate::video) fn class(brightness: f32, texture: f32) -> u8 {
    let brightness =
        ((brightness.clamp(0.0, 0.999) * BRIGHTNESSES as f32) as usize).min(BRIGHTNESSES - 1);
    let texture = usize::from(texture > 3.0) + usize::from(texture > 12.0);
    (brightness * TEXTURES + texture) as u8
}

/// The energy below which `part` of the histogram lies.
fn quantile(histogram: &[f32; BUCKETS], part: f32) -> f32 {
    let target = part * histogram.iter().sum::<f32>();
    let mut below = 0.0;
    for (bucket, count) in histogram.iter().enumerate() {
        if below + count >= target && *count > 0.0 {
            let inside = (target - below) / count;
            return ((bucket as f32 + inside) / PARTS as f32 + LOWEST).exp2();
        }
        below += count;
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::{Levels, class};

    /// Energies that spread around a level like those of blocks of noise.
    fn energies(level: f32, spread: f32) -> Vec<f32> {
        let draw = |i: usize| ((i * 2_654_435_761) % 10_007) as f32 / 10_007.0 - 0.5;
        (0..4000)
            .map(|i| level * (spread * (draw(i) + draw(7 * i + 3) + draw(13 * i + 5))).exp())
            .collect()
    }

    #[test]
    fn learns_level_and_limit_of_each_class() {
        let (dark, bright) = (class(0.1, 0.5), class(0.9, 40.0));
        let mut levels = Levels::new(1.5);
        let (all, classes) = (
            [energies(2.0, 0.2), energies(0.5, 0.2)].concat(),
            [[dark; 4000], [bright; 4000]].concat(),
        );
        levels.learn(&all, classes.into_iter(), false);
        let (dark, bright) = (levels.of(dark), levels.of(bright));
        assert!(
            (dark.level / 2.0 - 1.0).abs() < 0.1 && (bright.level / 0.5 - 1.0).abs() < 0.1,
            "{dark:?} {bright:?}"
        );
        assert!((1.4..2.0).contains(&(dark.limit / dark.level)), "{dark:?}");
    }

    #[test]
    fn raises_the_level_of_a_static_scene_when_noise_was_underestimated() {
        let [moving, still] = [false, true].map(|is_still| {
            let mut levels = Levels::new(1.5);
            levels.learn(&energies(4.0, 0.2), std::iter::repeat(0), is_still);
            levels.of(0)
        });
        assert!(moving.limit < 3.0 && still.limit > 4.4, "{moving:?} {still:?}");
    }

    #[test]
    fn widens_the_limit_with_the_spread_up_to_a_bound() {
        let mut levels = Levels::new(1.5);
        levels.learn(&energies(0.3, 2.0), std::iter::repeat(0), false);
        let wide = levels.of(0);
        assert!(wide.limit > 2.0 * wide.level && wide.limit <= 4.5, "{wide:?}");
        levels.clear();
        levels.learn(&energies(50.0, 2.0), std::iter::repeat(0), false);
        assert!(levels.of(0).limit < 5.0, "motion everywhere is not noise: {:?}", levels.of(0));
    }
}

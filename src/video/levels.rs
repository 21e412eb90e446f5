//! What differences between frames are when nothing moves, learnt from the frames themselves.
//!
//! Noise that came through a processor and an encoder is not what one level says: it differs by brightness and by texture, and some
//! blocks get far more of it than others. Where most of a scene stands still, what most of the blocks of one brightness and texture
//! show is noise, and how much they differ among each other says how much more is nothing strange.

/// Octaves of energy that are told apart, each in so many parts: from 2^-10 to 2^6.
const PARTS: usize = 8;
const LOWEST: f32 = -10.0;
const OCTAVES: usize = 16;
const BUCKETS: usize = OCTAVES * PARTS;

/// Kinds of blocks: by brightness, and by texture.
const BRIGHTNESSES: usize = 6;
const TEXTURES: usize = 3;
const KINDS: usize = BRIGHTNESSES * TEXTURES;

/// What remains of what was seen with each frame.
const MEMORY: f32 = 0.75;

/// A kind of which fewer blocks were seen is taken for what all are.
const FEWEST: f32 = 200.0;

/// From the half to this part of the blocks, energies rise by as much as noise makes them rise, and by so many times that (as a power)
/// up to the most that noise ever makes.
const UPPER: f32 = 0.7;
const TAIL: f32 = 8.0;

/// A level is within these bounds, in what the noise's known deviation makes of nothing; what is more than `STRANGE` of that, or so
/// many times the kind's own level, is no noise, however much blocks differ.
const LEAST: f32 = 0.15;
const MOST: f32 = 5.0;
const STRANGE: f32 = 4.5;
const OF_LEVEL: f32 = 2.6;

/// The most that half of all blocks are taken to show of noise.
const TRUSTED: f32 = 1.5;

/// The energy of a kind's differences: the usual one, and what is still noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Normal {
    pub(super) level: f32,
    pub(super) limit: f32,
}

/// Energies that were seen, as parts of what noise of the known level makes of nothing.
pub(super) struct Levels {
    /// For each kind, how often each energy was seen.
    seen: Vec<[f32; BUCKETS]>,
    /// How far above its level anything may be without being strange, at least.
    chance: f32,
    normals: [Normal; KINDS],
}

impl Levels {
    /// For energies that noise alone makes `chance` times its level at most.
    pub(super) fn new(chance: f32) -> Self {
        Self { seen: vec![[0.0; BUCKETS]; KINDS], chance, normals: [Normal { level: 1.0, limit: chance }; KINDS] }
    }

    /// Forgets what was seen.
    pub(super) fn clear(&mut self) {
        self.seen.iter_mut().for_each(|seen| seen.fill(0.0));
    }

    /// Takes in the energies of a frame's blocks, of which `kinds` are the kinds. Of a scene that is known to stand still, what most of
    /// them show is noise, even where its level was read too low.
    pub(super) fn learn(&mut self, energies: &[f32], kinds: impl Iterator<Item = u8>, is_still: bool) {
        self.seen.iter_mut().flatten().for_each(|count| *count *= MEMORY);
        for (energy, kind) in energies.iter().zip(kinds) {
            let at = (energy.max(f32::MIN_POSITIVE).log2() - LOWEST) * PARTS as f32;
            self.seen[usize::from(kind)][(at.max(0.0) as usize).min(BUCKETS - 1)] += 1.0;
        }
        let mut all = [0.0; BUCKETS];
        for seen in &self.seen {
            all.iter_mut().zip(seen).for_each(|(sum, count)| *sum += count);
        }
        // Noise whose level is known makes about 1 of most blocks; where it is far more, most of them move.
        let most = if is_still { MOST } else { TRUSTED };
        let trusted = (most / quantile(&all, 0.5).max(f32::MIN_POSITIVE)).min(1.0);
        for (seen, normal) in self.seen.iter().zip(&mut self.normals) {
            let seen = if seen.iter().sum::<f32>() < FEWEST { &all } else { seen };
            let [half, upper] = [0.5, UPPER].map(|part| quantile(seen, part));
            let level = (trusted * half).clamp(LEAST, MOST);
            let tail = (upper / half.max(f32::MIN_POSITIVE)).powf(TAIL).max(self.chance);
            *normal =
                Normal { level, limit: (level * tail).min((OF_LEVEL * level).max(STRANGE)).max(self.chance * level) };
        }
    }

    /// What is normal for a kind.
    pub(super) fn of(&self, kind: u8) -> Normal {
        self.normals[usize::from(kind)]
    }
}

/// The kind of a block of a brightness, a part of the full range, and of a texture: the energy of its gradient over that of noise.
pub(super) fn kind(brightness: f32, texture: f32) -> u8 {
    let brightness = ((brightness.clamp(0.0, 0.999) * BRIGHTNESSES as f32) as usize).min(BRIGHTNESSES - 1);
    let texture = usize::from(texture > 3.0) + usize::from(texture > 12.0);
    (brightness * TEXTURES + texture) as u8
}

/// The energy below which a part of what was seen lies.
fn quantile(seen: &[f32; BUCKETS], part: f32) -> f32 {
    let wanted = part * seen.iter().sum::<f32>();
    let mut below = 0.0;
    for (bucket, count) in seen.iter().enumerate() {
        if below + count >= wanted && *count > 0.0 {
            let inside = (wanted - below) / count;
            return ((bucket as f32 + inside) / PARTS as f32 + LOWEST).exp2();
        }
        below += count;
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::{Levels, kind};

    /// Energies spread around a level as numbers of so many samples are.
    fn energies(level: f32, spread: f32) -> Vec<f32> {
        let draw = |i: usize| ((i * 2_654_435_761) % 10_007) as f32 / 10_007.0 - 0.5;
        (0..4000).map(|i| level * (spread * (draw(i) + draw(7 * i + 3) + draw(13 * i + 5))).exp()).collect()
    }

    #[test]
    fn learns_the_level_of_each_kind_and_what_is_more_than_noise() {
        let (dark, bright) = (kind(0.1, 0.5), kind(0.9, 40.0));
        let mut levels = Levels::new(1.5);
        let (all, kinds) = ([energies(2.0, 0.2), energies(0.5, 0.2)].concat(), [[dark; 4000], [bright; 4000]].concat());
        levels.learn(&all, kinds.into_iter(), false);
        let (dark, bright) = (levels.of(dark), levels.of(bright));
        assert!((dark.level / 2.0 - 1.0).abs() < 0.1 && (bright.level / 0.5 - 1.0).abs() < 0.1, "{dark:?} {bright:?}");
        assert!((1.4..2.0).contains(&(dark.limit / dark.level)), "{dark:?}");
    }

    #[test]
    fn what_most_show_of_a_scene_at_rest_is_noise_that_was_read_too_low() {
        let [moving, still] = [false, true].map(|is_still| {
            let mut levels = Levels::new(1.5);
            levels.learn(&energies(4.0, 0.2), std::iter::repeat(0), is_still);
            levels.of(0)
        });
        assert!(moving.limit < 3.0 && still.limit > 4.4, "{moving:?} {still:?}");
    }

    #[test]
    fn what_differs_a_lot_is_given_more_room_but_not_any() {
        let mut levels = Levels::new(1.5);
        levels.learn(&energies(0.3, 2.0), std::iter::repeat(0), false);
        let wide = levels.of(0);
        assert!(wide.limit > 2.0 * wide.level && wide.limit <= 4.5, "{wide:?}");
        levels.clear();
        levels.learn(&energies(50.0, 2.0), std::iter::repeat(0), false);
        assert!(levels.of(0).limit < 5.0, "motion all over is no noise: {:?}", levels.of(0));
    }
}

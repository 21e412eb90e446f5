//! Bicubic enlargement of a plane by an integer factor.

use crate::tensor::mirror;

/// Samples per interpolated value, along each axis.
const TAPS: usize = 4;

/// Keys' cubic (1981, "Cubic convolution interpolation", equation 15, a = -1/2), the usual bicubic
/// filter. Border samples are repeated.
#[derive(Clone, Debug)]
pub(super) struct Bicubic {
    /// For each output of a sample along an axis: the first tap, relative to two samples before,
    /// and the weights.
    phases: Vec<(usize, [f32; TAPS])>,
}

impl Bicubic {
    /// Enlargement by `scale`, at least 1, along each axis.
    pub(super) fn new(scale: usize) -> Self {
        let phases = (0..scale).map(|phase| {
            // Position of the output's center relative to the sample's.
            let at = (phase as f64 + 0.5) / scale as f64 - 0.5;
            let first = at.floor() - 1.0;
            let weights = std::array::from_fn(|tap| keys(at - first - tap as f64) as f32);
            ((first + 2.0) as usize, weights)
        });
        Self { phases: phases.collect() }
    }

    /// The enlargement factor.
    pub(super) fn scale(&self) -> usize {
        self.phases.len()
    }

    /// Row `y` of the enlarged `plane`, whose rows have `width` values, from column `x` on. `y`
    /// and the columns may lie beyond the enlarged plane, where it is mirrored. `line` is work
    /// space.
    pub(super) fn row(
        &self,
        plane: &[f32],
        width: usize,
        y: usize,
        x: usize,
        line: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let (scale, height) = (self.scale(), plane.len() / width);
        let y = mirror(y.cast_signed(), height * scale);
        let (first, weights) = self.phases[y % scale];
        // Pads two samples on each side of the row, so that no tap is out of bounds.
        let rows: [&[f32]; TAPS] = std::array::from_fn(|tap| {
            let row = (y / scale + first + tap).saturating_sub(2).min(height - 1);
            &plane[row * width..][..width]
        });
        line.clear();
        line.resize(width + 4, 0.0);
        for (i, value) in line[2..width + 2].iter_mut().enumerate() {
            *value = (0..TAPS).map(|tap| weights[tap] * rows[tap][i]).sum();
        }
        let (left, right) = (line[2], line[width + 1]);
        line[..2].fill(left);
        line[width + 2..].fill(right);
        let inside = (width * scale).saturating_sub(x).min(out.len());
        let (within, beyond) = out.split_at_mut(inside);
        let (mut sample, mut phase) = (x / scale, x % scale);
        for value in within {
            *value = self.mix(line, sample, phase);
            phase += 1;
            if phase == scale {
                (sample, phase) = (sample + 1, 0);
            }
        }
        for (x, value) in (x + inside..).zip(beyond) {
            let x = mirror(x.cast_signed(), width * scale);
            *value = self.mix(line, x / scale, x % scale);
        }
    }

    fn mix(&self, line: &[f32], sample: usize, phase: usize) -> f32 {
        let (first, weights) = &self.phases[phase];
        let taps = &line[sample + first..][..TAPS];
        weights.iter().zip(taps).map(|(weight, tap)| weight * tap).sum()
    }
}

/// Keys' cubic at a distance of `t` samples.
pub(crate) fn keys(t: f64) -> f64 {
    let t = t.abs();
    if t < 1.0 {
        (1.5 * t - 2.5) * t * t + 1.0
    } else if t < 2.0 {
        ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::Bicubic;

    fn enlarge(plane: &[f32], width: usize, scale: usize) -> Vec<f32> {
        let bicubic = Bicubic::new(scale);
        let mut out = vec![0.0; plane.len() * scale * scale];
        let mut line = Vec::new();
        for (y, row) in out.chunks_exact_mut(width * scale).enumerate() {
            bicubic.row(plane, width, y, 0, &mut line, row);
        }
        out
    }

    #[test]
    fn matches_published_weights() {
        // A quarter of a pixel from a sample: (-9, 111, 29, -3) / 128.
        let out = enlarge(&[0.0, 0.0, 0.0, 128.0, 0.0, 0.0, 0.0], 7, 2);
        assert_eq!(&out[2..12], [0.0, -3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0, 0.0]);
    }

    #[test]
    fn preserves_ramps_inside() {
        for scale in [2, 3, 4] {
            let plane: Vec<f32> = (0..40).map(|i| (i % 8) as f32 + 10.0 * (i / 8) as f32).collect();
            let out = enlarge(&plane, 8, scale);
            for y in 2 * scale..3 * scale {
                for x in 2 * scale..6 * scale {
                    let at = |i: usize| (i as f32 + 0.5) / scale as f32 - 0.5;
                    let expected = at(x) + 10.0 * at(y);
                    assert!((out[y * 8 * scale + x] - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn window_equals_part_of_the_whole_and_mirrors_beyond() {
        let plane: Vec<f32> = (0..35).map(|i| ((i * i) % 17) as f32).collect();
        let whole = enlarge(&plane, 7, 2);
        let (bicubic, mut line, mut out) = (Bicubic::new(2), Vec::new(), [0.0; 6]);
        bicubic.row(&plane, 7, 3, 5, &mut line, &mut out);
        assert_eq!(out, whole[3 * 14 + 5..][..6]);
        bicubic.row(&plane, 7, 10, 11, &mut line, &mut out);
        let row = &whole[8 * 14..][..14];
        assert_eq!(out, [row[11], row[12], row[13], row[12], row[11], row[10]]);
    }
}

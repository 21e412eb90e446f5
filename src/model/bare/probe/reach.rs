//! The receptive field of a network and the grid of its strides.

use std::time::{Duration, Instant};

use super::{Normalization, Probe, SIGMA};
use crate::error::Result;
use crate::machine;
use crate::model::bare::test_image::TestImage;
use crate::model::manifest::Manifest;

/// The largest side of an image for measuring the receptive field.
const MAX_SIDE: usize = 512;
/// No larger image is tried after a measurement that took longer.
const MAX_TIME: Duration = Duration::from_secs(2);

impl Probe<'_> {
    /// Measures the receptive field by perturbing single pixels, and the grid of strides by
    /// shifting an image.
    pub(super) fn detect_receptive_field(
        &mut self,
        manifest: &mut Manifest,
        side: usize,
    ) -> Result<()> {
        if let Some(field) = self.description.receptive_field {
            manifest.receptive_field = Some(field);
        }
        let normalization = Normalization {
            range: manifest.range,
            mean: manifest.mean.clone(),
            std: manifest.std.clone(),
        };
        let noise_encoding = manifest.noise_encoding();
        let span = f64::from(manifest.range[1] - manifest.range[0]);
        let level = noise_encoding.value(f64::from(SIGMA) * span);
        let (multiple, scale) = (manifest.multiple_of, manifest.scale);
        let mut size = self.size.unwrap_or([side; 2]);
        let before = machine::resident_memory();
        let mut field = None;
        loop {
            let begun = Instant::now();
            let Some(found) = self.measure_reach(size, multiple, &normalization, level, scale)?
            else {
                break;
            };
            if found + 1 < size[0].min(size[1]) / 2 - multiple.min(size[0] / 4) {
                field = Some(found);
                break;
            }
            let larger = size.map(|side| 2 * side);
            if self.size.is_some() || larger[0] > MAX_SIDE || begun.elapsed() > MAX_TIME {
                break;
            }
            size = larger;
        }
        let used = machine::resident_memory().saturating_sub(before);
        let per_pixel = usize::try_from(used).unwrap_or(usize::MAX) / (size[0] * size[1]);
        if size[0] * size[1] >= 128 * 128 && per_pixel > 0 {
            manifest.bytes_per_pixel = Some((per_pixel + per_pixel / 4).clamp(64, 1 << 24));
        }
        if self.description.receptive_field.is_some() {
            return Ok(());
        }
        let Some(field) = field else {
            self.record(
                "name",
                "no receptive field: changing one pixel changes the output up to the border, so tiles are blended over their \
                 seams",
            );
            return Ok(());
        };
        match self.detect_grid(size, field, multiple, &normalization, level, scale)? {
            Some(grid) if lcm(grid, multiple) > multiple && !self.has_size_of(grid) => {
                manifest.grid = Some(lcm(grid, multiple));
                manifest.receptive_field = Some(field);
                self.record("grid", format!("it pads the image to a grid of {grid} pixels by itself"));
                self.record(
                    "receptive_field",
                    format!("changing one pixel changes the output up to {field} pixels away"),
                );
            }
            Some(grid) => {
                manifest.multiple_of = lcm(grid, multiple);
                manifest.receptive_field = Some(field);
                self.record(
                    "receptive_field",
                    format!("changing one pixel changes the output up to {field} pixels away"),
                );
            }
            None => self.record(
                "name",
                "no receptive field: it is not shift-equivariant, so tiles are blended over their seams",
            ),
        }
        Ok(())
    }

    /// Whether the network has a fixed size that is a multiple of `grid` pixels.
    fn has_size_of(&self, grid: usize) -> bool {
        self.size.is_some_and(|size| size.iter().all(|side| side.is_multiple_of(grid)))
    }

    /// The largest distance at which perturbing a pixel changes the output, in input pixels. `None`
    /// if the network does not accept the size.
    fn measure_reach(
        &mut self,
        size: [usize; 2],
        multiple: usize,
        normalization: &Normalization,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        let [width, height] = size;
        let phases: Vec<usize> = match multiple {
            1 => vec![0],
            2..=8 => (0..multiple).collect(),
            _ => vec![0, 1, multiple / 2, multiple - 1],
        };
        let mut reach = 0;
        for image in [TestImage::noise(size), TestImage::photograph(size, [0, 0])] {
            let Some(base) = self.run(&image, normalization, level)? else { return Ok(None) };
            let (base, [out_width, _]) = self.planes(base)?;
            let threshold = change_threshold(&base);
            for &phase in &phases {
                let (x, y) = (
                    (width / 2) / multiple * multiple + phase,
                    (height / 2) / multiple * multiple + phase,
                );
                let (x, y) = (x.min(width - 1), y.min(height - 1));
                let mut perturbed = image.clone();
                for plane in perturbed.planes.chunks_exact_mut(width * height) {
                    let value = &mut plane[y * width + x];
                    *value = if *value < 0.5 { 1.0 } else { 0.0 };
                }
                let Some(changed) = self.run(&perturbed, normalization, level)? else {
                    return Ok(None);
                };
                let (changed, _) = self.planes(changed)?;
                let area = (out_width * height * scale).max(1);
                for (i, _) in base
                    .iter()
                    .zip(&changed)
                    .enumerate()
                    // A NaN counts as a change.
                    .filter(|(_, (a, b))| (*a - *b).is_nan() || (*a - *b).abs() > threshold)
                {
                    let (row, column) = ((i % area) / out_width / scale, i % out_width / scale);
                    reach = reach.max(row.abs_diff(y)).max(column.abs_diff(x));
                }
            }
        }
        Ok(Some(reach))
    }

    /// The smallest shift of an image to which the network is equivariant, a power of two or such a
    /// multiple of what sides have to be multiples of.
    fn detect_grid(
        &mut self,
        size: [usize; 2],
        field: usize,
        multiple: usize,
        normalization: &Normalization,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        let [width, height] = size;
        let Some(base) = self.run(&TestImage::photograph(size, [0, 0]), normalization, level)?
        else {
            return Ok(None);
        };
        let (base, [out_width, out_height]) = self.planes(base)?;
        let threshold = 100.0 * change_threshold(&base);
        let largest = (width.min(height) / 2).saturating_sub(field + 2);
        let powers = (0..=largest.checked_ilog2().unwrap_or_default()).map(|power| 1 << power);
        let mut shifts: Vec<usize> = powers.flat_map(|power| [power, power * multiple]).collect();
        shifts.retain(|shift| *shift <= largest);
        shifts.sort_unstable();
        shifts.dedup();
        for shift in shifts {
            let shifted = TestImage::photograph(size, [shift, shift]);
            let Some(moved) = self.run(&shifted, normalization, level)? else { return Ok(None) };
            let (moved, _) = self.planes(moved)?;
            let inside = |side: usize| scale * (field + 1)..scale * (side - field - shift - 1);
            let by = scale * shift;
            let is_equal = (0..self.channels).all(|plane| {
                let at = |x: usize, y: usize| (plane * out_height + y) * out_width + x;
                inside(height).all(|y| {
                    inside(width)
                        .all(|x| (base[at(x + by, y + by)] - moved[at(x, y)]).abs() <= threshold)
                })
            });
            if is_equal {
                return Ok(Some(shift));
            }
        }
        Ok(None)
    }
}

/// Output values that differ by more than this count as changed.
fn change_threshold(values: &[f32]) -> f32 {
    let largest = values.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    1e-6 * largest.max(1e-3)
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b).max(1) * b
}

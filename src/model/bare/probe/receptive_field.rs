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
            let started = Instant::now();
            let Some(found) = self.measure_reach(size, multiple, &normalization, level, scale)?
            else {
                break;
            };
            if found + 1 < size[0].min(size[1]) / 2 - multiple.min(size[0] / 4) {
                field = Some(found);
                break;
            }
            let larger = size.map(|side| 2 * side);
            if self.size.is_some() || larger[0] > MAX_SIDE || started.elapsed() > MAX_TIME {
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
                "no receptive field: changing one pixel changes the output up to the border, so \
                 tiles are blended over their seams",
            );
            manifest.grid = self.assumed_grid(multiple);
            return Ok(());
        };
        let equivariant = self.detect_grid(size, field, multiple, &normalization, level, scale)?;
        let equivariant = equivariant.map(|grid| lcm(grid, multiple));
        let Some(grid) = equivariant else {
            self.record(
                "name",
                "no receptive field: it is not shift-equivariant, so tiles are blended over their seams",
            );
            manifest.grid = self.assumed_grid(multiple);
            return Ok(());
        };
        // A network that rejects other sizes does not pad.
        let is_strict = grid == multiple && multiple > 1;
        let padded = if is_strict || self.has_size_of(grid) {
            Some(grid)
        } else {
            self.detect_padding(size, field, grid, &normalization, level, scale)?
        };
        match padded {
            Some(padded) if padded == multiple || self.size.is_some() => {
                manifest.multiple_of = padded;
            }
            Some(padded) => {
                manifest.grid = Some(padded);
                let text = format!("it pads the image to a multiple of {padded} pixels itself");
                self.record("grid", text);
            }
            None => {
                self.record(
                    "name",
                    "no receptive field: it pads the image by itself, to an unknown grid, so tiles are blended over \
                     their seams",
                );
                manifest.grid = self.assumed_grid(multiple);
                return Ok(());
            }
        }
        manifest.receptive_field = Some(field);
        self.record(
            "receptive_field",
            format!("changing one pixel changes the output up to {field} pixels away"),
        );
        Ok(())
    }

    /// The grid of tiles of a network that may pad an image to a grid of its own: what most such
    /// grids divide.
    fn assumed_grid(&self, multiple: usize) -> Option<usize> {
        const COMMON_GRID: usize = 64;
        (self.size.is_none() && COMMON_GRID.is_multiple_of(multiple)).then_some(COMMON_GRID)
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
        let largest = (width.min(height) / 2).saturating_sub(field + 2);
        let powers = (0..=largest.checked_ilog2().unwrap_or_default()).map(|power| 1 << power);
        let mut shifts: Vec<usize> = powers.flat_map(|power| [power, power * multiple]).collect();
        shifts.retain(|shift| *shift <= largest);
        shifts.sort_unstable();
        shifts.dedup();
        let images = |shift| {
            let base = TestImage::photograph(size, [0, 0]);
            [base, TestImage::photograph(size, [shift, shift])]
        };
        for shift in shifts {
            // The borders of both images are elsewhere.
            let end = field + shift + 1;
            if self.is_equal(images(shift), shift, [field, end], normalization, level, scale)? {
                return Ok(Some(shift));
            }
        }
        Ok(None)
    }

    /// The smallest multiple of `grid` by which an image may grow at its beginning without a change
    /// at its end: of a network that pads images at their ends to multiples of a number.
    fn detect_padding(
        &mut self,
        size: [usize; 2],
        field: usize,
        grid: usize,
        normalization: &Normalization,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        /// No usual network pads to more.
        const MOST: usize = 128;
        let mut shift = grid;
        while shift <= MOST {
            let images = [
                TestImage::photograph(size.map(|side| side + shift), [0, 0]),
                TestImage::photograph(size, [shift, shift]),
            ];
            if self.is_equal(images, shift, [field, 0], normalization, level, scale)? {
                return Ok(Some(shift));
            }
            shift *= 2;
        }
        Ok(None)
    }

    /// Whether the output for the second image is that for the first, shifted, except for this many
    /// pixels at the beginning and at the end.
    fn is_equal(
        &mut self,
        [base, moved]: [TestImage; 2],
        shift: usize,
        [first, last]: [usize; 2],
        normalization: &Normalization,
        level: f64,
        scale: usize,
    ) -> Result<bool> {
        let [width, height] = [moved.width, moved.height];
        let (Some(base), Some(moved)) =
            (self.run(&base, normalization, level)?, self.run(&moved, normalization, level)?)
        else {
            return Ok(false);
        };
        let (base, [base_width, base_height]) = self.planes(base)?;
        let (moved, [out_width, out_height]) = self.planes(moved)?;
        let threshold = 100.0 * change_threshold(&base);
        let by = scale * shift;
        let inside = |side: usize| scale * (first + 1)..scale * (side - last);
        let is_equal = (0..self.channels).all(|plane| {
            let from = |x: usize, y: usize| (plane * base_height + y + by) * base_width + x + by;
            let to = |x: usize, y: usize| (plane * out_height + y) * out_width + x;
            inside(height).all(|y| {
                inside(width).all(|x| (base[from(x, y)] - moved[to(x, y)]).abs() <= threshold)
            })
        });
        Ok(is_equal)
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

//! How far a network looks, and on which grid it works.

use std::time::{Duration, Instant};

use super::{Probe, Reading, SIGMA};
use crate::error::Result;
use crate::machine;
use crate::model::bare::picture::Picture;
use crate::model::manifest::Manifest;

/// The largest image on which the receptive field is looked for.
const LARGEST: usize = 512;
/// The time after which no larger image is tried.
const LONG: Duration = Duration::from_secs(2);

impl Probe<'_> {
    /// Finds out how far the network looks, by changing single pixels, and on which grid it works,
    /// by shifting an image.
    pub(super) fn locate(&mut self, manifest: &mut Manifest, side: usize) -> Result<()> {
        if let Some(field) = self.said.receptive_field {
            manifest.receptive_field = Some(field);
        }
        let reading = Reading {
            range: manifest.range,
            mean: manifest.mean.clone(),
            std: manifest.std.clone(),
        };
        let told = manifest.told_as();
        let span = f64::from(manifest.range[1] - manifest.range[0]);
        let level = told.value(f64::from(SIGMA) * span);
        let (multiple, scale) = (manifest.multiple_of, manifest.scale);
        let mut size = self.size.unwrap_or([side; 2]);
        let before = machine::resident_memory();
        let mut field = None;
        loop {
            let begun = Instant::now();
            let Some(found) = self.field(size, multiple, &reading, level, scale)? else { break };
            if found + 1 < size[0].min(size[1]) / 2 - multiple.min(size[0] / 4) {
                field = Some(found);
                break;
            }
            let larger = size.map(|side| 2 * side);
            if self.size.is_some() || larger[0] > LARGEST || begun.elapsed() > LONG {
                break;
            }
            size = larger;
        }
        let used = machine::resident_memory().saturating_sub(before);
        let per_pixel = usize::try_from(used).unwrap_or(usize::MAX) / (size[0] * size[1]);
        if size[0] * size[1] >= 128 * 128 && per_pixel > 0 {
            manifest.bytes_per_pixel = Some((per_pixel + per_pixel / 4).clamp(64, 1 << 24));
        }
        if self.said.receptive_field.is_some() {
            return Ok(());
        }
        let Some(field) = field else {
            self.find(
                "name",
                "no receptive field: a change of one pixel reaches the border, so tiles are blended over their seams",
            );
            return Ok(());
        };
        match self.grid(size, field, &reading, level, scale)? {
            Some(grid) if lcm(grid, multiple) > multiple && !self.has_size_of(grid) => {
                // Its padding depends on the size of a tile.
                self.find(
                    "name",
                    format!(
                        "no receptive field: it works on a grid of {grid} pixels and pads by itself, so tiles are \
                         blended over their seams"
                    ),
                );
            }
            Some(grid) => {
                manifest.multiple_of = lcm(grid, multiple);
                manifest.receptive_field = Some(field);
                self.find(
                    "receptive_field",
                    format!("a change of one pixel reaches {field} pixels far, measured"),
                );
            }
            None => self.find(
                "name",
                "no receptive field: its output changes with an image's place, so tiles are blended over their seams",
            ),
        }
        Ok(())
    }

    /// Whether the network has one size alone, on a grid of so many pixels.
    fn has_size_of(&self, grid: usize) -> bool {
        self.size.is_some_and(|size| size.iter().all(|side| side.is_multiple_of(grid)))
    }

    /// How far changes of a pixel reach, in pixels of the input. `None` if the network does not
    /// take the size.
    fn field(
        &mut self,
        size: [usize; 2],
        multiple: usize,
        reading: &Reading,
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
        for picture in [Picture::noise(size), Picture::photograph(size, [0, 0])] {
            let Some(base) = self.run(&picture, reading, level)? else { return Ok(None) };
            let (base, [out_width, _]) = self.planes(base)?;
            let threshold = unequal(&base);
            for &phase in &phases {
                let (x, y) = (
                    (width / 2) / multiple * multiple + phase,
                    (height / 2) / multiple * multiple + phase,
                );
                let (x, y) = (x.min(width - 1), y.min(height - 1));
                let mut poked = picture.clone();
                for plane in poked.planes.chunks_exact_mut(width * height) {
                    let value = &mut plane[y * width + x];
                    *value = if *value < 0.5 { 1.0 } else { 0.0 };
                }
                let Some(changed) = self.run(&poked, reading, level)? else { return Ok(None) };
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

    /// The smallest shift of an image that only shifts the output, if one of them does.
    fn grid(
        &mut self,
        size: [usize; 2],
        field: usize,
        reading: &Reading,
        level: f64,
        scale: usize,
    ) -> Result<Option<usize>> {
        let [width, height] = size;
        let Some(base) = self.run(&Picture::photograph(size, [0, 0]), reading, level)? else {
            return Ok(None);
        };
        let (base, [out_width, out_height]) = self.planes(base)?;
        let threshold = 100.0 * unequal(&base);
        let mut shift = 1;
        while field + shift + 1 < width.min(height) / 2 {
            let shifted = Picture::photograph(size, [shift, shift]);
            let Some(moved) = self.run(&shifted, reading, level)? else { return Ok(None) };
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
            shift *= 2;
        }
        Ok(None)
    }
}

/// The difference from which values of an output count as unequal.
fn unequal(values: &[f32]) -> f32 {
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

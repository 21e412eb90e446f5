//! An image as the canvas of a single prediction: from pixels into the network and back, without a
//! tensor of the whole image.

use crate::diffusion::{Canvas, Update, Window};
use crate::error::{Error, Result};
use crate::media::Image;
use crate::network::Shape;
use crate::tensor::{self, Rect};

/// The pixels of an image, which the posterior mean replaces row by row.
pub(super) struct Pixels<'a> {
    image: &'a mut Image,
    range: tensor::Range,
    channels: usize,
}

impl<'a> Pixels<'a> {
    /// The pixels of `image` for a network of `channels` channels with range `range`.
    pub(super) fn new(image: &'a mut Image, range: tensor::Range, channels: usize) -> Self {
        Self { image, range, channels }
    }
}

impl Canvas for Pixels<'_> {
    fn shape(&self) -> Shape {
        [1, self.channels, self.image.height, self.image.width]
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        let rect = Rect {
            x0: window.x.cast_signed(),
            y0: window.y.cast_signed(),
            width: window.width,
            height: window.height,
        };
        tensor::read_region(self.image, self.range, rect, out)?;
        if scale != 1.0 {
            out.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }

    /// A single image takes the place of its neighboring frames.
    fn condition(&self, window: Window, out: &mut [f32]) -> Result<()> {
        let size = self.channels * window.width * window.height;
        out.chunks_exact_mut(size).try_for_each(|frame| self.read(window, 1.0, frame))
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        write_prediction(update, self.channels, self.range, self.image)
    }
}

/// Writes the rows of a plan's only step, the network's output, into the colors of `image`.
pub(super) fn write_prediction(
    update: &Update<'_>,
    channels: usize,
    range: tensor::Range,
    image: &mut Image,
) -> Result<()> {
    let step = update.step;
    if (step.a, step.b + step.e, step.c_skip, step.c_out, step.d) != (0.0, 1.0, 0.0, 1.0, 0.0)
        || step.reads_history()
    {
        return Err(Error::usage(
            "pixels can hold a prediction only, not a state between two steps",
        ));
    }
    let width = image.width;
    for y in update.rows.clone() {
        let planes: [&[f32]; 3] =
            std::array::from_fn(|plane| update.output.row(plane % channels, y, width));
        tensor::write_row(&planes[..channels], range, image, 0, y);
    }
    Ok(())
}

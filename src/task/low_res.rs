//! The small image for upscaling: the start of sampling and the condition of the network.

use std::cell::RefCell;

use super::bicubic::Bicubic;
use super::pixels::write_prediction;
use crate::diffusion::{Canvas, State, Update, Window, read_plane};
use crate::error::Result;
use crate::media::Image;
use crate::network::Shape;
use crate::tensor;

/// A small image in the network's range.
pub(crate) struct LowRes {
    range: tensor::Range,
    channels: usize,
    width: usize,
    height: usize,
    /// `[channels, height, width]`
    planes: Vec<f32>,
    bicubic: Bicubic,
    line: RefCell<Vec<f32>>,
}

impl LowRes {
    /// The small image for a network of `channels` channels with range `range`, to be enlarged by
    /// `scale`.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the image has color that the network does not
    /// support.
    pub(super) fn new(
        image: &Image,
        range: tensor::Range,
        channels: usize,
        scale: usize,
    ) -> Result<Self> {
        let mut planes = vec![0.0; channels * image.width * image.height];
        tensor::read_planes(image, range, &mut planes)?;
        Ok(Self::of_planes(planes, [image.width, image.height], range, scale))
    }

    /// An image from planes, `[channels, height, width]`.
    pub(crate) fn of_planes(
        planes: Vec<f32>,
        [width, height]: [usize; 2],
        range: tensor::Range,
        scale: usize,
    ) -> Self {
        let channels = planes.len() / (width * height).max(1);
        Self {
            range,
            channels,
            width,
            height,
            planes,
            bicubic: Bicubic::new(scale),
            line: RefCell::default(),
        }
    }

    /// The original planes.
    pub(crate) fn planes_mut(&mut self) -> &mut [f32] {
        &mut self.planes
    }

    /// Channels, height and width of the enlarged image, as a batch of one.
    pub(crate) fn enlarged_shape(&self) -> Shape {
        let scale = self.bicubic.scale();
        [1, self.channels, scale * self.height, scale * self.width]
    }

    /// Fills `out`, `[channels, window.height, window.width]`, with `factor` times a window of the
    /// bicubic enlargement.
    pub(super) fn enlarge(&self, window: Window, factor: f32, out: &mut [f32]) {
        let mut line = self.line.borrow_mut();
        for (plane, out) in
            self.each_plane().zip(out.chunks_exact_mut(window.width * window.height))
        {
            for (y, row) in (window.y..).zip(out.chunks_exact_mut(window.width)) {
                self.bicubic.row(plane, self.width, y, window.x, &mut line, row);
            }
        }
        if factor != 1.0 {
            out.iter_mut().for_each(|value| *value *= factor);
        }
    }

    /// Fills `out`, of the [enlarged shape](Self::enlarged_shape), with the bicubic enlargement.
    pub(crate) fn enlarge_whole(&self, out: &mut [f32]) {
        let [_, _, height, width] = self.enlarged_shape();
        self.enlarge(Window { x: 0, y: 0, width, height }, 1.0, out);
    }

    /// Fills `out` with the part of the small image under `window` of the enlarged image. Windows
    /// are aligned with small pixels.
    fn condition(&self, window: Window, out: &mut [f32]) {
        let scale = self.bicubic.scale();
        let [x, y, width, height] =
            [window.x, window.y, window.width, window.height].map(|length| length / scale);
        for (plane, out) in self.each_plane().zip(out.chunks_exact_mut(width * height)) {
            read_plane(plane, self.width, Window { x, y, width, height }, 1.0, out);
        }
    }

    fn each_plane(&self) -> std::slice::ChunksExact<'_, f32> {
        self.planes.chunks_exact(self.width * self.height)
    }
}

/// One step: from the small image directly to the pixels of the large one. The start is the
/// bicubic enlargement without noise, the mean of the noisy state: at the highest sigma the
/// network ignores the difference.
pub(super) struct OneStep<'a> {
    pub(super) small: &'a LowRes,
    pub(super) large: &'a mut Image,
}

impl Canvas for OneStep<'_> {
    fn shape(&self) -> Shape {
        self.small.enlarged_shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.small.enlarge(window, scale, out);
        Ok(())
    }

    fn condition(&self, window: Window, out: &mut [f32]) -> Result<()> {
        self.small.condition(window, out);
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        write_prediction(update, self.small.channels, self.small.range, self.large)
    }
}

/// Several steps: a state on the large grid, conditioned on the small image.
pub(super) struct Conditioned<'a, 's> {
    pub(super) small: &'a LowRes,
    /// Whether the network takes the small image enlarged to the large grid.
    pub(super) enlarged: bool,
    pub(super) state: &'a mut State<'s>,
}

impl Canvas for Conditioned<'_, '_> {
    fn shape(&self) -> Shape {
        self.state.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.state.read(window, scale, out)
    }

    fn condition(&self, window: Window, out: &mut [f32]) -> Result<()> {
        if self.enlarged {
            self.small.enlarge(window, 1.0, out);
        } else {
            self.small.condition(window, out);
        }
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        self.state.update(update)
    }
}

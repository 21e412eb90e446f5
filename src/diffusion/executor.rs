//! The loop that runs any sampling plan: read tiles, evaluate the network, check the output, blend
//! tiles, update.

use std::ops::{ControlFlow, Range};

use crate::diffusion::guard::Expected;
use crate::diffusion::plan::{Clip, Plan, Step};
use crate::error::{Error, Result};
use crate::network::{Inputs, Network, Shape};
use crate::tensor::mirror;
use crate::tile::{Band, Seam, TilePlan};

/// What the executor reads tiles from and writes results to: a tensor ([`State`](super::State)) or
/// pixels directly.
pub trait Canvas {
    /// Batch, channels, height and width of the image, without padding to the network's alignment.
    fn shape(&self) -> Shape;

    /// Fills `out`, dense `[batch, channels, window.height, window.width]`, with `scale` times the
    /// window. Pixels beyond the image are mirrored.
    ///
    /// # Errors
    /// When the network cannot take this kind of image.
    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()>;

    /// Fills `out`, dense `[batch, channels, window.height / scale, window.width / scale]`, with
    /// the low-resolution image of the window, for networks that are conditioned on one.
    ///
    /// # Errors
    /// When the canvas has no low-resolution image, as by default.
    fn condition(&self, _window: Window, _out: &mut [f32]) -> Result<()> {
        Err(Error::usage(
            "this network enlarges a small image, and none was given; use a model for this task",
        ))
    }

    /// If the network's output for the window is cached, writes it to `out`, dense `[batch,
    /// channels, window.height, window.width]`, and returns true. By default nothing is cached.
    fn recall(&self, _window: Window, _out: &mut Vec<f32>) -> bool {
        false
    }

    /// Advances the rows of `update` to the next level.
    ///
    /// # Errors
    /// When the rows cannot be updated, for instance because recorded noise is missing.
    fn update(&mut self, update: &Update<'_>) -> Result<()>;
}

/// A rectangle of an image. It may extend beyond the right and bottom edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The left column.
    pub x: usize,
    /// The top row.
    pub y: usize,
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
}

/// One step of the plan, applied to some rows of the image.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The index of the step in the plan.
    pub index: usize,
    /// The step.
    pub step: &'a Step,
    /// The limit on predictions.
    pub clip: Clip,
    /// The rows of the image.
    pub rows: &'a Range<usize>,
    /// The network's output for these rows.
    pub output: Band<'a>,
}

/// The standard deviation of the noise at the start of a plan, by which the noise levels of the plan
/// are multiplied. It is 1 everywhere for a plan in absolute units, and the image's own sigma for a
/// plan relative to it.
#[derive(Clone, Debug, PartialEq)]
pub enum SigmaMap {
    /// One value for all pixels.
    Uniform(f32),
    /// One value per pixel, `height * width` of them in row order.
    PerPixel {
        /// The width of a row in pixels.
        width: usize,
        /// The values.
        values: Vec<f32>,
    },
    /// One value for luma, the first four channels, and one for chroma, the channels after them.
    Yuv([f32; 2]),
    /// Values for luma and for chroma, per pixel.
    YuvPerPixel {
        /// The width of a row in pixels.
        width: usize,
        /// The values of luma and of chroma, `height * width` of each.
        values: [Vec<f32>; 2],
    },
}

/// Luma channels in the sample of a network for 4:2:0 planes.
const LUMA_CHANNELS: usize = 4;

impl SigmaMap {
    /// The map for plans in absolute units.
    pub const ABSOLUTE: Self = Self::Uniform(1.0);

    /// The value for a channel at column `x` of row `y`.
    pub fn at(&self, channel: usize, x: usize, y: usize) -> f32 {
        let plane = usize::from(channel >= LUMA_CHANNELS);
        match self {
            Self::Uniform(value) => *value,
            Self::PerPixel { width, values } => values[y * width + x],
            Self::Yuv(values) => values[plane],
            Self::YuvPerPixel { width, values } => values[plane][y * width + x],
        }
    }

    /// Whether every tile has the same map.
    fn is_uniform(&self) -> bool {
        matches!(self, Self::Uniform(_) | Self::Yuv(_))
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) {
        match self {
            Self::Uniform(value) => out.fill(value * scale),
            Self::PerPixel { width, values } => {
                let plane = out.chunks_exact_mut(window.width * window.height);
                plane.for_each(|plane| read_plane(values, *width, window, scale, plane));
            }
            Self::Yuv(values) => {
                let planes = out.chunks_exact_mut(window.width * window.height);
                planes
                    .zip(values.iter().cycle())
                    .for_each(|(plane, value)| plane.fill(value * scale));
            }
            Self::YuvPerPixel { width, values } => {
                let planes = out.chunks_exact_mut(window.width * window.height);
                planes.zip(values.iter().cycle()).for_each(|(plane, values)| {
                    read_plane(values, *width, window, scale, plane);
                });
            }
        }
    }
}

/// Copies a window of a plane of `width` columns, multiplied by `scale`. Pixels beyond the borders
/// are mirrored.
pub(crate) fn read_plane(plane: &[f32], width: usize, window: Window, scale: f32, out: &mut [f32]) {
    let height = plane.len() / width;
    let inside = width.saturating_sub(window.x).min(window.width);
    for (y, out) in (window.y..).zip(out.chunks_exact_mut(window.width)) {
        let from = &plane[mirror(y.cast_signed(), height) * width..][..width];
        let (within, beyond) = out.split_at_mut(inside);
        let source = &from[window.x.min(width)..][..inside];
        if scale == 1.0 {
            within.copy_from_slice(source);
        } else {
            within.iter_mut().zip(source).for_each(|(out, x)| *out = scale * x);
        }
        for (x, out) in (window.x + inside..).zip(beyond) {
            *out = scale * from[mirror(x.cast_signed(), width)];
        }
    }
}

/// The progress of a run, reported after every evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of evaluations done.
    pub done: usize,
    /// The total number of evaluations: steps times tiles.
    pub total: usize,
}

/// The statistics of a complete run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// How many evaluations gave invalid output and were repeated.
    pub repeated: usize,
}

/// Runs `plan` on `canvas`: each step evaluates `D = network(x)` tile by tile, blends the tiles and
/// updates the canvas.
///
/// Rows are updated as soon as no later tile reads them, so beside the canvas at most one row of
/// tiles is held. After the first evaluation this function allocates nothing. `watch` is called
/// after every evaluation and can stop the run, which leaves the canvas unfinished.
///
/// An evaluation whose output is not finite, or blank where an image is expected, is repeated once
/// with the network that [`Network::fallback`] returns.
///
/// # Errors
/// The network's own errors; [`Error::Evaluation`] when its output is invalid and there is no
/// fallback or the fallback's output is invalid too; [`Error::Interrupted`] when `watch` stops the
/// run; [`Error::Usage`] for dynamic thresholding in tiles.
pub fn execute(
    plan: &Plan,
    network: &mut dyn Network,
    canvas: &mut dyn Canvas,
    tiles: &TilePlan,
    sigma: &SigmaMap,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<RunStats> {
    let [batch, channels, height, _] = canvas.shape();
    let (tile_width, tile_height) = tiles.tile_size();
    if matches!(plan.clip, Clip::Threshold { .. }) && !tiles.is_whole() {
        return Err(Error::usage(
            "dynamic thresholding depends on the whole image; it cannot be run in tiles",
        ));
    }
    let shape = [batch, channels, tile_height, tile_width];
    network.bind(shape)?;
    let mut seam = (!tiles.is_whole()).then(|| Seam::new(tiles, batch * channels));
    let mut known = Vec::new();
    let mut progress = Progress { done: 0, total: plan.steps.len() * tiles.count() };
    let mut stats = RunStats::default();
    for (index, step) in plan.steps.iter().enumerate() {
        for (row, vertical) in tiles.vertical.spans.iter().enumerate() {
            for (column, horizontal) in tiles.horizontal.spans.iter().enumerate() {
                let window = Window {
                    x: horizontal.start,
                    y: vertical.start,
                    width: tile_width,
                    height: tile_height,
                };
                let output = if canvas.recall(window, &mut known) {
                    known.as_slice()
                } else {
                    let job = Job { canvas, step, index, sigma, window };
                    let expected = job.fill(network, row + column == 0)?;
                    let output = network.evaluate(step.t)?;
                    match expected.defect(output) {
                        None => output,
                        Some(defect) => {
                            stats.repeated += 1;
                            job.repeat(network, shape, &defect)?
                        }
                    }
                };
                match &mut seam {
                    Some(seam) => seam.add(tiles, row, column, output),
                    None => {
                        let output = Band::whole(output, tile_width, tile_height);
                        canvas.update(&Update {
                            index,
                            step,
                            clip: plan.clip,
                            rows: &(0..height),
                            output,
                        })?;
                    }
                }
                progress.done += 1;
                if watch(progress).is_break() {
                    return Err(Error::Interrupted);
                }
            }
            if let Some(seam) = &mut seam {
                let rows = seam.complete(tiles, row);
                canvas.update(&Update {
                    index,
                    step,
                    clip: plan.clip,
                    rows: &rows,
                    output: seam.band(),
                })?;
                seam.advance(rows.end);
            }
        }
        if let Some(seam) = &mut seam {
            seam.restart();
        }
    }
    Ok(stats)
}

/// One evaluation: a tile in a step of the plan.
struct Job<'a> {
    canvas: &'a dyn Canvas,
    step: &'a Step,
    index: usize,
    sigma: &'a SigmaMap,
    window: Window,
}

impl Job<'_> {
    /// Fills the inputs of `network` and returns what is expected of its output. On the `first`
    /// tile of a step the network's sigma map is out of date.
    fn fill(&self, network: &mut dyn Network, first: bool) -> Result<Expected> {
        let Self { canvas, step, sigma, window, .. } = *self;
        let mut inputs = network.inputs();
        canvas.read(window, step.c_in as f32, inputs.sample)?;
        if let Some(condition) = &mut inputs.condition {
            canvas.condition(window, condition)?;
        }
        // A uniform map is equal for all tiles of a step, and the input buffer keeps its values.
        if let Some(map) = &mut inputs.sigma
            && (first || !sigma.is_uniform())
        {
            sigma.read(window, step.level.noise as f32, map);
        }
        let gives_image =
            (step.c_in, step.c_skip, step.c_out, step.level.signal) == (1.0, 0.0, 1.0, 1.0);
        Ok(match inputs {
            Inputs { condition: Some(condition), .. } if gives_image => {
                Expected::enlarged(condition)
            }
            Inputs { sample, sigma: Some(sigma), .. } if gives_image => {
                Expected::denoised(sample, sigma)
            }
            _ => Expected::NUMBERS,
        })
    }

    /// Evaluates the fallback of `network`, after the output of `network` had this `defect`.
    fn repeat<'n>(
        &self,
        network: &'n mut dyn Network,
        shape: Shape,
        defect: &str,
    ) -> Result<&'n [f32]> {
        let Some(fallback) = network.fallback()? else { return Err(self.invalid_output(defect)) };
        fallback.bind(shape)?;
        let expected = self.fill(fallback, true)?;
        let output = fallback.evaluate(self.step.t)?;
        match expected.defect(output) {
            None => Ok(output),
            Some(defect) => Err(self.invalid_output(&defect)),
        }
    }

    fn invalid_output(&self, defect: &str) -> Error {
        Error::evaluation(format!(
            "step {} gave {defect}, in the tile at {},{} of {}x{}; check that the input has no \
             such values, and try the f32 model if it is another one",
            self.index + 1,
            self.window.x,
            self.window.y,
            self.window.width,
            self.window.height
        ))
    }
}

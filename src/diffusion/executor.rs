//! The one loop that runs any table: read tiles, evaluate the network, check, join, update.

use std::ops::{ControlFlow, Range};

use crate::diffusion::guard::Expected;
use crate::diffusion::plan::{Clip, Plan, Step};
use crate::error::{Error, Result};
use crate::network::{Inputs, Network, Shape};
use crate::tensor::mirror;
use crate::tile::{Band, Seam, TilePlan};

/// What the executor reads tiles from and writes results to: a tensor ([`State`](super::State)), or pixels directly.
pub trait Canvas {
    /// Batch, channels, height and width of the image, without what pads it to the network's alignment.
    fn shape(&self) -> Shape;

    /// Fills `out`, dense `[batch, channels, window.height, window.width]`, with `scale` times the window; what lies
    /// beyond the image is its mirror image.
    ///
    /// # Errors
    /// When the image is not of the kind that the network takes.
    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()>;

    /// Fills `out`, dense `[batch, channels, window.height / scale, window.width / scale]`, with the small image that the
    /// window is an enlargement of, for networks that are conditioned on one.
    ///
    /// # Errors
    /// When there is none, which is what canvases say by default.
    fn condition(&self, _window: Window, _out: &mut [f32]) -> Result<()> {
        Err(Error::usage("this network enlarges a small image, and none was given; use a model for this task"))
    }

    /// Fills `out`, dense `[batch, channels, window.height, window.width]`, with what the network gives for the window where that
    /// is known without asking it, and says whether it is; by default it never is.
    fn recall(&self, _window: Window, _out: &mut Vec<f32>) -> bool {
        false
    }

    /// Carries the rows of `update` over to the next level.
    ///
    /// # Errors
    /// When the rows cannot be carried over, for instance for lack of noise.
    fn update(&mut self, update: &Update<'_>) -> Result<()>;
}

/// A rectangle of an image. It may reach beyond the right and lower borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its left column.
    pub x: usize,
    /// Its upper row.
    pub y: usize,
    /// Its width in pixels.
    pub width: usize,
    /// Its height in pixels.
    pub height: usize,
}

/// One row of the table, for some rows of the image.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Which row of the table.
    pub index: usize,
    /// That row.
    pub step: &'a Step,
    /// What is done to predictions.
    pub clip: Clip,
    /// The rows of the image.
    pub rows: &'a Range<usize>,
    /// The network's output for them.
    pub output: Band<'a>,
}

/// The standard deviation of the noise at the start of a plan, in the units in which the plan counts 1: a plan in
/// absolute units has 1 everywhere, a relative one the image's own sigma.
#[derive(Clone, Debug, PartialEq)]
pub enum SigmaMap {
    /// The same everywhere.
    Uniform(f32),
    /// One value per pixel, `height * width` of them in row order.
    PerPixel {
        /// Pixels of a row.
        width: usize,
        /// The values.
        values: Vec<f32>,
    },
    /// One value for luma, the first four channels, and one for chroma, those after them.
    Yuv([f32; 2]),
    /// The same, pixel by pixel.
    YuvPerPixel {
        /// Pixels of a row.
        width: usize,
        /// The values of luma and of chroma, `height * width` of each.
        values: [Vec<f32>; 2],
    },
}

/// Channels of luma in the sample of a network on 4:2:0 planes.
const LUMA_CHANNELS: usize = 4;

impl SigmaMap {
    /// A map for plans in absolute units.
    pub const ABSOLUTE: Self = Self::Uniform(1.0);

    /// The value of a channel at column `x` of row `y`.
    pub fn at(&self, channel: usize, x: usize, y: usize) -> f32 {
        let plane = usize::from(channel >= LUMA_CHANNELS);
        match self {
            Self::Uniform(value) => *value,
            Self::PerPixel { width, values } => values[y * width + x],
            Self::Yuv(values) => values[plane],
            Self::YuvPerPixel { width, values } => values[plane][y * width + x],
        }
    }

    /// Whether it is the same in every tile.
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
                planes.zip(values.iter().cycle()).for_each(|(plane, value)| plane.fill(value * scale));
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

/// Copies a window of a plane whose rows have `width` values, mirrored beyond its borders, `scale` times.
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

/// How far a run has come, told after every evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Evaluations done.
    pub done: usize,
    /// Evaluations in all: steps times tiles.
    pub total: usize,
    /// Of those done, how many gave invalid output and were asked for again.
    pub repeated: usize,
}

/// Runs `plan` on `canvas`: for every step, `D = network(x)` tile by tile, joined over the seams, and the step's update.
///
/// Rows are updated as soon as no later tile reads them, so that beside the canvas no more than one row of tiles is held.
/// After the first evaluation nothing is allocated here until the end. `watch` hears of every evaluation and can stop
/// the run, which leaves the canvas half-way.
///
/// An evaluation that gives values that are no numbers, or a blank where there is an image, is repeated once with the network
/// that [`Network::again`] names.
///
/// # Errors
/// The network's own errors; [`Error::Evaluation`] when it gives no image and there is none to ask again, or it gives none
/// either; [`Error::Interrupted`] when `watch` stops it; [`Error::Usage`] for dynamic thresholding in tiles.
pub fn execute(
    plan: &Plan,
    network: &mut dyn Network,
    canvas: &mut dyn Canvas,
    tiles: &TilePlan,
    sigma: &SigmaMap,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let [batch, channels, height, _] = canvas.shape();
    let (tile_width, tile_height) = tiles.tile_size();
    if matches!(plan.clip, Clip::Threshold { .. }) && !tiles.is_whole() {
        return Err(Error::usage("dynamic thresholding looks at the whole image; it cannot be run in tiles"));
    }
    let shape = [batch, channels, tile_height, tile_width];
    network.bind(shape)?;
    let mut seam = (!tiles.is_whole()).then(|| Seam::new(tiles, batch * channels));
    let mut known = Vec::new();
    let mut progress = Progress { done: 0, total: plan.steps.len() * tiles.count(), repeated: 0 };
    for (index, step) in plan.steps.iter().enumerate() {
        for (row, vertical) in tiles.vertical.spans.iter().enumerate() {
            for (column, horizontal) in tiles.horizontal.spans.iter().enumerate() {
                let window = Window { x: horizontal.start, y: vertical.start, width: tile_width, height: tile_height };
                let output = if canvas.recall(window, &mut known) {
                    known.as_slice()
                } else {
                    let job = Job { canvas, step, index, sigma, window };
                    let expected = job.fill(network, row + column == 0)?;
                    let output = network.evaluate(step.t)?;
                    match expected.defect(output) {
                        None => output,
                        Some(defect) => {
                            progress.repeated += 1;
                            job.repeat(network, shape, &defect)?
                        }
                    }
                };
                match &mut seam {
                    Some(seam) => seam.add(tiles, row, column, output),
                    None => {
                        let output = Band::whole(output, tile_width, tile_height);
                        canvas.update(&Update { index, step, clip: plan.clip, rows: &(0..height), output })?;
                    }
                }
                progress.done += 1;
                if watch(progress).is_break() {
                    return Err(Error::Interrupted);
                }
            }
            if let Some(seam) = &mut seam {
                let rows = seam.complete(tiles, row);
                canvas.update(&Update { index, step, clip: plan.clip, rows: &rows, output: seam.band() })?;
                seam.advance(rows.end);
            }
        }
        if let Some(seam) = &mut seam {
            seam.restart();
        }
    }
    Ok(())
}

/// One evaluation: of a tile, in a row of the table.
struct Job<'a> {
    canvas: &'a dyn Canvas,
    step: &'a Step,
    index: usize,
    sigma: &'a SigmaMap,
    window: Window,
}

impl Job<'_> {
    /// Fills the inputs of `network`, whose map is of another step when this is its `first` tile. Returns what its output is to
    /// be like.
    fn fill(&self, network: &mut dyn Network, first: bool) -> Result<Expected> {
        let Self { canvas, step, sigma, window, .. } = *self;
        let mut inputs = network.inputs();
        canvas.read(window, step.c_in as f32, inputs.sample)?;
        if let Some(condition) = &mut inputs.condition {
            canvas.condition(window, condition)?;
        }
        // A uniform map is the same for every tile of a step, and buffers keep what they hold.
        if let Some(map) = &mut inputs.sigma
            && (first || !sigma.is_uniform())
        {
            sigma.read(window, step.level.noise as f32, map);
        }
        let gives_image = (step.c_in, step.c_skip, step.c_out, step.level.signal) == (1.0, 0.0, 1.0, 1.0);
        Ok(match inputs {
            Inputs { condition: Some(condition), .. } if gives_image => Expected::enlarged(condition),
            Inputs { sample, sigma: Some(sigma), .. } if gives_image => Expected::denoised(sample, sigma),
            _ => Expected::NUMBERS,
        })
    }

    /// Asks the network that stands behind `network`, whose output had this flaw.
    fn repeat<'n>(&self, network: &'n mut dyn Network, shape: Shape, defect: &str) -> Result<&'n [f32]> {
        let Some(again) = network.again()? else { return Err(self.flawed(defect)) };
        again.bind(shape)?;
        let expected = self.fill(again, true)?;
        let output = again.evaluate(self.step.t)?;
        match expected.defect(output) {
            None => Ok(output),
            Some(defect) => Err(self.flawed(&defect)),
        }
    }

    fn flawed(&self, defect: &str) -> Error {
        Error::evaluation(format!(
            "step {} gave {defect}, in the tile at {},{} of {}x{}; check that the input has no such values, and try the f32 \
             model if this is none",
            self.index + 1,
            self.window.x,
            self.window.y,
            self.window.width,
            self.window.height
        ))
    }
}

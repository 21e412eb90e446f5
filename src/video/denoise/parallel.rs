//! Several frames of a stream at the same time, where that is faster.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Instant;

use super::{StreamDenoiser, memory};
use crate::error::Result;
use crate::media::stream::VideoFrame;
use crate::model::Layout;
use crate::task::Strength;
use crate::video::lanes::{self, LaneFrame, LaneWork, Lanes, Trials};

/// Memory of one more session beside its weights, in the graph and prepacked, and its tile.
const SESSION_BYTES: u64 = 8 << 20;

/// When several frames are processed at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParallelChoice {
    /// While that is faster than one after another. The stream's own frames are timed, again from
    /// time to time and when their time changes; the slower way costs about 2 percent of the time.
    #[default]
    IfFaster,
    /// Always.
    Always,
}

/// How frames were processed where several at the same time are possible.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParallelStatistics {
    /// Number of frames that are denoised at the same time, each on its own threads.
    pub lanes: usize,
    /// Number of frames that were processed this way; the others were processed one after another.
    pub frames: u64,
    /// How often the way has changed.
    pub changes: u64,
    /// Seconds of a frame, one after another and several at the same time, as last measured.
    pub seconds: [Option<f64>; 2],
}

/// The two ways of processing frames.
pub(super) struct Parallel {
    count: usize,
    /// Loaded when first used.
    lanes: Option<Lanes>,
    /// Decides for each frame; none where frames are always processed in parallel.
    trials: Option<Trials>,
    /// Whether frames may be processed in parallel from now on.
    open: bool,
    /// For each frame that was announced and not yet processed, whether lanes have it.
    announced: VecDeque<bool>,
    frames: u64,
}

impl Parallel {
    /// The number of frames that are in process at the same time.
    fn depth(&self) -> usize {
        if self.is_parallel() { lanes::FRAMES_PER_LANE * self.count } else { 1 }
    }

    /// Whether the next frame is processed in parallel.
    fn is_parallel(&self) -> bool {
        self.open && self.trials.as_ref().is_none_or(Trials::is_parallel)
    }

    /// Processes no more frames in parallel.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Whether lanes have the frame that is processed next. Called once for each.
    pub(super) fn has_next(&mut self) -> bool {
        self.announced.pop_front().unwrap_or(false)
    }

    /// Records a frame whose processing began at `started`.
    pub(super) fn record(&mut self, started: Instant) {
        if let Some(trials) = &mut self.trials {
            trials.record(started, Instant::now());
        }
        if !self.open && !self.announced.contains(&true) {
            // Frees their memory.
            self.lanes = None;
        }
    }

    pub(super) fn set_work(&mut self, work: LaneWork) {
        if let Some(lanes) = &mut self.lanes {
            lanes.set_work(work);
        }
    }
}

impl StreamDenoiser<'_> {
    /// Processes several frames at the same time, each with its own copy of the network, as far as
    /// memory allows. Results are those of a network on one thread. Such frames are announced in
    /// advance, so this is not for live streams. Has no effect with a time budget for frames, where
    /// previous frames are used, and for networks without
    /// [copies](crate::network::Network::most_copies).
    ///
    /// # Errors
    /// With [`ParallelChoice::Always`], when the network cannot be loaded again. Otherwise frames
    /// are then processed one after another.
    pub fn with_frames_in_parallel(mut self, choice: ParallelChoice) -> Result<Self> {
        if self.controller.is_some() || self.temporal_state.is_some() {
            return Ok(self);
        }
        let frame = memory::of_lane_frame(self.video().bytes(), &self.planes);
        let manifest = self.denoiser().manifest;
        let weights = manifest.parameters.unwrap_or_default() * size_of::<f32>() as u64;
        let each = (lanes::FRAMES_PER_LANE * frame) as u64 + 2 * weights + SESSION_BYTES;
        let most = self.room.lanes(&self.layout.tiles, each, manifest.bytes_per_pixel, lanes::MOST);
        let count = self.denoiser().most_copies(most);
        if count < 2 {
            return Ok(self);
        }
        let (lanes, trials) = match choice {
            ParallelChoice::IfFaster => (None, Some(Trials::new(count))),
            ParallelChoice::Always => (Some(self.load_lanes(count)?), None),
        };
        let announced = VecDeque::new();
        self.parallel = Some(Parallel { count, lanes, trials, open: true, announced, frames: 0 });
        Ok(self)
    }

    /// The number of frames in process at the same time, at present.
    pub fn frames_in_process(&self) -> usize {
        self.parallel.as_ref().map_or(1, Parallel::depth)
    }

    /// The largest number of frames in process at the same time.
    pub(super) fn most_frames_in_process(&self) -> usize {
        let parallel = self.parallel.as_ref().filter(|parallel| parallel.open);
        parallel.map_or(1, |parallel| lanes::FRAMES_PER_LANE * parallel.count)
    }

    /// How frames were processed, where several at the same time are possible.
    pub fn parallel_statistics(&self) -> Option<ParallelStatistics> {
        let Parallel { count, trials, frames, .. } = self.parallel.as_ref()?;
        Some(ParallelStatistics {
            lanes: *count,
            frames: *frames,
            changes: trials.as_ref().map_or(0, Trials::changes),
            seconds: trials.as_ref().map_or([None; 2], Trials::times),
        })
    }

    fn load_lanes(&self, count: usize) -> Result<Lanes> {
        let mut lanes = Lanes::new(self.denoiser().copies(count)?, self.lane_work())?;
        for _ in 0..lanes::FRAMES_PER_LANE * count {
            lanes.recycle(self.lane_frame());
        }
        Ok(lanes)
    }

    fn lane_frame(&self) -> LaneFrame {
        LaneFrame::new(self.planes_layout(), &self.planes, self.noise.clone())
    }

    fn planes_layout(&self) -> Layout {
        self.denoiser().manifest.layout
    }

    /// What lanes do to frames at present.
    pub(super) fn lane_work(&self) -> LaneWork {
        LaneWork {
            recipe: self.denoiser().recipe().clone(),
            tiles: self.layout.tiles.clone(),
            layout: self.planes_layout(),
            planes: self.planes.clone(),
        }
    }

    /// Passes a frame that was announced to the lanes, if it is to be processed in parallel.
    pub(super) fn pass_to_lanes(&mut self, input: &VideoFrame) {
        let Some(mut parallel) = self.parallel.take() else { return };
        let passed = parallel.is_parallel() && self.pass_to(&mut parallel, input);
        parallel.announced.push_back(passed);
        parallel.frames += u64::from(passed);
        self.parallel = Some(parallel);
    }

    /// Returns whether the frame was passed to the lanes.
    fn pass_to(&mut self, parallel: &mut Parallel, input: &VideoFrame) -> bool {
        let lanes = parallel.lanes.take().map_or_else(|| self.load_lanes(parallel.count), Ok);
        // The network was loaded before, so only the memory for copies can be missing. The stream
        // goes on without them.
        let Ok(mut lanes) = lanes else {
            parallel.close();
            return false;
        };
        let mut frame = lanes.spare().unwrap_or_else(|| self.lane_frame());
        match self.prepare(input, &mut frame) {
            Ok(true) => lanes.denoise(frame),
            Ok(false) => lanes.keep(frame, Ok(())),
            Err(error) => lanes.keep(frame, Err(error)),
        }
        parallel.lanes = Some(lanes);
        true
    }

    /// Reads and measures a frame for a lane. Returns whether it has to be denoised.
    fn prepare(&mut self, input: &VideoFrame, frame: &mut LaneFrame) -> Result<bool> {
        if frame.noise.is_per_sample() != self.noise.is_per_sample() {
            frame.noise = self.noise.clone();
        }
        std::mem::swap(&mut self.x, &mut frame.x);
        std::mem::swap(&mut self.noise, &mut frame.noise);
        self.converter.read(&input.bytes, &mut self.x);
        let measured = self.measure();
        if self.denoiser().options.strength != Strength::FULL {
            frame.original.clone_from(&self.x);
        }
        std::mem::swap(&mut self.x, &mut frame.x);
        std::mem::swap(&mut self.noise, &mut frame.noise);
        frame.levels = self.levels;
        measured.map(|()| self.needs_denoising())
    }

    /// Writes the next frame of the lanes, which is the result for `input`.
    pub(super) fn finish(
        &mut self,
        parallel: &mut Parallel,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(lanes) = &mut parallel.lanes else { return Ok(()) };
        let (mut frame, outcome) = lanes.next(watch)?;
        self.levels = frame.levels;
        self.stream_status.sigma = Some(self.sigma());
        std::mem::swap(&mut self.x, &mut frame.x);
        if self.converter.holds_detail() {
            self.converter.read(&input.bytes, &mut frame.x);
        }
        match outcome {
            Ok(stats) => {
                if let Some(stats) = stats {
                    self.stream_status.repeated += stats.repeated as u64;
                    self.failures.none();
                }
            }
            Err(reason) => self.pass(input, reason)?,
        }
        let strength = self.denoiser().options.strength;
        if strength != Strength::FULL {
            strength.blend(&frame.original, &mut self.x);
        }
        self.converter.write(&self.x, strength.of(self.levels[1]), &mut output.bytes);
        std::mem::swap(&mut self.x, &mut frame.x);
        lanes.recycle(frame);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

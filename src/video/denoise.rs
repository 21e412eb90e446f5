//! Denoises the frames of a stream, in buffers that are allocated once.

mod parallel;

pub use self::parallel::{ParallelChoice, ParallelStatistics};

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::parallel::Parallel;
use super::noise::Noise;
use super::pipeline::{FailurePolicy, memory};
use super::planes::Planes;
use super::quality::{Choices, QualityController, QualityStep, ReducedResolution};
use super::working_layout::{TemporalState, WorkingLayout};
use super::{FrameProcessor, QualityLevel, Scale, SettingsUpdate, StreamStatus};
use crate::error::{Error, Result};
use crate::media::stream::{VideoFormat, VideoFrame};
use crate::model::{Layout, Precision};
use crate::task::{
    Denoiser, MemoryHeadroom, MeteredPlanes, PlaneRole, SigmaChoice, StreamMeter, Strength,
    noise_map_of_planes, noise_maps_of_yuv,
};
use crate::tensor::{FrameConverter, YuvFrameConverter, sigmas_of_rgb};
use crate::tile::TilePlan;

/// Correction of sigma that is estimated from compressed frames: the codec removes some of the
/// noise along with the texture. On clips of simulated cameras, the best sigma is above the
/// estimate with H.264; with MJPEG it hardly matters.
const CODED_SIGMA_FACTOR: f64 = 1.3;

/// Least part of the noise variance that consecutive frames share when the noise came through a
/// codec, for luma and chroma. The codec rounds a static scene in the same way in each frame, and
/// averaging does not remove that. It is larger for chroma, which is quantized more coarsely.
const MIN_SHARED_VARIANCE: [f32; 2] = [0.12, 0.35];

/// Largest size of the image on which networks are timed.
const TIMING_SIZE: [usize; 2] = [256, 192];
const ROUNDS: usize = 2;
const MAX_TIMING: Duration = Duration::from_secs(1);

/// A denoiser and the numeric precision of its network.
pub struct Candidate<'a> {
    /// The denoiser.
    pub denoiser: Denoiser<'a>,
    /// The numeric precision in which its network computes.
    pub precision: Precision,
}

/// Denoises the frames of a stream.
pub struct StreamDenoiser<'a> {
    /// From best to cheapest.
    candidates: Vec<Candidate<'a>>,
    converter: Converter,
    planes: Planes,
    x: Vec<f32>,
    /// The input frame, where the strength is below full.
    original: Vec<f32>,
    noise: Noise,
    /// What is known from previous frames, where they are used.
    temporal_state: Option<TemporalState>,
    step: QualityStep,
    /// Memory left for tiles after everything else.
    room: MemoryHeadroom,
    layout: WorkingLayout,
    controller: Option<QualityController>,
    /// Where several frames may be processed at the same time.
    parallel: Option<Parallel>,
    /// Standard deviation of the noise for each group of planes, as a part of the full range; 0
    /// before the first frame.
    levels: [f64; 2],
    /// Whether the noise appears to have come through a codec or a camera's image processor.
    is_correlated: bool,
    limited: bool,
    meter: StreamMeter,
    stream_status: StreamStatus,
    failures: FailurePolicy,
}

/// Statistics of the use of previous frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemporalStatistics {
    /// Standard deviation of the result over time in static areas, in 8-bit units, averaged over
    /// their pixels; `None` if nothing was static for 8 frames.
    pub flicker: Option<f64>,
    /// Part of all tiles that were computed and not reused from the frame before.
    pub computed: f64,
    /// Number of resets: scene cuts, and camera motion that is not a translation.
    pub resets: u64,
}

impl<'a> Denoiser<'a> {
    /// A denoiser for the frames of a stream of format `video`. Results have format `result`,
    /// which has the same size. `temporal` enables the use of previous frames.
    ///
    /// # Errors
    /// As for [`StreamDenoiser::new`].
    pub fn on_stream(
        self,
        video: &VideoFormat,
        result: &VideoFormat,
        temporal: bool,
    ) -> Result<StreamDenoiser<'a>> {
        StreamDenoiser::new(
            vec![Candidate { denoiser: self, precision: Precision::F32 }],
            video,
            result,
            temporal,
            None,
        )
    }
}

impl<'a> StreamDenoiser<'a> {
    /// A denoiser for the frames of a stream of format `video`. Results have format `result`,
    /// which has the same size. `candidates` are denoisers for the same kind of frames, from best
    /// to cheapest. Without a `budget` the first is used; with one, the best that keeps each frame
    /// within that time. `temporal` enables the use of previous frames.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when frames do not fit the memory budget, have color
    /// that the network does not support, or when the candidates do not fit together.
    pub fn new(
        mut candidates: Vec<Candidate<'a>>,
        video: &VideoFormat,
        result: &VideoFormat,
        temporal: bool,
        budget: Option<Duration>,
    ) -> Result<Self> {
        let Some(first) = candidates.first() else {
            return Err(Error::usage("the list of denoisers is empty"));
        };
        let (channels, range, steps) =
            (first.denoiser.manifest.channels, first.denoiser.range, first.denoiser.steps());
        let layout = first.denoiser.manifest.layout;
        for Candidate { denoiser, .. } in &candidates {
            let manifest = denoiser.manifest;
            if (manifest.layout, manifest.channels, denoiser.range) != (layout, channels, range) {
                return Err(Error::usage(format!(
                    "{} and {} are for different kinds of frames; choose models of the same \
                     channels and range",
                    first.denoiser.manifest.name, denoiser.manifest.name
                )));
            }
        }
        let (width, height) = (video.width, video.height);
        let planes = Planes::of(layout, channels, [width, height]);
        let converter = match layout {
            Layout::Full => Converter::Full(Box::new([
                FrameConverter::new(video, channels, range)?,
                FrameConverter::new(result, channels, range)?,
            ])),
            Layout::Yuv420 => Converter::Yuv(Box::new(YuvFrameConverter::new(video, result)?)),
        };
        let temporal_state = if temporal { memory::of_temporal_state(&planes) } else { 0 };
        let meter = StreamMeter::new(measured_planes(&planes_in_use(&planes, video)));
        let held = meter.bytes()
            + converter.bytes()
            + memory::of_frames(video.bytes() + result.bytes())
            + memory::of_work(&planes)
            + temporal_state;
        // Uses only what is held so far, so that the result stays the same after networks have
        // allocated memory.
        let room = first.denoiser.options.budget.room(held as u64);
        let controller = match budget {
            None => None,
            Some(budget) => {
                let costs = costs(&mut candidates, [width, height])?;
                // A reduced size needs planes of its own, which must fit the memory.
                let fits = |scale: &Scale| {
                    let tiles = WorkingLayout::tiles(
                        &candidates[0].denoiser,
                        [width, height],
                        *scale,
                        temporal,
                        room,
                    );
                    tiles.is_ok()
                };
                let scales = Scale::SMALLER.into_iter().filter(fits).collect();
                let choices = Choices { steps, costs, temporal, scales };
                Some(QualityController::new(choices, budget))
            }
        };
        let step = controller.as_ref().map_or(QualityStep::best(steps), QualityController::step);
        let first = &candidates[step.network];
        let noise = Self::noise_of(&first.denoiser.options.sigma, temporal, &planes);
        let layout = WorkingLayout::new(
            &first.denoiser,
            [width, height],
            step,
            temporal,
            noise.is_per_sample(),
            room,
        )?;
        let quality = Self::quality(first, step);
        let stream_status = StreamStatus {
            quality,
            changes: 0,
            sigma: Some(0.0),
            temporal,
            repeated: 0,
            failed: 0,
        };
        let mut denoiser = Self {
            x: vec![0.0; planes.samples()],
            original: Vec::new(),
            noise,
            temporal_state: temporal.then(|| TemporalState::new(planes_in_use(&planes, video))),
            planes,
            step,
            room,
            layout,
            candidates,
            converter,
            controller,
            parallel: None,
            levels: [0.0; 2],
            is_correlated: false,
            limited: false,
            meter,
            stream_status,
            failures: FailurePolicy::default(),
        };
        denoiser.candidates[step.network].denoiser.set_steps(step.steps)?;
        Ok(denoiser)
    }

    /// Storage for the noise of frames with such planes.
    fn noise_of(choice: &SigmaChoice, temporal: bool, planes: &Planes) -> Noise {
        // The estimated noise depends on the signal, at least for luma.
        let is_map = match choice {
            SigmaChoice::Auto => planes.groups().len() > 1,
            SigmaChoice::Known(_) | SigmaChoice::Planes(_) => false,
            SigmaChoice::Profile(_) => true,
        };
        Noise::none(planes, temporal || is_map)
    }

    fn quality(candidate: &Candidate<'_>, step: QualityStep) -> QualityLevel {
        let model = Arc::from(candidate.denoiser.manifest.name.as_str());
        QualityLevel {
            model,
            precision: candidate.precision,
            steps: step.steps,
            reuse_tiles_longer: step.reuse_tiles_longer,
            scale: step.scale,
        }
    }

    /// The standard deviation of the noise of the last frame in 8-bit units, averaged over the last
    /// few frames; the root mean square where it varies within the frame. It is that of luma where
    /// the network works on luma and chroma, unless sigma was given for RGB.
    pub fn sigma(&self) -> f64 {
        255.0 * self.levels[0] / self.part()
    }

    /// Ratio of the sigma of luma to that of RGB, where sigma was given for RGB.
    fn part(&self) -> f64 {
        let is_said = matches!(self.denoiser().options.sigma, SigmaChoice::Known(_));
        let has_planes = self.planes.groups().len() > 1 && !self.video().format.is_gray();
        if is_said && has_planes { sigmas_of_rgb(self.video().color.matrix)[0] } else { 1.0 }
    }

    /// The standard deviation of the chroma noise in 8-bit units, where the network works on luma
    /// and chroma, the frames have chroma, and sigma was not given for RGB.
    pub fn chroma_sigma(&self) -> Option<f64> {
        let has_chroma = self.planes.groups().len() > 1 && !self.video().format.is_gray();
        let is_said = matches!(self.denoiser().options.sigma, SigmaChoice::Known(_));
        (has_chroma && !is_said).then_some(255.0 * self.levels[1])
    }

    /// Whether the network is blind, so that it evaluates every frame.
    pub fn is_blind(&self) -> bool {
        self.denoiser().is_blind()
    }

    /// Whether sigma ever exceeded the range for which the model was trained.
    pub fn sigma_limited(&self) -> bool {
        self.limited
    }

    /// Statistics of the use of previous frames, where it is enabled.
    pub fn temporal_statistics(&self) -> Option<TemporalStatistics> {
        let temporal_state = self.temporal_state.as_ref()?;
        let span = f64::from(self.denoiser().range.span());
        Some(TemporalStatistics {
            flicker: temporal_state.flicker.mean().map(|mean| 255.0 * mean / span),
            computed: temporal_state.active / temporal_state.frames.max(1) as f64,
            resets: temporal_state.temporal.resets(),
        })
    }

    /// How frames are divided into tiles.
    pub fn tiles(&self) -> &TilePlan {
        &self.layout.tiles
    }

    fn denoiser(&self) -> &Denoiser<'a> {
        &self.candidates[self.step.network].denoiser
    }

    fn size(&self) -> [usize; 2] {
        let video = self.video();
        [video.width, video.height]
    }

    fn video(&self) -> &VideoFormat {
        match &self.converter {
            Converter::Full(both) => both[0].video(),
            Converter::Yuv(frames) => frames.video(),
        }
    }

    /// Processes frames with this quality step from now on.
    fn apply_quality_step(&mut self, step: QualityStep) -> Result<()> {
        let size = self.size();
        // The memory of tiles of another size may not serve the new ones.
        if (step.network, step.scale) != (self.step.network, self.step.scale) {
            self.candidates[self.step.network].denoiser.trim_memory()?;
        }
        self.step = step;
        self.candidates[step.network].denoiser.set_steps(step.steps)?;
        let per_sample = self.noise.is_per_sample();
        // Frees the old planes before it allocates new ones.
        (self.layout.reduced, self.layout.cache) = (None, None);
        self.layout = WorkingLayout::new(
            self.denoiser(),
            size,
            step,
            self.temporal_state.is_some(),
            per_sample,
            self.room,
        )?;
        self.stream_status.quality = Self::quality(&self.candidates[step.network], step);
        let work = self.lane_work();
        if let Some(parallel) = &mut self.parallel {
            // A frame that uses previous ones cannot be processed before them.
            if self.temporal_state.is_some() {
                parallel.close();
            }
            parallel.set_work(work);
        }
        Ok(())
    }

    /// Measures the noise of the frame in `x`.
    fn measure(&mut self) -> Result<()> {
        let denoiser = &self.candidates[self.step.network].denoiser;
        let span = f64::from(denoiser.range.span());
        if let Some(temporal_state) = &mut self.temporal_state {
            // Assumes the noise level of the frame before.
            temporal_state.temporal.track(&self.x, (self.levels[0] * span).powi(2));
            if matches!(denoiser.options.sigma, SigmaChoice::Auto) {
                self.meter.align(|planes| temporal_state.temporal.move_along(planes));
            }
        }
        if let (SigmaChoice::Profile(profile), Noise::PerSample(maps)) =
            (&denoiser.options.sigma, &mut self.noise)
        {
            match (self.planes.groups(), &self.converter) {
                ([_, chroma], Converter::Yuv(frames)) => {
                    let (is_gray, matrix) =
                        (frames.video().format.is_gray(), frames.video().color.matrix);
                    noise_maps_of_yuv(
                        profile,
                        &self.x,
                        [chroma.width, chroma.height],
                        is_gray,
                        matrix,
                        maps,
                    )?;
                }
                _ => {
                    for ((group, x), map) in self.planes.split(&self.x).zip(&mut *maps) {
                        noise_map_of_planes(profile, x, group.width, denoiser.range, map)?;
                    }
                }
            }
            for (i, map) in maps.iter_mut().enumerate() {
                let (level, limited) = denoiser.limit_map(map);
                self.levels[i] = level;
                self.limited |= limited;
            }
            return Ok(());
        }
        let is_gray = self.video().format.is_gray();
        let matrix = self.video().color.matrix;
        let denoiser = &self.candidates[self.step.network].denoiser;
        let reading = match denoiser.options.sigma {
            SigmaChoice::Auto => Some(self.meter.measure(&self.x, denoiser.range)),
            _ => None,
        };
        let has_planes = self.planes.groups().len() > 1;
        let stated = denoiser.options.sigma.stated(has_planes, is_gray, matrix);
        self.is_correlated = reading.is_some_and(|reading| reading.is_correlated);
        for (i, (group, x)) in self.planes.split(&self.x).enumerate() {
            let sigma = match stated {
                // The chroma of a grayscale video.
                _ if i > 0 && is_gray => 0.0,
                Some(sigmas) => sigmas[i],
                None => {
                    let reading = reading.filter(|reading| !reading.is_clean);
                    let more = if self.is_correlated { CODED_SIGMA_FACTOR } else { 1.0 };
                    reading.map_or(0.0, |reading| more * reading.levels[i].sigma)
                }
            };
            let sigma = sigma * denoiser.luma_part(is_gray);
            let (level, limited) = if sigma == 0.0 { (0.0, false) } else { denoiser.limit(sigma) };
            self.limited |= limited;
            self.levels[i] = level;
            let sigma = (level * span) as f32;
            match reading {
                Some(reading) if level > 0.0 && span == 1.0 => {
                    self.noise.fill_by((i, group), x, sigma, reading.levels[i].line);
                }
                _ => self.noise.fill(i, sigma),
            }
        }
        Ok(())
    }

    /// Denoises the frame in `x`, whose noise has been measured. Returns the time of the
    /// evaluations.
    fn denoise(&mut self, watch: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Duration> {
        let Candidate { denoiser, .. } = &mut self.candidates[self.step.network];
        let least = denoiser.manifest.sigma.map_or(0.0, |range| range.min) as f32;
        if let (Some(temporal_state), Noise::PerSample(maps)) =
            (&mut self.temporal_state, &mut self.noise)
        {
            temporal_state.temporal.set_coded(self.is_correlated);
            temporal_state.temporal.set_still(self.meter.is_static());
            // The chroma of grayscale video is neither noisy nor fused.
            let fused = temporal_state.temporal.planes();
            let (groups, samples) = (fused.groups().len(), fused.samples());
            let maps = &mut maps[..groups];
            temporal_state.temporal.fuse(&mut self.x[..samples], maps);
            let shared = if self.is_correlated { MIN_SHARED_VARIANCE } else { [0.0; 2] };
            for ((map, level), shared) in maps.iter_mut().zip(self.levels).zip(shared) {
                let shared = shared.max(1.0 - temporal_state.temporal.unshared());
                let kept = (shared * (level * level) as f32).max(least * least);
                map.iter_mut()
                    .for_each(|sigma| *sigma = (*sigma * *sigma * (1.0 - shared) + kept).sqrt());
            }
        }
        if let Some(reduced) = &mut self.layout.reduced {
            reduced.downsample(&mut self.x, &self.noise, least);
        }
        // There may be no tile to compute, so stop requests are checked here too.
        if watch().is_break() {
            return Err(Error::Interrupted);
        }
        let started = Instant::now();
        let (layout, temporal_state) = (&mut self.layout, self.temporal_state.as_mut());
        let mut reduced = layout.reduced.take();
        let done = match &mut reduced {
            Some(ReducedResolution { planes, x, noise, .. }) => {
                layout.denoise(denoiser, temporal_state, planes, x, noise, watch)
            }
            None => layout.denoise(
                denoiser,
                temporal_state,
                &self.planes,
                &mut self.x,
                &mut self.noise,
                watch,
            ),
        };
        self.layout.reduced = reduced;
        self.stream_status.repeated += done?.repeated as u64;
        let network = started.elapsed();
        if let Some(reduced) = &mut self.layout.reduced {
            reduced.recombine(&mut self.x);
        }
        if let Some(temporal_state) = &mut self.temporal_state {
            let first = self.planes.first();
            temporal_state.flicker.add(
                &temporal_state.temporal,
                &self.x[..first.samples()],
                [first.width, first.height],
            );
        }
        Ok(network)
    }

    /// Processes a frame while no other is in process.
    fn process_alone(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let started = Instant::now();
        self.converter.read(&input.bytes, &mut self.x);
        self.measure()?;
        self.stream_status.sigma = Some(self.sigma());
        let mut network = Duration::ZERO;
        let strength = self.denoiser().options.strength;
        if strength != Strength::FULL {
            self.original.clone_from(&self.x);
        }
        if self.needs_denoising() {
            match self.denoise(watch) {
                Ok(took) => {
                    network = took;
                    self.failures.none();
                }
                Err(reason) => self.pass(input, reason)?,
            }
        } else if let Some(temporal_state) = &mut self.temporal_state {
            // The frame is not fused, so its motion is not tracked either.
            temporal_state.temporal.reset_state();
        }
        if strength != Strength::FULL {
            strength.blend(&self.original, &mut self.x);
        }
        self.converter.write(&self.x, strength.of(self.levels[1]), &mut output.bytes);
        self.update_quality(network, started.elapsed().saturating_sub(network))
    }

    /// Whether the frame that was measured has noise, or the network finds it by itself.
    fn needs_denoising(&self) -> bool {
        self.levels != [0.0; 2] || self.is_blind()
    }

    /// Passes a frame through unchanged when the network gives invalid output.
    fn pass(&mut self, input: &VideoFrame, reason: Error) -> Result<()> {
        self.failures.tolerate(reason)?;
        self.stream_status.failed += 1;
        self.x.resize(self.planes.samples(), 0.0);
        self.converter.read(&input.bytes, &mut self.x);
        // Reports no noise for this frame.
        self.levels = [0.0; 2];
        if let Some(temporal_state) = &mut self.temporal_state {
            temporal_state.temporal.reset_state();
        }
        self.apply_quality_step(self.step)
    }

    /// Checks whether the next frame needs another quality step.
    fn update_quality(&mut self, network: Duration, overhead: Duration) -> Result<()> {
        match self
            .controller
            .as_mut()
            .and_then(|controller| controller.record_time(network, overhead))
        {
            Some(step) => {
                self.stream_status.changes += 1;
                self.apply_quality_step(step)
            }
            None => Ok(()),
        }
    }
}

/// Converts frames to planes and back.
enum Converter {
    /// Planes of the frame's own size: one converter that reads and one that writes.
    Full(Box<[FrameConverter; 2]>),
    /// Luma, and chroma at half its size.
    Yuv(Box<YuvFrameConverter>),
}

impl Converter {
    /// Bytes held between frames.
    fn bytes(&self) -> usize {
        match self {
            Self::Full(both) => both.iter().map(FrameConverter::bytes).sum(),
            Self::Yuv(frames) => frames.bytes(),
        }
    }

    /// Whether a frame is written with what was kept when it was read.
    fn holds_detail(&self) -> bool {
        match self {
            Self::Full(_) => false,
            Self::Yuv(frames) => frames.holds_detail(),
        }
    }

    fn read(&mut self, bytes: &[u8], x: &mut [f32]) {
        match self {
            Self::Full(both) => both[0].read(bytes, x),
            Self::Yuv(frames) => frames.read(bytes, x),
        }
    }

    /// `chroma` is the standard deviation of the chroma noise in the frame that was read, as a
    /// part of the full range.
    fn write(&mut self, x: &[f32], chroma: f64, bytes: &mut Vec<u8>) {
        match self {
            Self::Full(both) => both[1].write(x, bytes),
            Self::Yuv(frames) => frames.write(x, chroma as f32, bytes),
        }
    }
}

/// The planes whose noise is measured.
fn measured_planes(planes: &Planes) -> Vec<MeteredPlanes> {
    let groups = planes.groups().iter().enumerate().map(|(i, group)| {
        let role = if i == 0 { PlaneRole::Luma } else { PlaneRole::Chroma };
        MeteredPlanes { count: group.planes, width: group.width, height: group.height, role }
    });
    groups.collect()
}

/// The planes that hold data: all except the chroma of grayscale video.
fn planes_in_use(planes: &Planes, video: &VideoFormat) -> Planes {
    let first = planes.first();
    if planes.groups().len() > 1 && video.format.is_gray() {
        return Planes::full(first.planes, first.width, first.height);
    }
    planes.clone()
}

/// Time of one evaluation of a frame of that size for each candidate, in seconds.
fn costs(candidates: &mut [Candidate<'_>], [width, height]: [usize; 2]) -> Result<Vec<f64>> {
    let trial = [width.min(TIMING_SIZE[0]), height.min(TIMING_SIZE[1])];
    let mut costs = vec![f64::INFINITY; candidates.len()];
    // Alternates between candidates, so that disturbances affect all of them; the shortest time is
    // the least disturbed.
    let started = Instant::now();
    for _ in 0..ROUNDS {
        for (Candidate { denoiser, .. }, cost) in candidates.iter_mut().zip(&mut costs) {
            *cost = cost.min((width * height) as f64 * denoiser.seconds_per_pixel(trial)?);
        }
        if started.elapsed() > MAX_TIMING {
            break;
        }
    }
    candidates.iter_mut().try_for_each(|Candidate { denoiser, .. }| denoiser.trim_memory())?;
    Ok(costs)
}

impl FrameProcessor for StreamDenoiser<'_> {
    fn look_ahead(&self) -> usize {
        self.frames_in_process() - 1
    }

    fn most_look_ahead(&self) -> usize {
        self.most_frames_in_process() - 1
    }

    fn announce(&mut self, next: Option<&VideoFrame>) {
        if let Some(input) = next {
            self.pass_to_lanes(input);
        }
    }

    fn process(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let started = Instant::now();
        match self.parallel.take_if(Parallel::has_next) {
            Some(mut parallel) => {
                let finished = self.finish(&mut parallel, input, output, watch);
                self.parallel = Some(parallel);
                finished?;
            }
            None => self.process_alone(input, output, watch)?,
        }
        if let Some(parallel) = &mut self.parallel {
            parallel.record(started);
        }
        Ok(())
    }

    fn stream_status(&self) -> StreamStatus {
        self.stream_status.clone()
    }

    fn set_budget(&mut self, budget: Duration) {
        if let Some(controller) = &mut self.controller {
            controller.set_budget(budget);
        }
    }

    fn apply_settings(&mut self, settings: &SettingsUpdate) -> Result<()> {
        if let Some(sigma) = &settings.sigma {
            for Candidate { denoiser, .. } in &mut self.candidates {
                denoiser.options.sigma = sigma.clone();
            }
            // Starts the noise estimate again.
            self.meter.restart();
        }
        let temporal = settings.temporal.unwrap_or(self.temporal_state.is_some());
        if temporal != self.temporal_state.is_some() {
            if temporal {
                self.room = self.room.minus(memory::of_temporal_state(&self.planes) as u64);
            }
            self.temporal_state =
                temporal.then(|| TemporalState::new(planes_in_use(&self.planes, self.video())));
            self.stream_status.temporal = temporal;
        }
        self.noise = Self::noise_of(&self.denoiser().options.sigma, temporal, &self.planes);
        let step = match &mut self.controller {
            Some(controller) => {
                if settings.steps.is_some() || settings.temporal.is_some() {
                    controller.restart(settings.steps, temporal);
                }
                controller.step()
            }
            None => QualityStep { steps: settings.steps.unwrap_or(self.step.steps), ..self.step },
        };
        // Tiles that were computed with the old settings are dropped.
        self.apply_quality_step(step)
    }
}

//! Denoising the pictures of a stream, in memory that is taken once.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array4;

use super::failures::Failures;
use super::governor::{Choices, Keeper, Rung};
use super::grid::{Grid, Past};
use super::reduced::Reduced;
use super::{Quality, Restore, Scale, Treatment, Wishes, memory};
use crate::diffusion::SigmaMap;
use crate::error::{Error, Result};
use crate::frame::stream::{Picture, Video};
use crate::model::Precision;
use crate::task::{Denoiser, Room, SigmaChoice, estimate_sigma_of_planes, noise_map_of_planes};
use crate::tensor::Pictures;
use crate::tile::TilePlan;

/// How much of an estimate is new with each picture.
const FRESH: f64 = 0.2;

/// The size at which networks are compared, where pictures are not smaller.
const TRIAL: [usize; 2] = [256, 192];
const ROUNDS: usize = 2;
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// A denoiser, and in what numbers its network computes.
pub struct Candidate<'a> {
    /// The denoiser.
    pub denoiser: Denoiser<'a>,
    /// In what numbers its network computes.
    pub precision: Precision,
}

/// Denoises the pictures of a stream.
pub struct StreamDenoiser<'a> {
    /// The best first.
    candidates: Vec<Candidate<'a>>,
    reader: Pictures,
    writer: Pictures,
    x: Array4<f32>,
    sigma: SigmaMap,
    /// What is known from the pictures before, where they are to count.
    past: Option<Past>,
    rung: Rung,
    /// For tiles, beside all else.
    room: Room,
    grid: Grid,
    keeper: Option<Keeper>,
    /// Of the pictures so far, as a part of the full range; 0 before the first.
    level: f64,
    limited: bool,
    work: Vec<f64>,
    treatment: Treatment,
    failures: Failures,
}

/// What came of making use of the pictures before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Persistence {
    /// The standard deviation over time of the result where nothing moves, in 8-bit units, averaged over all such pixels; none
    /// where nothing was at rest for 8 pictures.
    pub flicker: Option<f64>,
    /// Part of all tiles that were computed, and not kept from the picture before.
    pub computed: f64,
    /// How often everything was new: scene cuts, and a camera that moves otherwise than as a whole.
    pub resets: u64,
}

impl<'a> Denoiser<'a> {
    /// For the pictures of a stream that are as `video` describes them; results are as `result` does, which has the same size.
    /// `temporal` makes use of the pictures before each.
    ///
    /// # Errors
    /// As for [`StreamDenoiser::new`].
    pub fn on_stream(self, video: &Video, result: &Video, temporal: bool) -> Result<StreamDenoiser<'a>> {
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
    /// For the pictures of a stream that are as `video` describes them; results are as `result` does, which has the same size.
    /// `candidates` are denoisers for the same kind of pictures, the best first, of which the first is used; where each picture
    /// has a `budget` of time, those that keep within it are. `temporal` makes use of the pictures before each.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when pictures do not fit the memory that may be used, have colour that the network
    /// does not, or when candidates do not fit together.
    pub fn new(
        mut candidates: Vec<Candidate<'a>>,
        video: &Video,
        result: &Video,
        temporal: bool,
        budget: Option<Duration>,
    ) -> Result<Self> {
        let Some(first) = candidates.first() else { return Err(Error::usage("there is no denoiser to choose from")) };
        let (channels, range, steps) = (first.denoiser.manifest.channels, first.denoiser.range, first.denoiser.steps());
        for Candidate { denoiser, .. } in &candidates {
            if (denoiser.manifest.channels, denoiser.range) != (channels, range) {
                return Err(Error::usage(format!(
                    "{} and {} are for different kinds of pictures; choose models of the same channels and range",
                    first.denoiser.manifest.name, denoiser.manifest.name
                )));
            }
        }
        let (width, height) = (video.width, video.height);
        let reader = Pictures::new(video, channels, range)?;
        let writer = Pictures::new(result, channels, range)?;
        let past = if temporal { memory::of_past(channels, [width, height]) } else { 0 };
        let held = memory::of_pictures(&reader, &writer) + memory::of_work(channels, [width, height]) + past;
        // Of what is held so far, so that it stays the same when networks have taken memory.
        let room = first.denoiser.options.budget.room(held as u64);
        let keeper = match budget {
            None => None,
            Some(budget) => {
                let costs = costs(&mut candidates, [width, height])?;
                // A smaller size takes planes of its own, for which there has to be room.
                let fits = |scale: &Scale| {
                    let tiles = Grid::tiles(&candidates[0].denoiser, [width, height], *scale, temporal, room);
                    tiles.is_ok()
                };
                let scales = Scale::SMALLER.into_iter().filter(fits).collect();
                let choices = Choices { steps, costs, temporal, scales };
                Some(Keeper::new(choices, budget))
            }
        };
        let rung = keeper.as_ref().map_or(Rung::best(steps), Keeper::rung);
        let first = &candidates[rung.network];
        let sigma = Self::map(&first.denoiser.options.sigma, temporal, [width, height]);
        let per_pixel = matches!(sigma, SigmaMap::PerPixel { .. });
        let grid = Grid::new(&first.denoiser, [width, height], rung, temporal, per_pixel, room)?;
        let quality = Self::quality(first, rung);
        let treatment = Treatment { quality, changes: 0, sigma: Some(0.0), temporal, repeated: 0, failed: 0 };
        let mut denoiser = Self {
            x: Array4::zeros([1, channels, height, width]),
            sigma,
            past: temporal.then(|| Past::new([channels, width, height])),
            rung,
            room,
            grid,
            candidates,
            reader,
            writer,
            keeper,
            level: 0.0,
            limited: false,
            work: Vec::new(),
            treatment,
            failures: Failures::default(),
        };
        denoiser.candidates[rung.network].denoiser.set_steps(rung.steps)?;
        Ok(denoiser)
    }

    /// A map for noise as it is said to be, of pictures of that size.
    fn map(choice: &SigmaChoice, temporal: bool, [width, height]: [usize; 2]) -> SigmaMap {
        match choice {
            SigmaChoice::Auto | SigmaChoice::Known(_) if !temporal => SigmaMap::Uniform(0.0),
            _ => SigmaMap::PerPixel { width, values: vec![0.0; width * height] },
        }
    }

    fn quality(candidate: &Candidate<'_>, rung: Rung) -> Quality {
        let model = Arc::from(candidate.denoiser.manifest.name.as_str());
        Quality { model, precision: candidate.precision, steps: rung.steps, thrifty: rung.thrifty, scale: rung.scale }
    }

    /// The standard deviation of the noise of the last picture in 8-bit units, as estimated over the last few; the root of the
    /// mean variance where it differs.
    pub fn sigma(&self) -> f64 {
        255.0 * self.level
    }

    /// Whether it was ever more than the model was trained for.
    pub fn sigma_limited(&self) -> bool {
        self.limited
    }

    /// What came of making use of the pictures before, where that was asked for.
    pub fn persistence(&self) -> Option<Persistence> {
        let past = self.past.as_ref()?;
        let span = f64::from(self.denoiser().range.span());
        Some(Persistence {
            flicker: past.flicker.mean().map(|mean| 255.0 * mean / span),
            computed: past.active / past.pictures.max(1) as f64,
            resets: past.temporal.resets(),
        })
    }

    /// How pictures are cut.
    pub fn tiles(&self) -> &TilePlan {
        &self.grid.tiles
    }

    fn denoiser(&self) -> &Denoiser<'a> {
        &self.candidates[self.rung.network].denoiser
    }

    fn size(&self) -> [usize; 2] {
        let video = self.reader.video();
        [video.width, video.height]
    }

    /// Treats pictures so from now on.
    fn turn_to(&mut self, rung: Rung) -> Result<()> {
        let size = self.size();
        if rung.network != self.rung.network {
            self.candidates[self.rung.network].denoiser.release()?;
        }
        self.rung = rung;
        self.candidates[rung.network].denoiser.set_steps(rung.steps)?;
        let per_pixel = matches!(self.sigma, SigmaMap::PerPixel { .. });
        // The old planes make room for the new ones.
        (self.grid.reduced, self.grid.stills) = (None, None);
        self.grid = Grid::new(self.denoiser(), size, rung, self.past.is_some(), per_pixel, self.room)?;
        self.treatment.quality = Self::quality(&self.candidates[rung.network], rung);
        Ok(())
    }

    /// How noisy the picture in `x` is.
    fn measure(&mut self) -> Result<()> {
        let denoiser = &self.candidates[self.rung.network].denoiser;
        let span = f64::from(denoiser.range.span());
        let planes = self.x.as_slice().unwrap_or_default();
        let Video { width, height, .. } = *self.reader.video();
        let level = match (&denoiser.options.sigma, &mut self.sigma) {
            (SigmaChoice::Profile(profile), SigmaMap::PerPixel { values, .. }) => {
                noise_map_of_planes(profile, planes, width, denoiser.range, values)?;
                let (level, limited) = denoiser.limit_map(values);
                self.level = level;
                self.limited |= limited;
                return Ok(());
            }
            (SigmaChoice::Known(sigma), _) => sigma / 255.0,
            _ => {
                let range = [denoiser.range.lo(), denoiser.range.span()];
                let now = estimate_sigma_of_planes(planes, [width, height], range, &mut self.work);
                // The light changes and textures come and go; the sensor stays.
                if self.level == 0.0 { now } else { self.level + FRESH * (now - self.level) }
            }
        };
        let (level, limited) = denoiser.limit(level);
        self.limited |= limited;
        self.level = level;
        match &mut self.sigma {
            SigmaMap::Uniform(sigma) => *sigma = (level * span) as f32,
            SigmaMap::PerPixel { values, .. } => values.fill((level * span) as f32),
        }
        Ok(())
    }

    /// Denoises the picture in `x`, whose noise is measured. Returns what the evaluations took.
    fn denoise(&mut self, watch: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Duration> {
        let size = self.size();
        let Candidate { denoiser, .. } = &mut self.candidates[self.rung.network];
        let least = denoiser.manifest.sigma.map_or(0.0, |range| range.min) as f32;
        if let (Some(past), SigmaMap::PerPixel { values, .. }) = (&mut self.past, &mut self.sigma) {
            past.temporal.fuse(self.x.as_slice_mut().unwrap_or_default(), values);
            values.iter_mut().for_each(|sigma| *sigma = sigma.max(least));
        }
        if let Some(reduced) = &mut self.grid.reduced {
            reduced.take(self.x.as_slice_mut().unwrap_or_default(), &self.sigma, least);
        }
        // Nothing may have been due, and still somebody may want to stop.
        if watch().is_break() {
            return Err(Error::Interrupted);
        }
        let begun = Instant::now();
        let mut reduced = self.grid.reduced.take();
        let done = match &mut reduced {
            Some(Reduced { x, sigma, .. }) => self.grid.denoise(denoiser, self.past.as_mut(), x, sigma, watch),
            None => self.grid.denoise(denoiser, self.past.as_mut(), &mut self.x, &self.sigma, watch),
        };
        self.grid.reduced = reduced;
        self.treatment.repeated += done? as u64;
        let network = begun.elapsed();
        if let Some(reduced) = &mut self.grid.reduced {
            reduced.give(self.x.as_slice_mut().unwrap_or_default());
        }
        if let Some(past) = &mut self.past {
            past.flicker.add(&past.temporal, self.x.as_slice().unwrap_or_default(), size);
        }
        Ok(network)
    }

    /// Passes a picture on as it is, of which the network makes none.
    fn pass(&mut self, input: &Picture, reason: Error) -> Result<()> {
        self.failures.bear(reason)?;
        self.treatment.failed += 1;
        self.reader.read(&input.bytes, self.x.as_slice_mut().unwrap_or_default());
        if let Some(past) = &mut self.past {
            past.temporal.forget();
        }
        self.turn_to(self.rung)
    }

    /// Looks whether the next picture is to be treated otherwise.
    fn keep_up(&mut self, network: Duration, beside: Duration) -> Result<()> {
        match self.keeper.as_mut().and_then(|keeper| keeper.took(network, beside)) {
            Some(rung) => {
                self.treatment.changes += 1;
                self.turn_to(rung)
            }
            None => Ok(()),
        }
    }
}

/// What an evaluation of a picture of that size takes each candidate, in seconds.
fn costs(candidates: &mut [Candidate<'_>], [width, height]: [usize; 2]) -> Result<Vec<f64>> {
    let trial = [width.min(TRIAL[0]), height.min(TRIAL[1])];
    let mut costs = vec![f64::INFINITY; candidates.len()];
    // By turns, so that what disturbs the machine disturbs all; the shortest is the least disturbed.
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        for (Candidate { denoiser, .. }, cost) in candidates.iter_mut().zip(&mut costs) {
            *cost = cost.min((width * height) as f64 * denoiser.seconds_per_pixel(trial)?);
        }
        if begun.elapsed() > LONG_ENOUGH {
            break;
        }
    }
    candidates.iter_mut().try_for_each(|Candidate { denoiser, .. }| denoiser.release())?;
    Ok(costs)
}

impl Restore for StreamDenoiser<'_> {
    fn restore(
        &mut self,
        input: &Picture,
        output: &mut Picture,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        self.reader.read(&input.bytes, self.x.as_slice_mut().unwrap_or_default());
        self.measure()?;
        self.treatment.sigma = Some(self.sigma());
        let mut network = Duration::ZERO;
        if self.level > 0.0 {
            match self.denoise(watch) {
                Ok(took) => {
                    network = took;
                    self.failures.none();
                }
                Err(reason) => self.pass(input, reason)?,
            }
        }
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        self.keep_up(network, begun.elapsed().saturating_sub(network))
    }

    fn treatment(&self) -> Treatment {
        self.treatment.clone()
    }

    fn allow(&mut self, budget: Duration) {
        if let Some(keeper) = &mut self.keeper {
            keeper.allow(budget);
        }
    }

    fn heed(&mut self, wishes: &Wishes) -> Result<()> {
        if let Some(sigma) = &wishes.sigma {
            for Candidate { denoiser, .. } in &mut self.candidates {
                denoiser.options.sigma = sigma.clone();
            }
            // An estimate begins anew.
            self.level = 0.0;
        }
        let temporal = wishes.temporal.unwrap_or(self.past.is_some());
        if temporal != self.past.is_some() {
            let ([width, height], channels) = (self.size(), self.denoiser().manifest.channels);
            if temporal {
                self.room = self.room.without(memory::of_past(channels, [width, height]) as u64);
            }
            self.past = temporal.then(|| Past::new([channels, width, height]));
            self.treatment.temporal = temporal;
        }
        self.sigma = Self::map(&self.denoiser().options.sigma, temporal, self.size());
        let rung = match &mut self.keeper {
            Some(keeper) => {
                if wishes.steps.is_some() || wishes.temporal.is_some() {
                    keeper.restart(wishes.steps, temporal);
                }
                keeper.rung()
            }
            None => Rung { steps: wishes.steps.unwrap_or(self.rung.steps), ..self.rung },
        };
        // What was computed before was computed otherwise.
        self.turn_to(rung)
    }
}

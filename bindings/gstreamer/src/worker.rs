//! The thread that owns the networks and the processor of the frames, which borrows them.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use eddy::media::stream::{VideoFormat, VideoFrame};
use eddy::model::{NetworkWithFallback, Package, Precision};
use eddy::task::{DenoiseOptions, Denoiser, Upscaler};
use eddy::video::{
    Candidate, Fields, FrameProcessor, FrameWindowDenoiser, SettingsUpdate, StreamDenoiser,
    StreamStatus, field_of,
};
use eddy::{Error, Result};

use crate::plan::{Plan, Task};

/// The formats of frames and of results.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Formats {
    pub(crate) video: VideoFormat,
    pub(crate) result: VideoFormat,
}

/// A frame and room for a result, which are passed to and fro.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub(crate) frame: VideoFrame,
    pub(crate) result: VideoFrame,
}

/// What the thread is asked for. It answers each.
#[derive(Debug)]
pub(crate) enum Job {
    /// To take frames of these formats from now on, with nothing known of those before.
    Open(Box<Formats>),
    /// To forget what is known of the frames before.
    Restart,
    /// To take a frame, with this time limit.
    Process(Box<Exchange>, Option<Duration>),
    /// To give a further result after the last frame.
    Drain(Box<Exchange>),
    /// To change settings.
    Apply(SettingsUpdate),
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// How many further frames are needed for the result of a frame.
    Ready(usize),
    /// The result of the oldest frame without one, if there is any yet, and how it was made.
    Processed(Box<Exchange>, Option<StreamStatus>),
}

/// The thread.
#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` once it has to end.
    jobs: Option<Sender<Job>>,
    answers: Receiver<Result<Answer>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread, which interrupts its work while `stop` is set.
    ///
    /// # Errors
    /// [`Error::Usage`] when no thread can be started.
    pub(crate) fn start(plan: Plan, stop: Arc<AtomicBool>) -> Result<Self> {
        let (jobs, taken) = channel();
        let (answer, answers) = channel();
        let thread = Builder::new()
            .name("eddy".into())
            .spawn(move || Service { jobs: taken, answers: answer, stop }.work(plan))
            .map_err(|error| Error::usage(format!("no thread can be started: {error}")))?;
        Ok(Self { jobs: Some(jobs), answers, thread: Some(thread) })
    }

    /// Asks the thread, and waits for the answer.
    ///
    /// # Errors
    /// Those of the library; [`Error::Interrupted`] while it has to stop.
    pub(crate) fn ask(&self, job: Job) -> Result<Answer> {
        let ended = || Error::evaluation("the thread that processes frames has ended by a panic");
        let jobs = self.jobs.as_ref().ok_or_else(ended)?;
        jobs.send(job).map_err(|_| ended())?;
        self.answers.recv().map_err(|_| ended())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It said so itself if it panicked.
            let _ = thread.join();
        }
    }
}

/// The side of the thread.
struct Service {
    jobs: Receiver<Job>,
    answers: Sender<Result<Answer>>,
    stop: Arc<AtomicBool>,
}

/// What ends the service of a processor.
enum Next {
    Open(Box<Formats>),
    Restart,
    End,
}

type Network<'a> = (&'a Package, Precision, NetworkWithFallback<'a>);

impl Service {
    fn work(&self, mut plan: Plan) {
        let mut next = None;
        while let Some(job) = next.take().map_or_else(|| self.jobs.recv().ok(), Some) {
            let served = match job {
                Job::Open(formats) => self.serve(&mut plan, formats),
                Job::Apply(update) => {
                    plan.apply(&update);
                    self.answer(Ok(Answer::Ready(0)));
                    Ok(None)
                }
                _ => Err(Error::usage("the format of the frames is not known")),
            };
            match served {
                Ok(after) => next = after.map(Job::Open),
                Err(error) => self.answer(Err(error)),
            }
        }
    }

    fn answer(&self, answer: Result<Answer>) {
        // The element may be gone.
        let _ = self.answers.send(answer);
    }

    /// Loads networks for frames of these formats, and serves until others are needed.
    fn serve(&self, plan: &mut Plan, mut formats: Box<Formats>) -> Result<Option<Box<Formats>>> {
        let models = plan.models(&formats.video);
        let packages: Vec<Package> =
            models.iter().map(|model| plan.package(model)).collect::<Result<_>>()?;
        let mut networks: Vec<Network<'_>> = Vec::new();
        for package in &packages {
            for precision in plan.precisions(package) {
                let network = package.load_with_fallback(&plan.runtime, precision, plan.session)?;
                networks.push((package, precision, network));
            }
        }
        loop {
            let mut settings = SettingsUpdate::default();
            let next = {
                let mut processor = processor(plan, &mut networks, &formats)?;
                self.process(processor.as_mut(), &formats.result, &mut settings)
            };
            plan.apply(&settings);
            match next {
                Next::Restart => {}
                Next::Open(others) if plan.models(&others.video) == models => formats = others,
                Next::Open(others) => return Ok(Some(others)),
                Next::End => return Ok(None),
            }
        }
    }

    /// Serves with a processor. Settings that are changed are added to `settings`.
    fn process(
        &self,
        processor: &mut dyn FrameProcessor,
        result: &VideoFormat,
        settings: &mut SettingsUpdate,
    ) -> Next {
        let mut pending = VecDeque::new();
        let mut missing = processor.look_ahead();
        self.answer(Ok(Answer::Ready(missing)));
        while let Ok(job) = self.jobs.recv() {
            let answer = match job {
                Job::Open(formats) => return Next::Open(formats),
                Job::Restart => return Next::Restart,
                Job::Apply(update) => {
                    let applied = processor.apply_settings(&update);
                    *settings = std::mem::take(settings).then(update);
                    applied.map(|()| Answer::Ready(processor.look_ahead()))
                }
                Job::Process(mut exchange, budget) => {
                    if let Some(budget) = budget {
                        processor.set_budget(budget);
                    }
                    processor.announce(Some(&exchange.frame));
                    pending.push_back(std::mem::take(&mut exchange.frame));
                    if missing > 0 {
                        missing -= 1;
                        Ok(Answer::Processed(exchange, None))
                    } else {
                        self.finish(processor, &mut pending, exchange, result)
                    }
                }
                Job::Drain(exchange) => {
                    // Several, when the stream has ended before the first could be processed.
                    (0..=std::mem::take(&mut missing)).for_each(|_| processor.announce(None));
                    self.finish(processor, &mut pending, exchange, result)
                }
            };
            self.answer(answer);
        }
        Next::End
    }

    /// Processes the oldest frame.
    fn finish(
        &self,
        processor: &mut dyn FrameProcessor,
        pending: &mut VecDeque<VideoFrame>,
        mut exchange: Box<Exchange>,
        result: &VideoFormat,
    ) -> Result<Answer> {
        let Some(frame) = pending.pop_front() else {
            return Ok(Answer::Processed(exchange, None));
        };
        exchange.result.bytes.resize(result.bytes(), 0);
        processor.process(&frame, &mut exchange.result, &mut || match self
            .stop
            .load(Ordering::Relaxed)
        {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        exchange.frame = frame;
        Ok(Answer::Processed(exchange, Some(processor.stream_status())))
    }
}

/// The processor of frames of these formats.
fn processor<'a>(
    plan: &Plan,
    networks: &'a mut [Network<'_>],
    Formats { video, result }: &Formats,
) -> Result<Box<dyn FrameProcessor + 'a>> {
    let (options, temporal) = match &plan.task {
        Task::Denoise { options, temporal, .. } => (options, *temporal),
        Task::Upscale { options, .. } => {
            let Some((package, precision, network)) = networks.first_mut() else {
                return Err(Error::usage("there is no model"));
            };
            let upscaler = Upscaler::new(&package.manifest, network, *options)?;
            return Ok(Box::new(upscaler.on_stream(video, result, *precision)?));
        }
    };
    if matches!(&*networks, [(package, ..)] if package.manifest.is_of_video()) {
        return of_window(networks, options, video, result);
    }
    let mut candidates = Vec::new();
    for (package, precision, network) in networks {
        let denoiser = Denoiser::new(&package.manifest, network, options.clone())?;
        candidates.push(Candidate { denoiser, precision: *precision });
    }
    let budget = plan.budget();
    if !video.scan.has_fields() {
        return Ok(Box::new(StreamDenoiser::new(candidates, video, result, temporal, budget)?));
    }
    // A field has other rows than the one before, so previous frames are not used.
    let (field, field_result) = (field_of(video)?, field_of(result)?);
    let budget = budget.map(|budget| budget / 2);
    let denoiser = StreamDenoiser::new(candidates, &field, &field_result, false, budget)?;
    Ok(Box::new(Fields::new(denoiser, video, result)))
}

/// The processor of a network that takes a window of frames, or has a recurrent state.
fn of_window<'a>(
    networks: &'a mut [Network<'_>],
    options: &DenoiseOptions,
    video: &VideoFormat,
    result: &VideoFormat,
) -> Result<Box<dyn FrameProcessor + 'a>> {
    let Some((package, precision, network)) = networks.first_mut() else {
        return Err(Error::usage("there is no model"));
    };
    if video.scan.has_fields() {
        return Err(Error::usage(format!(
            "{} takes whole frames, and these are interlaced; put deinterlace in front",
            package.manifest.name
        )));
    }
    let denoiser = Denoiser::new(&package.manifest, network, options.clone())?;
    Ok(Box::new(FrameWindowDenoiser::new(denoiser, video, result, *precision)?))
}

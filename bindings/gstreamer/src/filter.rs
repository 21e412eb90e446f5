//! What both elements have in common.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use eddy::media::stream::{Scan, VideoFormat};
use eddy::video::{SettingsUpdate, Target};
use eddy::{Error, Result};
use gst::glib;
use gst::prelude::*;
use gst_video::VideoInfo;

use crate::plan::{Plan, parse};
use crate::properties::Settings;
use crate::report::Figures;
use crate::worker::{Answer, Exchange, Formats, Job, Worker};
use crate::{errors, frame};

pub(crate) static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("eddy", gst::DebugColorFlags::empty(), Some("Eddy's elements"))
});

/// The state of an element. `stop` ends the work in hand; `is_live` says whether frames come as
/// they are captured.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    settings: Mutex<Settings>,
    /// Settings that were changed while frames are processed.
    update: Mutex<SettingsUpdate>,
    stop: Arc<AtomicBool>,
    is_live: AtomicBool,
    /// How long a frame may stay in the element.
    latency: Mutex<gst::ClockTime>,
    figures: Mutex<Figures>,
    running: Mutex<Option<Running>>,
}

/// What there is between start and stop.
#[derive(Debug)]
struct Running {
    worker: Worker,
    target: Target,
    opened: Option<Opened>,
    exchange: Box<Exchange>,
    /// Time stamps, flags and further metadata of the frames whose result is not there yet.
    waiting: VecDeque<gst::Buffer>,
    /// Whether the next frame does not follow those before.
    is_cut: bool,
    /// How long frames waited before they came, as a moving average.
    waited: Duration,
}

#[derive(Debug)]
struct Opened {
    formats: Formats,
    input: VideoInfo,
    output: VideoInfo,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Filter {
    /// Sets a property. Some take effect while frames are processed.
    pub(crate) fn set_property(&self, element: &gst::Element, value: &glib::Value, name: &str) {
        let mut settings = lock(&self.settings);
        let before = settings.clone();
        settings.set(name, value);
        let mut update = lock(&self.update);
        match name {
            "sigma" if settings.noise_profile.is_none() => {
                match parse("sigma", &settings.sigma) {
                    Ok(sigma) => update.sigma = Some(sigma),
                    // One that is wrong from the beginning ends the start.
                    Err(error) if element.current_state() > gst::State::Ready => {
                        *settings = before;
                        drop((settings, update));
                        gst::element_warning!(
                            element,
                            gst::LibraryError::Settings,
                            ("{}", errors::text(&error))
                        );
                    }
                    Err(_) => {}
                }
            }
            "steps" => update.steps = settings.steps(),
            "temporal" => update.temporal = Some(settings.temporal),
            _ => {}
        }
    }

    pub(crate) fn property(&self, specification: &glib::ParamSpec) -> glib::Value {
        match specification.name() {
            "statistics" => lock(&self.figures).structure().to_value(),
            name => {
                let value = lock(&self.settings).get(name);
                value.unwrap_or_else(|| specification.default_value().clone())
            }
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Starts the worker.
    pub(crate) fn start(&self, plan: Plan) -> Result<()> {
        let target = plan.target;
        *lock(&self.update) = SettingsUpdate::default();
        *lock(&self.figures) = Figures::default();
        *lock(&self.running) = Some(Running {
            worker: Worker::start(plan, Arc::clone(&self.stop))?,
            target,
            opened: None,
            exchange: Box::default(),
            waiting: VecDeque::new(),
            is_cut: false,
            waited: Duration::ZERO,
        });
        Ok(())
    }

    pub(crate) fn stop(&self) {
        // Waits for the worker; the state is not locked meanwhile.
        let running = lock(&self.running).take();
        drop(running);
    }

    /// Makes the work in hand end, or allows further work.
    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.stop.store(stopped, Ordering::Relaxed);
    }

    /// Takes frames of other caps from now on. Frames that differ in their rate alone are no others.
    pub(crate) fn open(
        &self,
        element: &gst::Element,
        [incaps, outcaps]: [&gst::Caps; 2],
        [input, output]: [&VideoInfo; 2],
    ) -> Result<()> {
        let parse = |caps: &gst::Caps| {
            VideoFormat::of_gstreamer_caps(&caps.to_string()).map_err(Error::usage)
        };
        let formats = Formats { video: parse(incaps)?, result: parse(outcaps)? };
        check_scan(&formats)?;
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else {
            return Err(Error::usage("the element was not started"));
        };
        let is_same = running
            .opened
            .as_ref()
            .is_some_and(|opened| without_rate(&opened.formats) == without_rate(&formats));
        let target = running.target;
        let mut look_ahead = running.waiting.len();
        if !is_same {
            running.opened = None;
            running.waiting.clear();
            if let Answer::Ready(frames) =
                running.worker.ask(Job::Open(Box::new(formats.clone())))?
            {
                look_ahead = frames;
            }
            (running.is_cut, running.waited) = (false, Duration::ZERO);
        }
        running.opened = Some(Opened { formats, input: input.clone(), output: output.clone() });
        let latency = latency(input, target, look_ahead);
        if std::mem::replace(&mut *lock(&self.latency), latency) != latency {
            let message = gst::message::Latency::builder().src(element).build();
            // Without a bus nobody wants it.
            let _ = element.post_message(message);
        }
        Ok(())
    }

    /// Forgets the frames before a seek.
    pub(crate) fn flush(&self) {
        self.set_stopped(false);
        if let Some(running) = lock(&self.running).as_mut() {
            running.waiting.clear();
            running.is_cut = true;
        }
    }

    /// Adds the latency of the element to that of the elements before it.
    pub(crate) fn add_latency(&self, query: &mut gst::query::Latency) {
        let (is_live, least, most) = query.result();
        self.is_live.store(is_live, Ordering::Relaxed);
        let own = *lock(&self.latency);
        query.set(is_live, least + own, most.map(|most| most + own));
    }

    /// Takes a frame. Returns a buffer with the metadata of the result, if there is a result yet;
    /// [`write`](Self::write) writes it.
    pub(crate) fn process(
        &self,
        element: &gst::Element,
        buffer: gst::Buffer,
    ) -> Result<Option<gst::Buffer>> {
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else { return Err(Error::Interrupted) };
        if std::mem::take(&mut running.is_cut) {
            running.worker.ask(Job::Restart)?;
        }
        let update = std::mem::take(&mut *lock(&self.update));
        if update != SettingsUpdate::default() {
            running.worker.ask(Job::Apply(update))?;
        }
        let Some(opened) = &running.opened else {
            return Err(Error::usage("the format of the frames is not known"));
        };
        let mut exchange = std::mem::take(&mut running.exchange);
        frame::read(&buffer, &opened.input, &opened.formats.video, &mut exchange.frame)
            .map_err(Error::evaluation)?;
        let waited = if self.is_live.load(Ordering::Relaxed) {
            waiting_time(element, &buffer).unwrap_or_default()
        } else {
            // A frame of a file did not wait for anything else.
            Duration::ZERO
        };
        running.waited = (4 * running.waited + waited) / 5;
        let budget = running.target.budget(running.waited, Duration::ZERO);
        running.waiting.push_back(metadata_of(buffer));
        self.finish(element, running, Job::Process(exchange, budget))
    }

    /// The next result after the last frame, as [`process`](Self::process).
    pub(crate) fn drain(&self, element: &gst::Element) -> Result<Option<gst::Buffer>> {
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut() else { return Ok(None) };
        if running.waiting.is_empty() || running.is_cut {
            return Ok(None);
        }
        let job = Job::Drain(std::mem::take(&mut running.exchange));
        let result = self.finish(element, running, job);
        // Frames that come after the last one do not follow it.
        running.is_cut = running.waiting.is_empty();
        result
    }

    fn finish(
        &self,
        element: &gst::Element,
        running: &mut Running,
        job: Job,
    ) -> Result<Option<gst::Buffer>> {
        let started = Instant::now();
        let Answer::Processed(exchange, status) = running.worker.ask(job)? else {
            return Err(Error::evaluation("the thread that processes frames gave no frame"));
        };
        running.exchange = exchange;
        let Some(status) = status else { return Ok(None) };
        lock(&self.figures).add(element, started.elapsed(), status);
        Ok(running.waiting.pop_front())
    }

    /// Writes the last result into a buffer.
    pub(crate) fn write(&self, buffer: &mut gst::BufferRef) -> Result<()> {
        let running = lock(&self.running);
        let Some(Running { opened: Some(opened), exchange, .. }) = running.as_ref() else {
            return Err(Error::Interrupted);
        };
        let (bytes, result) = (&exchange.result.bytes, &opened.formats.result);
        frame::write(bytes, result, &opened.output, buffer).map_err(Error::evaluation)
    }

    /// Posts the figures at the end of the stream.
    pub(crate) fn post_figures(&self, element: &gst::Element) {
        lock(&self.figures).post(element);
    }

    /// The flow after an error, which is posted unless the work was only stopped.
    pub(crate) fn failed(&self, element: &gst::Element, error: &Error) -> gst::FlowError {
        if matches!(error, Error::Interrupted) {
            // The processor was stopped within a frame.
            if let Some(running) = lock(&self.running).as_mut() {
                running.waiting.clear();
                running.is_cut = true;
            }
            return gst::FlowError::Flushing;
        }
        element.post_error_message(errors::message(error));
        gst::FlowError::Error
    }
}

fn without_rate(formats: &Formats) -> Formats {
    let rate = eddy::media::stream::Rate::of(1);
    let without = |video: &VideoFormat| VideoFormat { rate, ..video.clone() };
    Formats { video: without(&formats.video), result: without(&formats.result) }
}

fn check_scan(Formats { video, result }: &Formats) -> Result<()> {
    let problem = match video.scan {
        Scan::Mixed => "some frames are interlaced and some are not (interlace-mode=mixed)",
        Scan::TopFirst | Scan::BottomFirst if result.height != video.height => {
            "frames are interlaced, and only whole ones are enlarged"
        }
        _ => return Ok(()),
    };
    Err(Error::usage(format!("{problem}; put deinterlace in front")))
}

/// How long a frame may stay in the element: as long as its processing may take, and until the
/// frames after it have come that its network needs.
fn latency(info: &VideoInfo, target: Target, look_ahead: usize) -> gst::ClockTime {
    let fps = info.fps();
    let of_rate = |rate: f64| Duration::from_secs_f64(1.0 / rate);
    let period = match (fps.numer(), fps.denom()) {
        (frames @ 1.., seconds @ 1..) => of_rate(f64::from(frames) / f64::from(seconds)),
        _ => Duration::ZERO,
    };
    let work = target.deadline.or(target.rate.map(of_rate)).unwrap_or(period);
    let ahead = period * u32::try_from(look_ahead).unwrap_or_default();
    gst::ClockTime::try_from(work + ahead).unwrap_or_default()
}

/// How long ago a live frame was captured.
fn waiting_time(element: &gst::Element, buffer: &gst::BufferRef) -> Option<Duration> {
    let pad = element.static_pad("sink")?;
    let segment = pad.sticky_event::<gst::event::Segment<_>>(0)?;
    let segment = segment.segment().downcast_ref::<gst::ClockTime>()?;
    let captured = segment.to_running_time(buffer.pts()?)?;
    let now = element.clock()?.time().checked_sub(element.base_time()?)?;
    now.checked_sub(captured).map(Into::into)
}

/// The buffer without its memory, which its pool needs.
fn metadata_of(buffer: gst::Buffer) -> gst::Buffer {
    let flags =
        gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
    buffer.copy_region(flags, ..).unwrap_or(buffer)
}

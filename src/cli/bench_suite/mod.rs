//! `eddy bench --suite`: every bundled network for images, streams, start, memory, energy and
//! temperature of a machine, beside other programs.
//!
//! Each figure is measured by a process of its own: its peak memory is that of this figure alone,
//! and a failure does not end the suite.

mod child;
mod compare;
mod own;
mod page;
mod peers;
mod record;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use eddy::media::source;
use eddy::model::{CAMERA_DENOISER, Package, Precision, Task, WHITE_NOISE_DENOISER, bundled_names};
use eddy::{array, compile, machine};
use tempfile::TempDir;

use self::child::Failure;
use self::compare::Comparison;
use self::peers::Peer;
use self::record::{Kind, Record, Row};
use super::bench_video;
use super::interrupt;
use super::options::Size;
use super::run_args::RunArgs;

/// The options of a suite.
#[derive(Debug, Args)]
#[command(next_help_heading = "Suite")]
pub(super) struct SuiteOptions {
    /// Measure this machine with every bundled network for images, and other programs beside it
    ///
    /// That is start and memory, each size and precision, streams with and without --temporal,
    /// energy and temperature where the kernel reports them, and what is installed of ffmpeg,
    /// Python's onnxruntime, OpenCV and realesrgan-ncnn-vulkan. It ends within ten minutes, or S
    /// times that with --seconds S above 1; what there is no time for is left out, and the tables
    /// say so. They are printed in Markdown, or as one JSON object with --json.
    #[arg(long, conflicts_with_all = ["model", "video", "size", "steps", "within"])]
    suite: bool,

    /// Measure these models in place of the bundled ones
    #[arg(long, value_name = "MODEL,...", value_delimiter = ',', conflicts_with = "model")]
    models: Vec<String>,

    /// Measure at these sizes in place of 640x480, 1280x720 and 1920x1080
    #[arg(long, value_name = "WxH,...", value_delimiter = ',', conflicts_with = "model")]
    sizes: Vec<Size>,

    /// Save the record as JSON, after each figure
    #[arg(short, long, value_name = "FILE.json", conflicts_with = "model")]
    output: Option<PathBuf>,

    /// Compare with the record of an earlier suite
    #[arg(long, value_name = "OLD.json", conflicts_with = "model")]
    compare: Option<PathBuf>,
}

/// The duration of a suite whose figures take up to a second each.
const DURATION: f64 = 600.0;

/// A suite to run.
pub(super) struct Suite<'a> {
    pub(super) options: &'a SuiteOptions,
    pub(super) run: &'a RunArgs,
    /// The duration of each figure.
    pub(super) seconds: f64,
}

/// A model to measure.
struct Model {
    /// As it was given.
    name: String,
    package: Package,
}

/// One row to measure.
enum Job<'a> {
    Start(&'a Model),
    Image(&'a Model, Precision, Size),
    Stream(&'a Model, Precision, Size),
    Peer(Peer<'a>, Size),
}

/// What all rows need.
struct Session {
    /// This binary, and the options of its device and memory.
    program: PathBuf,
    arguments: Vec<OsString>,
    threads: usize,
    seconds: f64,
    deadline: Instant,
    /// A folder for images, frames and networks.
    folder: TempDir,
}

impl Suite<'_> {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { options, run, seconds } = self;
        let started = Instant::now();
        if let Some(output) = &options.output {
            array::check(output)?;
            source::refuse_replacing(options.compare.as_slice(), output)?;
        }
        let old = options.compare.as_deref().map(Record::read).transpose()?;
        run.device.lower_priority()?;
        let models = self.models()?;
        let jobs = self.jobs(&models)?;
        let session = self.session(started)?;
        let mut record = Record::new(command_line(), seconds);
        let bar = run.console.bar(jobs.len());
        for (index, job) in jobs.iter().enumerate() {
            if interrupt::poll().is_break() {
                break;
            }
            let mut row = job.row();
            bar.begin(index, &format!("{} {}", row.name, row.size()));
            match session.measure(job, &mut row, &mut record) {
                Ok(()) => {}
                Err(Failure::Interrupted) => break,
                Err(failure) => row.note = Some(failure.to_string()),
            }
            record.rows.push(row);
            record.complete = record.rows.len() == jobs.len();
            record.took_seconds = started.elapsed().as_secs_f64();
            record.machine.temperature_after_c = machine::temperature().map(|it| it.celsius);
            if let Some(output) = &options.output {
                save(&record, output)?;
            }
        }
        drop(bar);
        self.report(&record, old.as_ref(), jobs.len())
    }

    /// Prints the tables.
    fn report(&self, record: &Record, old: Option<&Record>, planned: usize) -> anyhow::Result<()> {
        let console = self.run.console;
        let comparison = old.map(|old| Comparison::of(old, record));
        let mut text = page::text(record, planned);
        let mut value = serde_json::to_value(record)?;
        if let (Some(comparison), Some(path)) = (&comparison, &self.options.compare) {
            if let Some(difference) = &comparison.machine {
                let path = path.display();
                console.note(format!("warning: {path} is of another machine: {difference}"));
            }
            text += &comparison.text(path);
            value["comparison"] = serde_json::to_value(comparison)?;
        }
        console.result(text, &value)?;
        interrupt::check()?;
        let own: Vec<&Row> = record.rows.iter().filter(|row| row.kind != Kind::Peer).collect();
        if let Some(first) = own.first().filter(|_| own.iter().all(|row| row.figures.is_empty())) {
            let why = first.note.as_deref().unwrap_or("no figure");
            let problem = format!("nothing could be measured; the first, {}, {why}", first.name);
            return Err(eddy::Error::evaluation(problem).into());
        }
        Ok(())
    }

    /// The requested models, or the bundled ones that take or make images of any size.
    fn models(&self) -> eddy::Result<Vec<Model>> {
        let open = |name: &str| -> eddy::Result<Model> {
            Ok(Model { name: name.to_owned(), package: Package::find(name)? })
        };
        if !self.options.models.is_empty() {
            return self.options.models.iter().map(|name| open(name)).collect();
        }
        let mut models: Vec<Model> =
            bundled_names().into_iter().map(open).collect::<eddy::Result<_>>()?;
        models.retain(|Model { package, .. }| {
            let manifest = &package.manifest;
            matches!(manifest.task, Task::Denoise | Task::Upscale | Task::Generate)
                && manifest.size.is_none()
        });
        Ok(models)
    }

    /// All rows in order: the sizes one after the other, so that the largest are left out where the
    /// time is over.
    fn jobs<'m>(&self, models: &'m [Model]) -> eddy::Result<Vec<Job<'m>>> {
        let requested = self.run.precision.requested();
        let sizes = match self.options.sizes.as_slice() {
            [] => bench_video::SIZES.map(|[width, height]| Size { width, height }).to_vec(),
            sizes => sizes.to_vec(),
        };
        let by_default = [CAMERA_DENOISER, WHITE_NOISE_DENOISER];
        let streams: Vec<&Model> = models
            .iter()
            .filter(|model| model.package.manifest.task == Task::Denoise)
            .filter(|model| {
                !self.options.models.is_empty() || by_default.contains(&model.name.as_str())
            })
            .collect();
        let starts = models.iter().filter(|model| own::start_command(model).is_some());
        let mut jobs: Vec<Job<'m>> = starts.map(Job::Start).collect();
        for (index, size) in sizes.into_iter().enumerate() {
            for model in models {
                let precisions = model.package.precisions(requested)?;
                jobs.extend(precisions.into_iter().map(|it| Job::Image(model, it, size)));
            }
            for model in &streams {
                let precisions = model.package.precisions(requested)?;
                jobs.extend(precisions.into_iter().map(|it| Job::Stream(model, it, size)));
            }
            let peers = Peer::all(models, &streams, index == 0);
            jobs.extend(peers.into_iter().map(|peer| Job::Peer(peer, size)));
        }
        Ok(jobs)
    }

    fn session(&self, started: Instant) -> anyhow::Result<Session> {
        let RunArgs { device, memory, .. } = self.run;
        let duration = Duration::from_secs_f64(DURATION * self.seconds.max(1.0));
        Ok(Session {
            program: std::env::current_exe()?,
            arguments: [device.arguments(), memory.arguments()].concat(),
            threads: device.threads(),
            seconds: self.seconds,
            deadline: started + duration,
            folder: tempfile::Builder::new().prefix("eddy-bench-").tempdir()?,
        })
    }
}

impl Job<'_> {
    /// The row, not measured yet.
    fn row(&self) -> Row {
        match self {
            Job::Start(model) => Row::new(Kind::Start, &model.name, None, own::TINY),
            Job::Image(model, precision, size) => {
                Row::new(Kind::Image, &model.name, Some(*precision), *size)
            }
            Job::Stream(model, precision, size) => {
                Row::new(Kind::Stream, &model.name, Some(*precision), *size)
            }
            Job::Peer(peer, size) => Row::new(Kind::Peer, &peer.name(), None, peer.size(*size)),
        }
    }
}

impl Session {
    fn measure(&self, job: &Job<'_>, row: &mut Row, record: &mut Record) -> Result<(), Failure> {
        match job {
            Job::Start(model) => self.start(model, row),
            Job::Image(..) => self.image(row, record),
            Job::Stream(..) => self.stream(row, record),
            Job::Peer(peer, _) => self.peer(peer, row, record),
        }
    }

    /// The time limit of one figure, in multiples of the duration of a figure, within that of the
    /// suite.
    fn limit(&self, seconds: f64) -> Duration {
        /// In less time, nothing is measured.
        const SHORTEST: Duration = Duration::from_secs(2);
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left < SHORTEST {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.scaled(seconds)).min(left)
    }

    /// A time limit for figures that take up to a second, scaled for longer ones.
    fn scaled(&self, seconds: f64) -> f64 {
        seconds * self.seconds.max(1.0)
    }
}

/// Writes a record. The file appears complete or not at all.
fn save(record: &Record, path: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(record)? + "\n";
    Ok(compile::save(text.as_bytes(), path)?)
}

/// The command line of this process.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let words = words.map(|word| shlex::try_quote(&word).map_or(word.clone(), Into::into));
    std::iter::once("eddy".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

//! The images of a run: what is read, where results go, and what happens after a failure.

use std::io::{Cursor, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use clap::Args;
use clap::builder::{PathBufValueParser, TypedValueParser};
use eddy::diffusion::Progress;
use eddy::machine::{Health, Sandbox, is_stdout_closed};
use eddy::media::source::{self, Job};
use eddy::media::stream::{self, SinkFormat};
use eddy::media::{Format, Image, still};
use eddy::video::record;
use serde_json::{Value, json};

use super::console::{Bar, Console, SomeFailed, cannot_print};
use super::interrupt;
use super::options::SyncOption;
use super::run_args::NetworkRecord;
use super::sandbox::confine_files;

/// Input and output.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input and output")]
pub(crate) struct IoArgs {
    /// Images or folders of images (PNG, JPEG, WebP, TIFF, BMP, QOI; with ffmpeg also AVIF, HEIF,
    /// JPEG 2000), or one stream: a .y4m file, `-` for stdin, any source of ffmpeg, or a GStreamer
    /// pipeline (gst:...); `-` may also be an image
    #[arg(
        required_unless_present = "input",
        value_name = "SOURCE",
        value_parser = PathBufValueParser::new().map(source_named)
    )]
    sources: Vec<PathBuf>,

    /// The same as SOURCE, as in ffmpeg
    #[arg(
        short = 'i',
        value_name = "SOURCE",
        conflicts_with = "sources",
        hide = true,
        value_parser = PathBufValueParser::new().map(source_named)
    )]
    input: Vec<PathBuf>,

    /// The image to write, or a folder for several; for a stream a .y4m file, `-` for stdout (which
    /// gets an image for an image from stdin), a folder, any container of ffmpeg, or a server
    /// (rtsp://...)
    #[arg(short, long, value_name = "SINK")]
    output: PathBuf,

    /// Format to write: png, jpg, webp, tiff, bmp or qoi, or y4m or raw for a stream; by default
    /// the extension of the output
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<OutputFormat>,

    /// Descend into folders; results go into folders of the same names
    #[arg(short, long)]
    recursive: bool,

    /// JPEG quality, 1 to 100
    #[arg(
        long,
        value_name = "Q",
        default_value_t = still::Options::default().jpeg_quality,
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    jpeg_quality: u8,

    #[command(flatten)]
    pub(crate) sync: SyncOption,
}

/// The help of the same options where only images are processed.
pub(crate) const IMAGES: &str = "Images, folders of images, or `-` for an image from stdin";
pub(crate) const IMAGE_OUTPUT: &str =
    "The image to write, `-` for stdout, or the folder where several go";
pub(crate) const IMAGE_FORMAT: &str =
    "Format to write: png, jpg, webp, tiff, bmp or qoi; by default the extension of the output";

/// A format of the output.
#[derive(Clone, Copy, Debug)]
enum OutputFormat {
    Image(Format),
    Y4m,
    Raw,
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "y4m" => Ok(Self::Y4m),
            "raw" => Ok(Self::Raw),
            _ => text
                .parse()
                .map(Self::Image)
                .map_err(|error: eddy::Error| format!("{error}; or y4m or raw for a stream")),
        }
    }
}

/// One image of a run.
pub(crate) struct ImageJob<'a> {
    /// Its index in the run.
    pub(crate) index: usize,
    /// Its input and output.
    pub(crate) job: &'a Job,
    /// Shows progress and results.
    pub(crate) bar: &'a Bar,
}

impl IoArgs {
    /// Adds the files to a sandbox.
    ///
    /// # Errors
    /// [`eddy::Error::Usage`] for what is no file.
    pub(crate) fn confine(&self, sandbox: Sandbox) -> eddy::Result<Sandbox> {
        confine_files(sandbox, self.sources().iter().map(PathBuf::as_path), &self.output)
    }

    /// The images to process. Fails if a result would replace an input or a file in `also_read`.
    pub(crate) fn jobs(&self, also_read: &[PathBuf], console: Console) -> eddy::Result<Vec<Job>> {
        let jobs = self.all_jobs(console)?;
        for job in &jobs {
            source::refuse_replacing(also_read, &job.output)?;
        }
        Ok(jobs)
    }

    fn all_jobs(&self, console: Console) -> eddy::Result<Vec<Job>> {
        if self.is_standard_image()? {
            let job = self.standard_job()?;
            source::refuse_replacing(&[&job.input], &job.output)?;
            return Ok(vec![job]);
        }
        let format = match self.format {
            Some(OutputFormat::Image(format)) => Some(format),
            _ => None,
        };
        if self.recursive {
            return source::jobs_below(self.sources(), &self.output, format);
        }
        let jobs = source::jobs(self.sources(), &self.output, format)?;
        if let [first, others @ ..] =
            source::folders_left_out(self.sources(), &self.output)?.as_slice()
        {
            let more = if others.is_empty() {
                String::new()
            } else {
                format!(" and {} more", others.len())
            };
            console.note(format!(
                "left out: the folder {}{more}; --recursive processes its files",
                first.display()
            ));
        }
        Ok(jobs)
    }

    /// Whether a single image is read from standard input or written to standard output.
    pub(crate) fn is_standard_image(&self) -> eddy::Result<bool> {
        let [source] = self.sources() else { return Ok(false) };
        if self.is_stream_requested() {
            return Ok(false);
        }
        if is_standard(source) {
            return stream::standard_input_is_image();
        }
        Ok(is_standard(&self.output)
            && source.is_file()
            && !stream::is_source(source)
            && Format::from_path(source).is_some())
    }

    /// The image that is read from standard input or written to standard output.
    fn standard_job(&self) -> eddy::Result<Job> {
        let requested = match self.format {
            Some(OutputFormat::Image(format)) => Some(format),
            _ => Format::from_path(&self.output),
        };
        let Some(input) = self.sources().first().cloned() else {
            return Err(eddy::Error::usage("no source is given"));
        };
        if self.output.is_dir() || source::ends_in_slash(&self.output) {
            return Err(eddy::Error::usage(
                "an image from standard input has no name; give the result's, or - for standard \
                 output",
            ));
        }
        if is_standard(&self.output) {
            if is_stdout_closed() {
                return Err(eddy::Error::Output {
                    path: "standard output".into(),
                    problem: eddy::media::stream::CLOSED.into(),
                    source: None,
                });
            }
            let format = match requested {
                Some(format) => format,
                // In the input's format.
                None => match Format::from_path(&input) {
                    Some(format) => format,
                    None => stream::standard_input_format()?,
                },
            };
            return Ok(Job { input, output: self.output.clone(), format });
        }
        let format = requested.ok_or_else(|| {
            let output = self.output.display();
            eddy::Error::usage(format!(
                "the name {output} has an unknown extension of an image; end it in .png or the \
                 like, or give one with -f"
            ))
        })?;
        Ok(Job { input, output: self.output.clone(), format })
    }

    /// Rejects image-only options for a stream.
    pub(crate) fn refuse_recursion(&self) -> eddy::Result<()> {
        if self.recursive {
            return Err(eddy::Error::usage(
                "a stream takes the images of one folder; leave --recursive out",
            ));
        }
        Ok(())
    }

    pub(crate) fn sources(&self) -> &[PathBuf] {
        if self.sources.is_empty() { &self.input } else { &self.sources }
    }

    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    pub(crate) fn options(&self) -> still::Options {
        still::Options { jpeg_quality: self.jpeg_quality }
    }

    /// Whether the requested format is a stream format.
    pub(crate) fn is_stream_requested(&self) -> bool {
        matches!(self.format, Some(OutputFormat::Y4m | OutputFormat::Raw))
    }

    /// The requested format of a stream.
    pub(crate) fn sink_format(&self) -> Option<SinkFormat> {
        self.format.map(|format| match format {
            OutputFormat::Image(format) => SinkFormat::ImageSequence(format),
            OutputFormat::Y4m => SinkFormat::Y4m,
            OutputFormat::Raw => SinkFormat::Raw,
        })
    }

    /// Processes each job with `one`. Failures are reported and the run continues, unless the error
    /// affects all images.
    pub(crate) fn each(
        jobs: &[Job],
        console: Console,
        mut one: impl FnMut(&ImageJob<'_>) -> eddy::Result<()>,
    ) -> anyhow::Result<()> {
        let bar = console.bar(jobs.len());
        let mut first_failure = None;
        let mut failed = 0;
        let mut health = Health::default();
        for (index, job) in jobs.iter().enumerate() {
            bar.begin(index, &job.input.display().to_string());
            // Also before each image, since an image without evaluations never checks.
            interrupt::check()?;
            match one(&ImageJob { index, job, bar: &bar }) {
                Ok(()) => {}
                // A single image, or an error that affects all images.
                Err(error) if jobs.len() == 1 || ends_the_run(&error) => return Err(error.into()),
                Err(error) => {
                    bar.error(&error);
                    failed += 1;
                    first_failure.get_or_insert(error.exit_code());
                }
            }
            health.unreported().iter().for_each(|problem| bar.note(problem.to_string()));
        }
        drop(bar);
        match first_failure {
            None => Ok(()),
            Some(exit_code) => Err(SomeFailed { failed, total: jobs.len(), exit_code }.into()),
        }
    }

    /// Writes the result of a job, whose processing began at `started`, and reports it. The text is
    /// `summary` with the time, and the JSON record `fields` with those of all commands.
    pub(crate) fn finish(
        &self,
        job: &ImageJob<'_>,
        image: &Image,
        started: Instant,
        network: &NetworkRecord,
        summary: &str,
        fields: Value,
    ) -> eddy::Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        let warnings = self.write(image, job)?;
        let mut record = json!({
            "input": job.job.input.to_string_lossy(), "output": job.job.output.to_string_lossy(),
            "width": image.width, "height": image.height, "seconds": seconds,
            "warnings": warnings, "model": network.model, "precision": network.precision.name(),
            "device": network.device.to_string(),
        });
        record::extend(&mut record, fields);
        job.report(&format!("{summary}, {seconds:.2} s"), &record)
    }

    /// Writes a result, and returns what its format cannot store.
    fn write(&self, image: &Image, job: &ImageJob<'_>) -> eddy::Result<Vec<String>> {
        let (output, format) = (&job.job.output, job.job.format);
        let warnings = if is_standard(output) {
            let (bytes, warnings) = still::encode_bytes(image, format, &self.options())?;
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&bytes).and_then(|()| stdout.flush()).map_err(cannot_print)?;
            warnings
        } else {
            still::write(image, output, format, &self.options())?
        };
        for warning in &warnings {
            job.bar.note(format!("{}: {warning}", job.job.output.display()));
        }
        Ok(warnings.iter().map(ToString::to_string).collect())
    }
}

impl ImageJob<'_> {
    /// The path of the image to process.
    pub(crate) fn source(&self) -> &Path {
        &self.job.input
    }

    /// The image to process, read within `limits`.
    pub(crate) fn read(&self, limits: &still::Limits) -> eddy::Result<Image> {
        if !is_standard(&self.job.input) {
            return still::read(&self.job.input, limits);
        }
        let name = Path::new("standard input");
        let mut bytes = Vec::new();
        // Reading from standard input may block forever.
        let _opening = interrupt::guard_opening(None);
        // The limit is larger than any file of an image that is accepted.
        let read = stream::read_standard_input()?
            .take(limits.max_memory.min(2 * limits.max_bytes))
            .read_to_end(&mut bytes);
        read.map_err(|cause| eddy::Error::input_from(name, "it cannot be read", cause))?;
        still::decode(name, Cursor::new(bytes), limits)
    }

    /// Shows progress and checks for an interrupt, after every evaluation.
    pub(crate) fn on_progress(&self, progress: Progress) -> ControlFlow<()> {
        self.bar.advance(self.index, progress);
        interrupt::poll()
    }

    /// Checks that the result can be written, before processing.
    pub(crate) fn check(&self, image: &Image) -> eddy::Result<()> {
        still::check(image, &self.job.output, self.job.format)
    }

    /// Reports that the image is done, as text and as JSON.
    fn report(&self, text: &str, record: &Value) -> eddy::Result<()> {
        let (input, output) = (self.job.input.display(), self.job.output.display());
        let reported = self.bar.report_beside(
            is_standard(&self.job.output),
            format!("{input} -> {output}: {text}"),
            record,
        );
        reported.map_err(|error| {
            error.downcast().unwrap_or_else(|cause| {
                eddy::Error::output_from("standard output", "writing failed", cause)
            })
        })
    }
}

/// The path of a source; names of standard input on Linux become `-`.
fn source_named(path: PathBuf) -> PathBuf {
    let is_standard_input =
        ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"].iter().any(|name| path == Path::new(name));
    if is_standard_input { "-".into() } else { path }
}

/// Whether a path means standard input or output.
fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// `1 step`, `3 steps`.
pub(crate) fn steps(count: usize) -> String {
    counted(count as u64, "step")
}

/// `1 evaluation`, `3 evaluations`.
pub(crate) fn evaluations(count: usize) -> String {
    counted(count as u64, "evaluation")
}

/// `1 frame`, `3 frames`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `one image`, `3 images`, and what each takes: `1 evaluation`, `4 evaluations each`.
pub(crate) fn images(count: usize, evaluations: usize) -> [String; 2] {
    let taken = self::evaluations(evaluations);
    match count {
        1 => ["one image".to_owned(), taken],
        _ => [format!("{count} images"), format!("{taken} each")],
    }
}

/// `one tile`, `6 tiles of 512x512`.
pub(crate) fn tiles(count: usize, (width, height): (usize, usize)) -> String {
    match count {
        0 => "nothing to do".to_owned(),
        1 => "one tile".to_owned(),
        count => format!("{count} tiles of {width}x{height}"),
    }
}

/// Empty, or `, 2 invalid tiles repeated in f32`.
pub(crate) fn repeated(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => ", 1 invalid tile repeated in f32".to_owned(),
        count => format!(", {count} invalid tiles repeated in f32"),
    }
}

/// Whether an error would affect all images.
fn ends_the_run(error: &eddy::Error) -> bool {
    matches!(
        error,
        eddy::Error::Interrupted
            | eddy::Error::Model { .. }
            | eddy::Error::Runtime { .. }
            | eddy::Error::Device { .. }
            | eddy::Error::Usage { .. }
    )
}

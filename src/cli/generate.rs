//! `eddy generate`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use clap::builder::ArgPredicate;
use eddy::array;
use eddy::diffusion::{ClassifierFreeOptions, Guidance, NoiseSource};
use eddy::machine::Sandbox;
use eddy::media::source::{ends_in_slash, refuse_replacing};
use eddy::media::still;
use eddy::media::{Format, Image};
use eddy::model::{ModelFolder, Package};
use eddy::stages::is_pipeline;
use eddy::task::{Classes, Classifier, GenerateOptions, GenerateRequest, Generator, as_images};
use ndarray::{Array4, Axis};
use serde_json::json;

use super::generate_args::{SamplerOptions, tabled};
use super::generate_text_to_image::PipelineOptions;
use super::interrupt;
use super::io_args::images;
use super::onnx_options::refuse_onnx;
use super::options::{NoiseOptions, Size, SyncOption};
use super::prompt_options::{GuidanceOptions, PromptOptions};
use super::run_args::RunArgs;
use super::sandbox::{SandboxOption, confine_files};

/// Generate images from noise
///
/// Each image has its own seed, the first `--seed`, and is the same whether generated alone or in a
/// batch. Its parameters are stored in the PNG, under `parameters`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy generate -m digits-ddpm --class 7 --count 16 --grid -o sevens.png"
)]
pub(crate) struct Arguments {
    /// The image to write; a folder for several, unless they form a --grid; or a .npy file of all
    /// of them, [images, C, H, W], black 0 and white 1
    #[arg(short, long, value_name = "SINK", help_heading = "Input and output")]
    pub(super) output: PathBuf,

    /// Start from this image plus noise, rather than from noise alone
    #[arg(long, value_name = "IMAGE", help_heading = "Input and output")]
    pub(super) from: Option<PathBuf>,

    /// Part of the noise schedule that is sampled, from 0 to 1: 1 starts from noise, a smaller
    /// part keeps more of that image. Default: 0.6, or that of a pipeline in the diffusers layout
    #[arg(long, value_name = "F", requires = "from", help_heading = "Input and output")]
    pub(super) strength: Option<f64>,

    /// Number of images
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        help_heading = "Input and output"
    )]
    pub(super) count: u32,

    /// Write all images as one grid
    #[arg(long, help_heading = "Input and output")]
    pub(super) grid: bool,

    /// Width and height; by default the model's, or 256x256
    #[arg(long, value_name = "WxH", help_heading = "Input and output")]
    pub(super) size: Option<Size>,

    /// A bundled model, the folder of a model package, or a folder in the diffusers layout. With a
    /// --prompt the default is shapes-glide
    #[arg(
        short,
        long,
        value_name = "MODEL",
        default_value = "prior",
        default_value_if("prompt", ArgPredicate::IsPresent, "shapes-glide"),
        help_heading = "Model"
    )]
    pub(super) model: String,

    #[command(flatten)]
    pub(super) prompts: PromptOptions,

    #[command(flatten)]
    pub(super) pipeline: PipelineOptions,

    /// The class to generate; several, such as 0,1,2, take turns. By default unconditional, if the
    /// model was trained so
    #[arg(long, value_name = "K", value_delimiter = ',', help_heading = "Guidance")]
    pub(super) class: Vec<usize>,

    /// The negative class of guidance, in place of the unconditional one
    #[arg(long, value_name = "K", requires = "class", help_heading = "Guidance")]
    pub(super) negative_class: Option<usize>,

    #[command(flatten)]
    pub(super) guidance: GuidanceOptions,

    /// Classifier guidance by this classifier, a bundled model or the folder of a model package
    #[arg(long, value_name = "MODEL", requires = "class", help_heading = "Guidance")]
    pub(super) classifier: Option<String>,

    #[command(flatten)]
    pub(super) sampling: SamplerOptions,

    #[command(flatten)]
    pub(super) noise: NoiseOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The default part of the schedule that is sampled for a start image.
const DEFAULT_STRENGTH: f64 = 0.6;

/// The batch size: images that are generated at once.
const BATCH: usize = 16;

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let from: Vec<PathBuf> = self.from.iter().cloned().chain(self.noise.files()).collect();
        let sources = from.iter().map(PathBuf::as_path).chain(self.pipeline.files());
        let sandbox = confine_files(sandbox, sources, &self.output)?;
        let models = self.classifier.iter().chain([&self.model]).map(Path::new);
        let sandbox = models.fold(self.run.device.confine(sandbox)?, Sandbox::model);
        let steps = self.sampling.save_steps.iter();
        Ok(Some(steps.fold(sandbox, |it, folder| it.write(folder))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        self.guidance.check()?;
        if is_pipeline(&ModelFolder::find(&self.model)) {
            return self.run_staged();
        }
        refuse_onnx(&self.model)?;
        let package = Package::find(&self.model)?;
        if let Some(option) = self.prompts.given().or(self.pipeline.given()) {
            return Err(eddy::Error::usage(format!(
                "{} has no text encoder, so {option} does not apply to it; take a folder in the \
                 diffusers layout that has one",
                self.model
            ))
            .into());
        }
        let sink = Sink::choose(&self.output, self.count as usize, self.grid)?;
        let also_read: Vec<PathBuf> = self.from.iter().cloned().chain(self.noise.files()).collect();
        match &sink {
            Sink::Folder(folder) if !also_read.is_empty() => {
                (0..self.count.into()).try_for_each(|i| {
                    refuse_replacing(
                        &also_read,
                        &numbered(folder, self.sampling.seed.wrapping_add(i)),
                    )
                })?
            }
            _ => refuse_replacing(&also_read, &self.output)?,
        }
        let opened = self.run.open()?;
        let precision = self.run.precision.on(opened.device(), &package);
        let mut network = opened.network_with_fallback(&package, precision)?;
        let led = self.classifier.as_deref().map(Package::find).transpose()?;
        let mut classifier = match &led {
            Some(package) => {
                let precision = self.run.precision.on(opened.device(), package);
                Some(opened.network(package, precision)?)
            }
            None => None,
        };
        let strength = self.from.is_some().then_some(self.strength.unwrap_or(DEFAULT_STRENGTH));
        let options = GenerateOptions { strength, ..self.sampling.options(&self.run.memory) };
        let mut decoder = opened.decoder(&package)?;
        let mut generator =
            Generator::new(&package.manifest, &mut network, options)?.decoded_by(decoder.as_mut());
        let scale = self
            .guidance
            .guidance_scale
            .or(package.manifest.defaults.guidance_scale)
            .unwrap_or(1.0);
        if let (Some(package), Some(network)) = (&led, &mut classifier) {
            let scale = self.guidance.guidance_scale.unwrap_or(1.0);
            generator = generator.with_classifier(Classifier {
                manifest: &package.manifest,
                network,
                scale,
            })?;
        }
        let [width, height] = generator.size(self.size.map(|size| [size.width, size.height]))?;
        let given = self.noise.read()?;
        let start = self
            .from
            .as_ref()
            .map(|path| still::read(path, &self.run.memory.limits()))
            .transpose()?;
        // Generated images have no EXIF block.
        let start = start.map(Image::upright);
        let mut step_writer = self.sampling.step_writer(&generator)?;
        let count = self.count as usize;
        let bar = self.run.console.bar(count.div_ceil(BATCH));
        let begun = Instant::now();
        let (mut generated, mut tensors) = (Vec::new(), Vec::new());
        for first in (0..count).step_by(BATCH) {
            let many = BATCH.min(count - first);
            bar.begin(first / BATCH, &self.model);
            interrupt::check()?;
            let seeds: Vec<u64> =
                (first..first + many).map(|i| self.sampling.seed.wrapping_add(i as u64)).collect();
            let guides = step_writer
                .iter_mut()
                .map(|step_writer| step_writer as &mut dyn Guidance)
                .collect();
            let start = start.as_ref().map(|image| generator.planes(image, many)).transpose()?;
            let (initial, fresh) = given.of(first, many)?;
            let fresh = fresh.as_ref().map(|fresh| fresh as &dyn NoiseSource);
            let is_conditioned = !package.manifest.unconditional.is_empty();
            let classes = self.classes(first, many, scale, is_conditioned);
            let request = GenerateRequest {
                seeds: seeds.clone(),
                classes,
                start,
                initial,
                fresh,
                guides,
                ..GenerateRequest::default()
            };
            let images = generator.generate([width, height], request, &mut |progress| {
                bar.advance(first / BATCH, progress);
                interrupt::poll()
            })?;
            if let Sink::Tensor(_) = &sink {
                // Like the images, but not rounded.
                tensors.push(images.mapv(|value| generator.range().to_unit(value).clamp(0.0, 1.0)));
                continue;
            }
            for ((i, seed), mut image) in
                (first..).zip(seeds).zip(as_images(&images, generator.range())?)
            {
                image.metadata.note = Some(self.note(&package, &generator, i, seed, scale));
                sink.put(image, seed, &mut generated)?;
            }
        }
        sink.finish(&generated, &tensors)?;
        let seconds = begun.elapsed().as_secs_f64();
        let (sampler, evaluations) = (generator.sampler(), generator.evaluations());
        let [what, taken] = images(count, evaluations);
        let line = format!(
            "{}: {what} of {width}x{height} by {}, {sampler}, {taken}, {seconds:.2} s",
            self.output.display(),
            self.model
        );
        let record = json!({
            "output": self.output.to_string_lossy(), "count": count, "width": width,
            "height": height, "model": self.model,
            "sampler": sampler.name(), "evaluations": evaluations, "seed": self.sampling.seed,
            "seconds": seconds,
            "device": opened.device().to_string(),
        });
        bar.report(line, &record)
    }

    pub(super) fn class(&self, i: usize) -> Option<usize> {
        self.class.get(i % self.class.len().max(1)).copied()
    }

    /// The classes and the options of guidance; none for a network without conditions.
    fn classes(
        &self,
        first: usize,
        many: usize,
        scale: f64,
        is_conditioned: bool,
    ) -> Option<Classes> {
        let labels: Option<Vec<usize>> = (first..first + many).map(|i| self.class(i)).collect();
        let labels = labels.or_else(|| is_conditioned.then(Vec::new));
        let interval = self.guidance.guidance_interval.unwrap_or([0.0, f64::INFINITY]);
        let options =
            ClassifierFreeOptions { scale, rescale: self.guidance.guidance_rescale, interval };
        Some(Classes { labels: labels?, negative: self.negative_class, options })
    }

    /// The parameters from which the image can be generated again.
    fn note(
        &self,
        package: &Package,
        generator: &Generator<'_>,
        i: usize,
        seed: u64,
        scale: f64,
    ) -> String {
        let manifest = &package.manifest;
        let files = manifest.files.iter();
        let sha256: BTreeMap<_, _> =
            files.map(|(precision, file)| (precision.name(), file.sha256.as_str())).collect();
        let mut note = json!({
            "eddy": env!("CARGO_PKG_VERSION"), "model": self.model, "version": manifest.version,
            "seed": seed, "sampler": generator.sampler().name(),
            "evaluations": generator.evaluations(),
            "sha256": sha256,
        });
        let mut add = |key: &str, value: serde_json::Value| note[key] = value;
        if let Some(class) = self.class(i) {
            add("class", class.into());
            add("guidance_scale", scale.into());
            add("guidance_rescale", self.guidance.guidance_rescale.into());
        }
        if let Some(interval) = self.guidance.guidance_interval {
            add("guidance_interval", json!(interval));
        }
        if let Some(class) = self.negative_class {
            add("negative_class", class.into());
        }
        if let Some(classifier) = &self.classifier {
            add("classifier", classifier.as_str().into());
        }
        if let Some(from) = &self.from {
            add("from", from.to_string_lossy().into());
            add("strength", self.strength.unwrap_or(DEFAULT_STRENGTH).into());
        }
        note.to_string()
    }
}

/// The file name of an image in a folder, by its random seed.
fn numbered(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("{seed:06}.png"))
}

/// Where images are written.
pub(super) enum Sink {
    Tensor(PathBuf),
    One(PathBuf, Format),
    Grid(PathBuf, Format),
    Folder(PathBuf),
}

impl Sink {
    /// Writes an image, or keeps it for the grid.
    pub(super) fn put(&self, image: Image, seed: u64, kept: &mut Vec<Image>) -> eddy::Result<()> {
        let options = still::Options::default();
        match self {
            Self::Grid(..) => kept.push(image),
            Self::Tensor(_) => {}
            Self::One(path, format) => drop(still::write(&image, path, *format, &options)?),
            Self::Folder(folder) => {
                drop(still::write(&image, &numbered(folder, seed), Format::Png, &options)?);
            }
        }
        Ok(())
    }

    /// Writes what goes into one file: the grid of the images that were kept, with about as many
    /// rows as columns, or all tensors.
    pub(super) fn finish(&self, kept: &[Image], tensors: &[Array4<f32>]) -> eddy::Result<()> {
        if let Self::Tensor(path) = self {
            let views: Vec<_> = tensors.iter().map(|tensor| tensor.view()).collect();
            let whole = ndarray::concatenate(Axis(0), &views).map_err(|cause| {
                eddy::Error::evaluation(format!(
                    "images of different sizes were generated: {cause}"
                ))
            })?;
            return array::write(&whole, path);
        }
        let Self::Grid(path, format) = self else { return Ok(()) };
        let mut grid = tabled(kept, (kept.len() as f64).sqrt().ceil() as usize);
        grid.metadata.note = kept.first().and_then(|image| image.metadata.note.clone());
        still::write(&grid, path, *format, &still::Options::default()).map(drop)
    }

    pub(super) fn choose(output: &Path, count: usize, grid: bool) -> eddy::Result<Self> {
        let is_folder = output.is_dir() || ends_in_slash(output);
        if is_folder && !grid {
            let problem = "the folder cannot be created";
            eddy::durable::create_folder(output)
                .map_err(|cause| eddy::Error::output_from(output, problem, cause))?;
            return Ok(Self::Folder(output.to_owned()));
        }
        if !is_folder
            && !grid
            && output.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"))
        {
            array::check(output)?;
            return Ok(Self::Tensor(output.to_owned()));
        }
        let format = Format::from_path(output).filter(|_| !is_folder).ok_or_else(|| {
            eddy::Error::usage(format!(
                "{} does not have the extension of an image; end it in .png",
                output.display()
            ))
        })?;
        match (grid, count) {
            (true, _) => Ok(Self::Grid(output.to_owned(), format)),
            (false, 1) => Ok(Self::One(output.to_owned(), format)),
            _ => Err(eddy::Error::usage(format!(
                "{count} images do not go into {}; name a folder (end it in /), or ask for a \
                 --grid",
                output.display()
            ))),
        }
    }
}

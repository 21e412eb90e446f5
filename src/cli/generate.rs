//! `eddy generate`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::array;
use eddy::diffusion::{ClassifierFreeOptions, Guidance, NoiseSource};
use eddy::media::source::{ends_in_slash, refuse_replacing};
use eddy::media::still;
use eddy::media::{Format, Image};
use eddy::model::Package;
use eddy::task::{Classes, Classifier, GenerateOptions, GenerateRequest, Generator, as_images};
use ndarray::Axis;
use serde_json::json;

use super::console::Console;
use super::generate_args::{DrawingOptions, tabled};
use super::interrupt;
use super::onnx_options::refuse_onnx;
use super::options::{
    DeviceOptions, MemoryOptions, NoiseOptions, PrecisionOption, Size, SyncOption, pair,
};

/// Generate images from noise
///
/// Each image has its own seed, the first `--seed`, and is the same whether generated alone or in a
/// batch. Its parameters are stored in the PNG, under `parameters`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy generate -m digits-ddpm --class 7 --count 16 --grid -o sevens.png"
)]
pub(crate) struct Arguments {
    /// The image to write; a folder where several go, unless they are a --grid; or a .npy file for
    /// all of them, [images, C, H, W], black 0 and white 1
    #[arg(short, long, value_name = "SINK", help_heading = "Input and output")]
    output: PathBuf,

    /// Start from this image plus noise, rather than from noise alone
    #[arg(long, value_name = "IMAGE", help_heading = "Input and output")]
    from: Option<PathBuf>,

    /// How much noise is added to that image, from 0 to 1
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.6,
        requires = "from",
        help_heading = "Input and output"
    )]
    strength: f64,

    /// How many images
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Input and output")]
    count: u32,

    /// Write all images as one grid
    #[arg(long, help_heading = "Input and output")]
    grid: bool,

    /// Width and height; the model's own, or 256x256, when left out
    #[arg(long, value_name = "WxH", help_heading = "Input and output")]
    size: Option<Size>,

    /// A bundled model or the folder of a model package
    #[arg(short, long, value_name = "MODEL", default_value = "prior", help_heading = "Model")]
    model: String,

    /// The class to generate; several, such as 0,1,2, take turns
    #[arg(long, value_name = "K", value_delimiter = ',', help_heading = "Guidance")]
    class: Vec<usize>,

    /// Negative class (prompt), in place of images of no class
    #[arg(long, value_name = "K", requires = "class", help_heading = "Guidance")]
    negative_class: Option<usize>,

    /// Guidance scale: 1 is the conditional model, more has higher fidelity and less diversity;
    /// with --classifier the inverse of its temperature. The model's own when left out
    #[arg(long, value_name = "F", help_heading = "Guidance")]
    guidance_scale: Option<f64>,

    /// Guidance rescale, from 0 to 1: how much of the contrast that guidance adds is removed
    #[arg(long, value_name = "F", default_value_t = 0.0, help_heading = "Guidance")]
    guidance_rescale: f64,

    /// Guidance interval: guide only between these sigmas, such as 0.3,5
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval, help_heading = "Guidance")]
    guidance_interval: Option<[f64; 2]>,

    /// Classifier guidance by this classifier, a bundled model or the folder of a model package
    #[arg(long, value_name = "MODEL", requires = "class", help_heading = "Guidance")]
    classifier: Option<String>,

    #[command(flatten)]
    precision: PrecisionOption,

    #[command(flatten)]
    drawing: DrawingOptions,

    #[command(flatten)]
    noise: NoiseOptions,

    #[command(flatten)]
    memory: MemoryOptions,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

fn interval(text: &str) -> Result<[f64; 2], &'static str> {
    let parsed = pair(text).ok();
    parsed
        .filter(|[low, high]| 0.0 <= *low && low < high)
        .ok_or("expected two sigmas, such as 0.3,5")
}

/// The batch size: images that are generated at once.
const BATCH: usize = 16;

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        if let Some(scale) = self.guidance_scale
            && !(scale.is_finite() && scale >= 0.0)
        {
            return Err(eddy::Error::usage(format!(
                "guidance scale {scale} is none; expected a number from 0 on"
            ))
            .into());
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(eddy::Error::usage("--guidance-rescale must lie between 0 and 1").into());
        }
        refuse_onnx(&self.model)?;
        let package = Package::find(&self.model)?;
        let sink = Sink::choose(&self.output, self.count as usize, self.grid)?;
        let also_read: Vec<PathBuf> = self.from.iter().cloned().chain(self.noise.files()).collect();
        match &sink {
            Sink::Folder(folder) if !also_read.is_empty() => {
                (0..self.count.into()).try_for_each(|i| {
                    refuse_replacing(
                        &also_read,
                        &numbered(folder, self.drawing.seed.wrapping_add(i)),
                    )
                })?
            }
            _ => refuse_replacing(&also_read, &self.output)?,
        }
        let opened = self.device.open_within(&self.memory, self.console)?;
        let precision = self.precision.on(opened.device(), &package);
        let mut network = opened.guarded(&package, precision)?;
        let led = self.classifier.as_deref().map(Package::find).transpose()?;
        let mut classifier = match &led {
            Some(package) => {
                let precision = self.precision.on(opened.device(), package);
                Some(opened.network(package, precision)?)
            }
            None => None,
        };
        let strength = self.from.is_some().then_some(self.strength);
        let options = GenerateOptions { strength, ..self.drawing.options(&self.memory) };
        let mut decoder = opened.decoder(&package)?;
        let mut drawer =
            Generator::new(&package.manifest, &mut network, options)?.decoded_by(decoder.as_mut());
        let scale = self.guidance_scale.or(package.manifest.defaults.guidance_scale).unwrap_or(1.0);
        if let (Some(package), Some(network)) = (&led, &mut classifier) {
            let scale = self.guidance_scale.unwrap_or(1.0);
            drawer = drawer.with_classifier(Classifier {
                manifest: &package.manifest,
                network,
                scale,
            })?;
        }
        let [width, height] = drawer.size(self.size.map(|size| [size.width, size.height]))?;
        let given = self.noise.read()?;
        let start =
            self.from.as_ref().map(|path| still::read(path, &self.memory.limits())).transpose()?;
        // Generated images have no EXIF block.
        let start = start.map(Image::upright);
        let mut keeper = self.drawing.keeper(&drawer)?;
        let count = self.count as usize;
        let bar = self.console.bar(count.div_ceil(BATCH));
        let begun = Instant::now();
        let (mut drawn, mut tensors) = (Vec::new(), Vec::new());
        for first in (0..count).step_by(BATCH) {
            let many = BATCH.min(count - first);
            bar.begin(first / BATCH, &self.model);
            interrupt::check()?;
            let seeds: Vec<u64> =
                (first..first + many).map(|i| self.drawing.seed.wrapping_add(i as u64)).collect();
            let guides = keeper.iter_mut().map(|keeper| keeper as &mut dyn Guidance).collect();
            let start = start.as_ref().map(|image| drawer.planes(image, many)).transpose()?;
            let (initial, fresh) = given.of(first, many)?;
            let fresh = fresh.as_ref().map(|fresh| fresh as &dyn NoiseSource);
            let classes = self.classes(first, many, scale);
            let drawing = GenerateRequest {
                seeds: seeds.clone(),
                classes,
                start,
                initial,
                fresh,
                guides,
                ..GenerateRequest::default()
            };
            let images = drawer.draw([width, height], drawing, &mut |progress| {
                bar.advance(first / BATCH, progress);
                interrupt::poll()
            })?;
            if let Sink::Tensor(_) = &sink {
                // Like the images, but not rounded.
                tensors.push(images.mapv(|value| drawer.range().to_unit(value).clamp(0.0, 1.0)));
                continue;
            }
            for ((i, seed), mut image) in
                (first..).zip(seeds).zip(as_images(&images, drawer.range())?)
            {
                image.metadata.note = Some(self.note(&package, &drawer, i, seed, scale));
                match &sink {
                    Sink::Grid(..) => drawn.push(image),
                    Sink::Tensor(_) => {}
                    Sink::One(path, format) => {
                        drop(still::write(&image, path, *format, &still::Options::default())?)
                    }
                    Sink::Folder(folder) => {
                        still::write(
                            &image,
                            &numbered(folder, seed),
                            Format::Png,
                            &still::Options::default(),
                        )?;
                    }
                }
            }
        }
        if let Sink::Grid(path, format) = &sink {
            let note = drawn.first().and_then(|image| image.metadata.note.clone());
            // About as many rows as columns.
            let mut grid = tabled(&drawn, (drawn.len() as f64).sqrt().ceil() as usize);
            grid.metadata.note = note;
            still::write(&grid, path, *format, &still::Options::default())?;
        }
        if let Sink::Tensor(path) = &sink {
            let views: Vec<_> = tensors.iter().map(|tensor| tensor.view()).collect();
            let whole = ndarray::concatenate(Axis(0), &views).map_err(|cause| {
                eddy::Error::evaluation(format!("images of different sizes were drawn: {cause}"))
            })?;
            array::write(&whole, path)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let (sampler, evaluations) = (drawer.sampler(), drawer.evaluations());
        let what = if count == 1 { "one image".to_owned() } else { format!("{count} images") };
        let line = format!(
            "{}: {what} of {width}x{height} by {}, {sampler}, {evaluations} evaluations each, {seconds:.2} s",
            self.output.display(),
            self.model
        );
        let record = json!({
            "output": self.output.to_string_lossy(), "count": count, "width": width, "height": height, "model": self.model,
            "sampler": sampler.name(), "evaluations": evaluations, "seed": self.drawing.seed, "seconds": seconds,
            "device": opened.device().to_string(),
        });
        bar.report(line, &record)
    }

    fn class(&self, i: usize) -> Option<usize> {
        self.class.get(i % self.class.len().max(1)).copied()
    }

    fn classes(&self, first: usize, many: usize, scale: f64) -> Option<Classes> {
        let wanted: Option<Vec<usize>> = (first..first + many).map(|i| self.class(i)).collect();
        let interval = self.guidance_interval.unwrap_or([0.0, f64::INFINITY]);
        let options = ClassifierFreeOptions { scale, rescale: self.guidance_rescale, interval };
        Some(Classes { wanted: wanted?, without: self.negative_class, options })
    }

    /// The parameters from which the image can be generated again.
    fn note(
        &self,
        package: &Package,
        drawer: &Generator<'_>,
        i: usize,
        seed: u64,
        scale: f64,
    ) -> String {
        let manifest = &package.manifest;
        let mut note = json!({
            "eddy": env!("CARGO_PKG_VERSION"), "model": self.model, "version": manifest.version, "seed": seed,
            "sampler": drawer.sampler().name(), "evaluations": drawer.evaluations(),
            "sha256": manifest.files.iter().map(|(precision, file)| (precision.name(), file.sha256.as_str())).collect::<std::collections::BTreeMap<_, _>>(),
        });
        let mut say = |key: &str, value: serde_json::Value| note[key] = value;
        if let Some(class) = self.class(i) {
            say("class", class.into());
            say("guidance_scale", scale.into());
            say("guidance_rescale", self.guidance_rescale.into());
        }
        if let Some(interval) = self.guidance_interval {
            say("guidance_interval", json!(interval));
        }
        if let Some(class) = self.negative_class {
            say("negative_class", class.into());
        }
        if let Some(classifier) = &self.classifier {
            say("classifier", classifier.as_str().into());
        }
        if let Some(from) = &self.from {
            say("from", from.to_string_lossy().into());
            say("strength", self.strength.into());
        }
        note.to_string()
    }
}

/// The file name of an image in a folder, by its random seed.
fn numbered(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("{seed:06}.png"))
}

/// Where images are written.
enum Sink {
    Tensor(PathBuf),
    One(PathBuf, Format),
    Grid(PathBuf, Format),
    Folder(PathBuf),
}

impl Sink {
    fn choose(output: &Path, count: usize, grid: bool) -> eddy::Result<Self> {
        let is_folder = output.is_dir() || ends_in_slash(output);
        if is_folder && !grid {
            let problem = "the folder cannot be made";
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
                "{} is no image's name; end it in .png or the like",
                output.display()
            ))
        })?;
        match (grid, count) {
            (true, _) => Ok(Self::Grid(output.to_owned(), format)),
            (false, 1) => Ok(Self::One(output.to_owned(), format)),
            _ => Err(eddy::Error::usage(format!(
                "{count} images do not go into {}; name a folder (end it in /), or ask for a --grid",
                output.display()
            ))),
        }
    }
}

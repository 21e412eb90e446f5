//! What an element does, by its properties, once they are checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eddy::media::stream::VideoFormat;
use eddy::model::{Package, Precision};
use eddy::network::{
    Device, DeviceChoice, Library, Runtime, SessionOptions, THREADS_PER_CORE, max_threads,
};
use eddy::task::{
    Budget, DenoiseOptions, NoiseProfile, SigmaChoice, Strength, TileChoice, UpscaleOptions,
};
use eddy::video::{SettingsUpdate, Target, models_of_stream, precisions_of_stream};
use eddy::{Error, Result};

use crate::properties::Settings;

/// What an element does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) task: Task,
    pub(crate) target: Target,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) session: SessionOptions,
    precision: Option<Precision>,
    packages: HashMap<String, Package>,
}

#[derive(Clone, Debug)]
pub(crate) enum Task {
    Denoise { model: Option<String>, options: DenoiseOptions, temporal: bool },
    Upscale { model: String, options: UpscaleOptions },
}

impl Plan {
    /// The plan of an element that denoises.
    ///
    /// # Errors
    /// [`Error::Usage`] for a property out of range, and the library's errors for models, profiles
    /// and devices that cannot be used.
    pub(crate) fn denoise(settings: &Settings) -> Result<Self> {
        let sigma: SigmaChoice = parse("sigma", &settings.sigma)?;
        let sigma = match &settings.noise_profile {
            Some(_) if sigma != SigmaChoice::Auto => {
                return Err(Error::usage(
                    "both sigma and noise-profile are given; expected one of them",
                ));
            }
            Some(path) => SigmaChoice::Profile(NoiseProfile::read(Path::new(path))?),
            None => sigma,
        };
        let options = DenoiseOptions {
            sigma,
            steps: settings.steps(),
            eta: settings.eta,
            seed: settings.seed,
            strength: Strength::new(settings.strength)?,
            tile: tile(settings),
            budget: budget(settings)?,
        };
        let (model, temporal) = (settings.model.clone(), settings.temporal);
        let mut plan = Self::new(settings, Task::Denoise { model, options, temporal })?;
        if let Some(model) = &settings.model {
            plan.package(model)?;
        }
        Ok(plan)
    }

    /// The plan of an element that enlarges, and its scale.
    ///
    /// # Errors
    /// As for [`denoise`](Self::denoise).
    pub(crate) fn upscale(settings: &Settings) -> Result<(Self, usize)> {
        let scale = usize::try_from(settings.scale).unwrap_or_default();
        let model = match (&settings.model, scale) {
            (Some(model), _) => model.clone(),
            (None, 0) => "upscale-x2".to_owned(),
            (None, 2 | 4) => format!("upscale-x{scale}"),
            (None, _) => {
                return Err(Error::usage(format!(
                    "no bundled model enlarges {scale} times; expected scale=2 or scale=4, or the \
                     package of another one in model"
                )));
            }
        };
        let options = UpscaleOptions {
            steps: settings.steps(),
            eta: settings.eta,
            seed: settings.seed,
            tile: tile(settings),
            budget: budget(settings)?,
        };
        let mut plan = Self::new(settings, Task::Upscale { model: model.clone(), options })?;
        let found = plan.package(&model)?.manifest.scale;
        if scale != 0 && scale != found {
            return Err(Error::usage(format!(
                "{model} enlarges {found} times, and scale is {scale}; leave scale out, or choose \
                 another model"
            )));
        }
        Ok((plan, found))
    }

    fn new(settings: &Settings, task: Task) -> Result<Self> {
        let precision = match settings.precision.as_str() {
            "auto" => None,
            name => Some(parse("precision", name)?),
        };
        let device: DeviceChoice = parse("device", &settings.device)?;
        let threads = usize::try_from(settings.threads).unwrap_or_default();
        let most = max_threads();
        if threads > most {
            return Err(Error::usage(format!(
                "threads is {threads}; expected 0 to {most}, {THREADS_PER_CORE} for each core \
                 that there is here"
            )));
        }
        let fps = settings.fps;
        let target = Target {
            rate: (fps.numer() > 0).then(|| f64::from(fps.numer()) / f64::from(fps.denom())),
            deadline: (settings.deadline_ms > 0)
                .then(|| Duration::from_millis(settings.deadline_ms.into())),
        };
        let runtime = Runtime::load(&Library::choose(settings.runtime.clone().map(PathBuf::from)))?;
        let device = runtime.choose(device, settings.require_device)?.device;
        let session = SessionOptions {
            threads,
            device,
            disable_cpu_fallback: settings.require_device,
            // Other elements of the pipeline need the processor between frames.
            sleep_when_idle: true,
        };
        Ok(Self { task, target, runtime, session, precision, packages: HashMap::new() })
    }

    /// The time limit per frame, if any.
    pub(crate) fn budget(&self) -> Option<Duration> {
        self.target.budget(Duration::ZERO, Duration::ZERO)
    }

    /// The models for frames of that format, from best to cheapest.
    pub(crate) fn models(&self, video: &VideoFormat) -> Vec<String> {
        match &self.task {
            Task::Upscale { model, .. } => vec![model.clone()],
            Task::Denoise { model, options, .. } => {
                let of_planes = options.sigma.is_of_planes();
                let keeps_up = self.target.is_some();
                models_of_stream(model.as_deref(), video.format, of_planes, keeps_up)
                    .into_iter()
                    .map(str::to_owned)
                    .collect()
            }
        }
    }

    /// A bundled model, a package, or a bare ONNX file, whose properties are detected once.
    ///
    /// # Errors
    /// [`Error::Model`] when there is none of that name.
    pub(crate) fn package(&mut self, model: &str) -> Result<Package> {
        if let Some(package) = self.packages.get(model) {
            return Ok(package.clone());
        }
        let package = Package::open(&self.runtime, model, self.session)?;
        self.packages.insert(model.to_owned(), package.clone());
        Ok(package)
    }

    /// The precisions in which a model may run, the most exact first.
    pub(crate) fn precisions(&self, package: &Package) -> Vec<Precision> {
        match self.task {
            Task::Denoise { .. } => {
                precisions_of_stream(package, self.precision, self.device(), self.target.is_some())
            }
            Task::Upscale { .. } => {
                vec![self.precision.unwrap_or_else(|| package.default_precision(self.device()))]
            }
        }
    }

    fn device(&self) -> Device {
        self.session.device
    }

    /// Changes settings, for the frames of other formats and for those behind a seek, too.
    pub(crate) fn apply(&mut self, update: &SettingsUpdate) {
        match &mut self.task {
            Task::Denoise { options, temporal, .. } => {
                if let Some(sigma) = &update.sigma {
                    options.sigma = sigma.clone();
                }
                options.steps = update.steps.or(options.steps);
                *temporal = update.temporal.unwrap_or(*temporal);
            }
            Task::Upscale { options, .. } => options.steps = update.steps.or(options.steps),
        }
    }
}

/// Parses the text of a property.
///
/// # Errors
/// [`Error::Usage`] with the property, its value, and what is expected.
pub(crate) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    property: &str,
    text: &str,
) -> Result<T> {
    text.parse().map_err(|problem| Error::usage(format!("{property}={text}: {problem}")))
}

fn tile(settings: &Settings) -> TileChoice {
    TileChoice {
        limit: usize::try_from(settings.tile).ok().filter(|limit| *limit > 0),
        overlap: usize::try_from(settings.tile_overlap).ok(),
    }
}

fn budget(settings: &Settings) -> Result<Budget> {
    settings
        .max_memory
        .as_deref()
        .map_or_else(|| Ok(Budget::default()), |it| parse("max-memory", it))
}

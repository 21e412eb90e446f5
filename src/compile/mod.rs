//! A whole trajectory as one ONNX graph: the network, the sampler's table and guidance, so that any
//! runtime runs it in one call.
//!
//! The steps are the body of a `Loop`, which holds the network's nodes and its weights once. A plan
//! of one step has no loop. Factors that differ between steps are tables, from which the number of
//! the step picks; the state and the values that the sampler keeps are carried from step to step.
//! The operations are those of [`State`](crate::diffusion::State), in the same order, so that both
//! give the same numbers.

mod builder;
#[cfg(test)]
mod cascade_tests;
mod decoder;
mod describe;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod inputs;
mod onnx;
mod part;
mod pipeline;
mod properties;
mod source;
mod stage;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod trajectory;

use std::io::Write;
use std::path::Path;

use crate::diffusion::{Plan, Prediction, Sampler, Schedule, denoise_plan, plan};
use crate::error::{Error, Result};
use crate::model::{Manifest, Package, Precision, SampledModel, Task};
use crate::network::Interface;
pub use describe::{CompiledFile, CompiledPort, describe};
pub use pipeline::compile_pipeline;
use properties::properties;
use trajectory::{FreeGuidance, SigmaSource, Start, Trajectory};

/// A larger scale gives no images, and would not be exact in float32.
const MAX_GUIDANCE_SCALE: f64 = 1e6;

/// What is compiled of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompileOptions {
    /// The sampler. Default: the plan of the model's own task. A denoiser then starts at the noise
    /// level of its image, an upscaler at its enlargement; others take the model's sampler.
    pub sampler: Option<Sampler>,
    /// Sampler steps. Default: the model's.
    pub steps: Option<usize>,
    /// Stochasticity (eta) of samplers that have it, from 0 to 1. Default: the sampler's.
    pub eta: Option<f64>,
    /// The default of the input `guidance_scale`; 1 leaves guidance out, with its second evaluation
    /// in each step. Default: the model's.
    pub guidance_scale: Option<f64>,
    /// The numeric precision of a package's network. Default: f32.
    pub precision: Option<Precision>,
}

/// A compiled trajectory.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The ONNX file.
    pub file: Vec<u8>,
    /// The size of the networks' own files, in bytes.
    pub network_bytes: usize,
    /// The sampler; none for the plan of a denoiser or an upscaler.
    pub sampler: Option<Sampler>,
    /// Sampler steps.
    pub steps: usize,
    /// Evaluations of the network, of all stages, of which each has both halves of guidance.
    pub evaluations: usize,
    /// The default scale of guidance, if there is guidance.
    pub guidance_scale: Option<f64>,
}

/// Compiles the whole trajectory of a model.
///
/// The result takes `sample`, the state before the first step, as `eddy sample` does, or for an
/// upscaler `low_resolution` and, for several steps, `initial_noise`; `class` `[B]`, `noise`
/// `[steps, B, C, H, W]` of samplers that draw noise, and `sigma` of a denoiser. `guidance_scale`
/// and `negative_class` may be left out. It gives `denoised`, or `image`, which a decoder of the
/// model has decoded.
///
/// # Errors
/// [`Error::Usage`] for options out of range, and those that the model does not have;
/// [`Error::Model`] for a model that cannot be read, or with a part that cannot be compiled.
pub fn compile(model: &SampledModel, options: &CompileOptions) -> Result<Compiled> {
    let network = model.graph(options.precision)?;
    let setup = match model {
        SampledModel::Package(package) => Setup::of_package(package, options)?,
        SampledModel::Diffusers(_) => {
            Setup::sampled(model.schedule()?, Sampler::DDIM, None, options)?
        }
    };
    let guidance = setup.guidance(model, &network.interface, options)?;
    let properties = properties(model, options, &setup, guidance);
    let trajectory = Trajectory {
        model: &network.name,
        interface: &network.interface,
        channels: network.channels,
        multiple_of: network.multiple_of,
        plan: &setup.plan,
        start: setup.start,
        sigma: setup.sigma,
        guidance,
        // With a decoder, the state is not the output yet.
        output: if model.has_decoder() { "eddy/latent" } else { setup.output },
        sides: None,
        suffix: "",
        timestep_factor: 1.0,
        given: &[],
        concat: None,
        variance: None,
    };
    let decoder = model.decoder_graph()?;
    let decoder = decoder.as_ref().map(|(spec, bytes)| (*spec, bytes.as_slice()));
    let file = trajectory.build(&network.bytes, decoder, &properties.0)?;
    Ok(Compiled {
        file,
        network_bytes: network.bytes.len() + decoder.map_or(0, |(_, bytes)| bytes.len()),
        sampler: setup.sampler,
        steps: setup.steps,
        evaluations: setup.plan.steps.len(),
        guidance_scale: guidance.map(|guidance| guidance.scale),
    })
}

/// Writes a compiled file, which appears complete or not at all.
///
/// # Errors
/// [`Error::Output`] when it cannot be written; nothing is left behind.
pub fn save(file: &[u8], path: &Path) -> Result<()> {
    crate::media::still::save(path, |writer| Ok(writer.write_all(file)?))
}

/// The plan, where it starts, and the name of what it gives.
struct Setup {
    plan: Plan,
    sampler: Option<Sampler>,
    steps: usize,
    start: Start,
    sigma: SigmaSource,
    output: &'static str,
    /// The model's scale of guidance.
    guidance_scale: Option<f64>,
}

impl Setup {
    fn of_package(package: &Package, options: &CompileOptions) -> Result<Self> {
        let manifest = &package.manifest;
        refuse_unsupported(manifest)?;
        let is_own_plan = match manifest.task {
            Task::Denoise | Task::Deblur => options.sampler.is_none(),
            Task::Upscale => !manifest.is_generative_upscaler(),
            _ => false,
        };
        let output = match manifest.task {
            Task::Denoise | Task::Deblur => "denoised",
            _ => "image",
        };
        if is_own_plan {
            return Self::relative(manifest, output, options);
        }
        let schedule = manifest.schedule_of()?;
        let usual = match schedule {
            Schedule::Discrete(_) => Sampler::DDIM,
            Schedule::Sigmas(_) => Sampler::DPMPP_2M,
        };
        let usual = manifest.defaults.sampler.unwrap_or(usual);
        let setup = Self::sampled(schedule, usual, Some(manifest.defaults.steps), options)?;
        Ok(Self { output, guidance_scale: manifest.defaults.guidance_scale, ..setup })
    }

    /// The plan of `eddy sample`.
    fn sampled(
        schedule: Schedule,
        usual: Sampler,
        steps: Option<usize>,
        options: &CompileOptions,
    ) -> Result<Self> {
        let sampler = options.sampler.unwrap_or(usual);
        let steps = options.steps.or(steps).ok_or_else(|| {
            Error::usage(
                "a folder in the layout of diffusers declares no number of steps; give one",
            )
        })?;
        Ok(Self {
            plan: plan(&schedule, sampler, steps, options.eta)?,
            sampler: Some(sampler),
            steps,
            start: Start::Sample,
            sigma: SigmaSource::Uniform(1.0),
            output: "image",
            guidance_scale: None,
        })
    }

    /// The plan of a denoiser or an upscaler, whose levels are relative to its image's sigma.
    fn relative(
        manifest: &Manifest,
        output: &'static str,
        options: &CompileOptions,
    ) -> Result<Self> {
        let error = |problem: String| Err(Error::usage(problem));
        let name = &manifest.name;
        if let Some(sampler) = options.sampler {
            return error(format!(
                "{name} enlarges by a plan of its own, which starts at the small image; leave the \
                 sampler ({sampler}) out"
            ));
        }
        if manifest.prediction != Prediction::Denoised || manifest.inputs.timestep.is_some() {
            let problem = format!(
                "it predicts {}, on a scalar noise level; its task's own plan needs `denoised` and \
                 a map of sigma: choose a sampler",
                manifest.prediction
            );
            return Err(Error::model(name, problem));
        }
        let steps = options.steps.unwrap_or(manifest.defaults.steps);
        if steps > 1 && manifest.inputs.sigma.is_none() {
            return error(format!("{name} takes no sigma, and so works in one step, not {steps}"));
        }
        let largest = manifest.sigma.map_or(0.0, |sigma| sigma.max as f32);
        let (start, sigma) = match manifest.task {
            Task::Upscale => (Start::Enlarged(largest), SigmaSource::Uniform(largest)),
            _ if manifest.inputs.sigma.is_some() => (Start::Sample, SigmaSource::Input),
            _ => (Start::Sample, SigmaSource::Uniform(1.0)),
        };
        Ok(Self {
            plan: denoise_plan(steps, options.eta.unwrap_or_default())?,
            sampler: None,
            steps,
            start,
            sigma,
            output,
            guidance_scale: None,
        })
    }

    /// Classifier-free guidance, if there is any.
    fn guidance(
        &self,
        model: &SampledModel,
        interface: &Interface,
        options: &CompileOptions,
    ) -> Result<Option<FreeGuidance>> {
        let scale = options.guidance_scale.or(self.guidance_scale).unwrap_or(1.0);
        check_guidance_scale(scale)?;
        if scale == 1.0 {
            return Ok(None);
        }
        let negative = model.classes().and_then(|classes| classes.unconditional());
        let is_possible = negative.is_some() || !interface.unconditional.is_empty();
        if !is_possible {
            return Err(Error::usage(format!(
                "the guidance scale is {scale}, but this network has neither an unconditional \
                 class nor values that mean no condition; leave it out"
            )));
        }
        Ok(Some(FreeGuidance { scale, negative, is_sum: false }))
    }
}

fn check_guidance_scale(scale: f64) -> Result<()> {
    if (0.0..=MAX_GUIDANCE_SCALE).contains(&scale) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the guidance scale is {scale:e}; expected a number from 0 to {MAX_GUIDANCE_SCALE}"
    )))
}

/// Refuses the tasks whose inputs are not those of sampling.
fn refuse_unsupported(manifest: &Manifest) -> Result<()> {
    let refuse = |what: &str| {
        let problem = format!("{what}; `eddy compile` takes denoisers, upscalers and generators");
        Err(Error::model(&manifest.name, problem))
    };
    match manifest.task {
        Task::Classifier => refuse("it guides another network"),
        Task::Inpaint => refuse("it fills masked areas in one evaluation, by itself"),
        _ if manifest.mask().is_some() => refuse("it takes a mask"),
        _ => Ok(()),
    }
}

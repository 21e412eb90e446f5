//! What a compiled file says of itself, as its `metadata_props`.

use super::trajectory::{FreeGuidance, SigmaSource, Start};
use super::{CompileOptions, Setup};
use crate::diffusion::{Plan, Step};
use crate::model::SampledModel;

/// Keys, without their prefix, and values.
pub(super) struct Properties(pub(super) Vec<(String, String)>);

impl Properties {
    /// Of the version that compiled.
    pub(super) fn new() -> Self {
        Self(vec![("version".into(), env!("CARGO_PKG_VERSION").into())])
    }

    pub(super) fn push(&mut self, key: impl Into<String>, value: impl ToString) {
        self.0.push((key.into(), value.to_string()));
    }

    /// The levels of a plan, under keys that end with `suffix`.
    pub(super) fn push_plan(&mut self, plan: &Plan, suffix: &str) {
        let listed = |of: &dyn Fn(&Step) -> f64| {
            let numbers = plan.steps.iter().map(|step| (of(step) as f32).to_string());
            numbers.collect::<Vec<_>>().join(" ")
        };
        self.push(format!("sigmas{suffix}"), listed(&|step| step.level.sigma()));
        self.push(format!("timesteps{suffix}"), listed(&|step| step.t));
    }
}

/// The properties of the trajectory of a model of one network.
pub(super) fn properties(
    model: &SampledModel,
    options: &CompileOptions,
    setup: &Setup,
    guidance: Option<FreeGuidance>,
) -> Properties {
    let mut all = Properties::new();
    if let SampledModel::Package(package) = model {
        let manifest = &package.manifest;
        all.push("model", format!("{} {}", manifest.name, manifest.version));
        all.push("task", manifest.task);
        all.push("license", &manifest.license);
        all.push("precision", options.precision.unwrap_or_default());
        let [low, high] = manifest.range;
        all.push("range", format!("{low} {high}"));
        if let Some(class) = manifest.null_class {
            all.push("null_class", class);
        }
    }
    if let Some(sampler) = setup.sampler {
        all.push("sampler", sampler.name());
    }
    all.push("steps", setup.steps);
    all.push("evaluations", setup.plan.steps.len());
    if let Some(eta) = options.eta {
        all.push("eta", eta);
    }
    if let Some(guidance) = guidance {
        all.push("guidance_scale", guidance.scale);
    }
    if let (Some(first), SigmaSource::Uniform(_)) = (setup.plan.steps.first(), setup.sigma)
        && setup.start == Start::Sample
    {
        // As diffusers calls it: a variance-preserving state begins with a variance of 1.
        let deviation = if first.level.signal == 1.0 { first.level.noise } else { 1.0 };
        all.push("init_noise_sigma", deviation as f32);
    }
    all.push_plan(&setup.plan, "");
    all
}

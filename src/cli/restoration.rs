//! What commands share that restore by a network that knows what pictures look like.

use std::path::PathBuf;
use std::time::Instant;

use eddy::diffusion::{Guide, Sampler};
use eddy::model::Package;
use eddy::task::{Degradation, DrawOptions, Drawer};
use eddy::video::record;
use serde_json::json;

use super::console::Console;
use super::drawing::StepKeeper;
use super::interrupt;
use super::options::{DeviceOptions, PrecisionOption};
use super::pictures::Pictures;

/// Steps where none are asked for.
const STEPS: usize = 20;

/// What is to be undone.
pub(crate) struct Restoration {
    pub(crate) degradation: Degradation,
    /// What was added afterwards, in 8-bit units.
    pub(crate) noise: f64,
    pub(crate) seed: u64,
    pub(crate) save_steps: Option<PathBuf>,
}

impl Restoration {
    /// Undoes it in each picture.
    pub(crate) fn run(
        &self,
        pictures: &Pictures,
        model: &str,
        mut options: DrawOptions,
        (precision, device): (&PrecisionOption, &DeviceOptions),
        console: Console,
    ) -> anyhow::Result<()> {
        let package = Package::find(model)?;
        let jobs = pictures.jobs()?;
        let opened = device.open(console)?;
        let precision = precision.on(opened.device(), &package);
        let mut network = package.load_guarded(&opened.runtime, precision, opened.session())?;
        options.sampler = options.sampler.or(Some(Sampler::DDPM));
        options.steps = options.steps.or(Some(STEPS));
        let mut drawer = Drawer::new(&package.manifest, &mut network, options)?;
        Pictures::each(&jobs, console, |turn| {
            let frame = turn.read()?;
            let mut keeper = StepKeeper::new(self.save_steps.as_deref(), &drawer)?;
            let guides = keeper.iter_mut().map(|keeper| keeper as &mut dyn Guide).collect();
            let begun = Instant::now();
            let result = drawer.restore(&frame, &self.degradation, self.noise, self.seed, guides, &mut |progress| {
                turn.bar.advance(turn.index, progress);
                interrupt::poll()
            })?;
            let seconds = begun.elapsed().as_secs_f64();
            let warnings = pictures.write(&result, turn)?;
            let (width, height) = (result.width, result.height);
            let (sampler, evaluations) = (drawer.sampler(), drawer.evaluations());
            let line = format!("{width}x{height} by {model}, {sampler}, {evaluations} evaluations, {seconds:.2} s");
            let mut record = json!({
                "input": turn.job.input.to_string_lossy(), "output": turn.job.output.to_string_lossy(),
                "width": width, "height": height, "model": model, "sampler": sampler.name(), "evaluations": evaluations,
                "seed": self.seed, "seconds": seconds, "warnings": warnings,
            });
            record::extend(&mut record, json!({"precision": precision.name(), "device": opened.device().to_string()}));
            turn.report(&line, &record)
        })
    }
}

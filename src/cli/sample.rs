//! `eddy sample`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use eddy::array;
use eddy::diffusion::guidance::label;
use eddy::diffusion::{NoiseSource, Philox, Sampler, SigmaMap, State, execute, plan};
use eddy::machine::Sandbox;
use eddy::media::source;
use eddy::model::{ClassIndices, SampledModel};
use eddy::network::Network;
use eddy::tile::TilePlan;
use ndarray::Ix4;
use serde_json::json;

use super::console::Console;
use super::interrupt;
use super::onnx_options::refuse_onnx;
use super::options::{DeviceOptions, PrecisionOption, SyncOption, recorded};
use super::sandbox::{SandboxOption, confine_files};

/// Run a sampler on a raw tensor
///
/// Input and output are in the network's own coordinates: what a diffusers pipeline calls latents,
/// before its first and after its last step. For `euler` on a training schedule that is the input
/// times `init_noise_sigma`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy sample my-ddpm/ --input noise.npy -o sample.npy --sampler ddim \
                  --steps 50"
)]
pub(crate) struct Arguments {
    /// A bundled model, the folder of a model package, or a folder in the diffusers layout
    #[arg(value_name = "MODEL")]
    model: String,

    /// The state before the first step: a .npy file of floats, [B, C, H, W]
    ///
    /// Other commands name images as positional arguments; their `--input` sets a constant input of
    /// an .onnx file.
    #[arg(short, long, value_name = "X.npy", help_heading = "Input and output")]
    input: PathBuf,

    /// The state after the last step: a .npy file of float32
    #[arg(short, long, value_name = "Y.npy", help_heading = "Input and output")]
    output: PathBuf,

    /// One of ddim, ddpm, euler, euler-a, heun, kdpm2, kdpm2-a, lms, pndm, deis, dpmpp-2m,
    /// dpmpp-2m-sde, dpmpp-3m, dpmpp-single, unipc, lcm, tcd, langevin, pc and ode
    #[arg(long, value_name = "NAME", help_heading = "Sampling")]
    sampler: Sampler,

    /// Steps of the sampler. A step evaluates the network once; of heun, kdpm2, kdpm2-a and pc
    /// twice, of langevin five times; the first or the last step of some differs
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    steps: usize,

    /// Stochasticity, from 0 to 1: of ddim (0 when left out), euler-a and kdpm2-a (1) and tcd (0.3)
    #[arg(long, value_name = "ETA", help_heading = "Sampling")]
    eta: Option<f64>,

    /// Random seed
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = "Sampling")]
    seed: u64,

    /// Noise of the steps in place of the seed's: a .npy file of floats, [steps, B, C, H, W]
    #[arg(long, value_name = "Z.npy", conflicts_with = "seed", help_heading = "Sampling")]
    noise: Option<PathBuf>,

    /// The class of all samples, counted from 0, for a network that takes one. By default they are
    /// unconditional, if the model has an unconditional class (`null_class`)
    #[arg(long, value_name = "K", help_heading = "Guidance")]
    class: Option<usize>,

    #[command(flatten)]
    precision: PrecisionOption,

    #[command(flatten)]
    sandbox: SandboxOption,

    #[command(flatten)]
    device: DeviceOptions,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    /// The files of the run, if it is to be confined.
    pub(crate) fn sandbox(&self) -> eddy::Result<Option<Sandbox>> {
        let Some(sandbox) = self.sandbox.start() else { return Ok(None) };
        let sources = [&self.input].into_iter().chain(&self.noise).map(PathBuf::as_path);
        let sandbox = confine_files(sandbox, sources, &self.output)?;
        Ok(Some(self.device.confine(sandbox)?.model(Path::new(&self.model))))
    }

    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        refuse_onnx(&self.model)?;
        let model = SampledModel::find(&self.model)?;
        let class = ClassIndices::choose(model.classes().as_ref(), self.class)?;
        let plan = plan(&model.schedule()?, self.sampler, self.steps, self.eta)?;
        array::check(&self.output)?;
        source::refuse_replacing(
            &[vec![&self.input], self.noise.iter().collect()].concat(),
            &self.output,
        )?;
        let x = array::read::<Ix4>(&self.input)?;
        let noise = self.noise()?;
        let opened = self.device.open(self.console)?;
        let precision = match &model {
            SampledModel::Package(package) => Some(self.precision.on(opened.device(), package)),
            SampledModel::Diffusers(_) => self.precision.requested(),
        };
        let mut network =
            opened.load(&self.model, |runtime, options| model.load(runtime, precision, options))?;
        let (batch, channels, height, width) = x.dim();
        let tiles = TilePlan::whole(width, height, model.multiple_of());
        if let Some(index) = class {
            let (tile_width, tile_height) = tiles.tile_size();
            network.bind([batch, channels, tile_height, tile_width])?;
            label(network.inputs().class, &vec![index; batch])?;
        }
        let mut state = State::new(x, &plan, noise.as_ref(), &SigmaMap::ABSOLUTE)?;
        let bar = self.console.bar(1);
        bar.begin(0, &self.model);
        let started = Instant::now();
        execute(&plan, &mut network, &mut state, &tiles, &SigmaMap::ABSOLUTE, &mut |progress| {
            bar.advance(0, progress);
            interrupt::poll()
        })?;
        let took = started.elapsed().as_secs_f64();
        array::write(&state.into_inner(), &self.output)?;
        let (input, output) = (self.input.display(), self.output.display());
        let evaluations = plan.steps.len();
        let evaluation_count = if evaluations == self.steps {
            String::new()
        } else {
            format!(" ({evaluations} evaluations)")
        };
        let line = format!(
            "{input} -> {output}: {} in {} steps{evaluation_count}, {took:.2} s",
            self.sampler, self.steps
        );
        let record = json!({
            "input": self.input, "output": self.output, "shape": [batch, channels, height, width],
            "sampler": self.sampler.name(), "steps": self.steps, "evaluations": evaluations,
            "class": self.class, "seconds": took,
            "device": opened.device().to_string(),
        });
        bar.report(line, &record)
    }

    fn noise(&self) -> eddy::Result<Box<dyn NoiseSource>> {
        let Some(path) = &self.noise else { return Ok(Box::new(Philox::new(self.seed))) };
        Ok(Box::new(recorded(array::read(path)?)?))
    }
}

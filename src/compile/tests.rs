//! Compiled graphs against the loop, on ONNX Runtime.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array4, Array5, ArrayD, Axis};

use super::onnx::{Element, Length, Port, node};
use super::{CompileOptions, compile};
use crate::diffusion::discrete::Threshold;
use crate::diffusion::guidance::label;
use crate::diffusion::{
    Canvas, ClassifierFreeOptions, Philox, Plan, Recorded, Sampler, SigmaMap, State, Update,
    Window, denoise_plan, execute, plan,
};
use crate::digest::sha256;
use crate::error::Result;
use crate::model::protobuf::Message;
use crate::model::{Manifest, Package, Precision, SampledModel};
use crate::network::{Library, ModelSource, Network, Runtime, SessionOptions, Shape, TensorGraph};
use crate::task::{Budget, TileChoice, decode};
use crate::task::{Classes, GenerateOptions, GenerateRequest, Generator, LowRes};
use crate::task::{UpscaleOptions, Upscaler};
use crate::tensor::Range;
use crate::tile::TilePlan;

/// The largest difference, over the largest value.
const TOLERANCE: f32 = 1e-5;

fn runtime() -> Result<Arc<Runtime>> {
    Runtime::load(&Library::Embedded)
}

fn data(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn options(sampler: impl Into<Option<Sampler>>, steps: usize) -> CompileOptions {
    let (sampler, guidance_scale) = (sampler.into(), Some(1.0));
    CompileOptions { sampler, steps: Some(steps), guidance_scale, ..CompileOptions::default() }
}

/// What the compiled graph gives for these inputs. It takes no others.
fn run(
    model: &SampledModel,
    options: &CompileOptions,
    inputs: &[(&str, ArrayD<f32>)],
) -> Result<Array4<f32>> {
    let compiled = compile(model, options)?;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whole.onnx");
    super::save(&compiled.file, &file)?;
    let mut graph = TensorGraph::open(
        &runtime()?,
        "whole",
        ModelSource::File(&file),
        SessionOptions::default(),
    )?;
    let mut given: Vec<&str> = inputs.iter().map(|(name, _)| *name).collect();
    let mut taken: Vec<&str> = graph.inputs().iter().map(|port| port.name.as_str()).collect();
    given.sort_unstable();
    taken.sort_unstable();
    assert_eq!(given, taken);
    let output = graph.outputs()[0].name.clone();
    let inputs: Vec<_> = inputs.iter().map(|(name, values)| (*name, values.view())).collect();
    let mut outputs = graph.run(&inputs, &[&output])?;
    Ok(outputs.remove(0).into_dimensionality().unwrap())
}

fn assert_near(found: &Array4<f32>, expected: &Array4<f32>, tolerance: f32, what: &str) {
    assert_eq!(found.dim(), expected.dim(), "{what}");
    let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest);
    let difference = differences.fold(0.0_f32, |a, b| if b > a || b.is_nan() { b } else { a });
    assert!(difference <= tolerance, "{what}: {difference:.1e} from the loop");
}

/// What the loop gives.
fn looped(
    model: &SampledModel,
    (plan, sigma): (&Plan, &SigmaMap),
    precision: Option<Precision>,
    (x, noise, classes): (Array4<f32>, &Array5<f32>, Option<&[i64]>),
) -> Result<Array4<f32>> {
    let mut network = model.load(&runtime()?, precision, SessionOptions::default())?;
    let (batch, channels, height, width) = x.dim();
    let tiles = TilePlan::whole(width, height, model.multiple_of());
    let (tile_width, tile_height) = tiles.tile_size();
    network.bind([batch, channels, tile_height, tile_width])?;
    if let Some(classes) = classes {
        label(network.inputs().class, classes)?;
    }
    let noise = Recorded::new(noise.dim().0, x.dim().into(), noise.iter().copied().collect())?;
    let mut state = State::new(x, plan, &noise, sigma)?;
    execute(plan, &mut network, &mut state, &tiles, sigma, &mut |_| ControlFlow::Continue(()))?;
    Ok(state.into_inner())
}

/// Normal noise for `steps` steps.
fn noise(steps: usize, shape: [usize; 4]) -> Array5<f32> {
    let each = (0..steps).map(|step| Philox::new(100 + step as u64).initial(shape));
    let each: Vec<_> = each.collect();
    let views: Vec<_> = each.iter().map(|it| it.view()).collect();
    ndarray::stack(Axis(0), &views).unwrap()
}

/// Compares a sampled model with the loop.
fn agrees(
    model: &SampledModel,
    options: &CompileOptions,
    shape: [usize; 4],
    tolerance: f32,
) -> Result<()> {
    let sampler = options.sampler.unwrap();
    let plan = plan(&model.schedule()?, sampler, options.steps.unwrap(), options.eta)?;
    let first = plan.steps[0].level;
    let scale = if first.signal == 1.0 { first.noise as f32 } else { 1.0 };
    let x = Philox::new(7).initial(shape) * scale;
    let noise = noise(plan.steps.len(), shape);
    let classes: Option<Vec<i64>> =
        model.classes().map(|_| (0..shape[0]).map(|i| 2 - i as i64).collect());
    let mut inputs = vec![("sample", x.clone().into_dyn())];
    if plan.noise_rows() > 0 {
        inputs.push(("noise", noise.clone().into_dyn()));
    }
    if let Some(classes) = &classes {
        let classes: Array1<f32> = classes.iter().map(|class| *class as f32).collect();
        inputs.push(("class", classes.into_dyn()));
    }
    let expected = looped(
        model,
        (&plan, &SigmaMap::ABSOLUTE),
        options.precision,
        (x, &noise, classes.as_deref()),
    )?;
    let found = run(model, options, &inputs)?;
    assert_near(&found, &expected, tolerance, &format!("{sampler} in {:?} steps", options.steps));
    Ok(())
}

#[test]
fn every_sampler_gives_the_loops_numbers() -> Result<()> {
    for (model, steps) in [("digits-ncsn", 4), ("digits-ddpm", 5)] {
        let model = SampledModel::find(model)?;
        for sampler in Sampler::ALL {
            agrees(&model, &options(sampler, steps), [2, 1, 8, 8], TOLERANCE)?;
        }
        agrees(&model, &options(Sampler::DDIM, 1), [1, 1, 8, 8], TOLERANCE)?;
        let eta = CompileOptions { eta: Some(0.5), ..options(Sampler::DDIM, 3) };
        agrees(&model, &eta, [1, 1, 8, 8], TOLERANCE)?;
    }
    Ok(())
}

/// Both sides need padding, of a map of sigma, too.
#[test]
fn any_size_of_a_dynamic_network_gives_the_loops_numbers() -> Result<()> {
    let model = SampledModel::find("denoise-fast")?;
    for (sampler, steps) in [
        (Sampler::DDIM, 4),
        (Sampler::HEUN, 3),
        (Sampler::DPMPP_2M, 4),
        (Sampler::UNIPC, 4),
        (Sampler::EULER_A, 3),
        (Sampler::DDPM, 3),
    ] {
        agrees(&model, &options(sampler, steps), [2, 3, 20, 27], TOLERANCE)?;
    }
    let half = CompileOptions { precision: Some(Precision::F16), ..options(Sampler::DDIM, 3) };
    agrees(&model, &half, [1, 3, 16, 24], 1e-3)?;
    let integers = CompileOptions { precision: Some(Precision::Int8), ..options(Sampler::DDIM, 2) };
    agrees(&model, &integers, [1, 3, 16, 24], TOLERANCE)
}

#[test]
fn folders_of_diffusers_give_the_loops_numbers() -> Result<()> {
    for (folder, shape) in [
        ("folders/classes", [2, 3, 8, 8]),
        ("folders/ddpm", [2, 3, 8, 16]),
        ("pipelines/int64-scalar", [2, 3, 7, 12]),
        ("pipelines/int64-one", [2, 3, 7, 12]),
        ("pipelines/int64-batch", [2, 3, 7, 12]),
        ("pipelines/float32-scalar", [2, 3, 7, 12]),
        ("pipelines/float32-batch", [2, 3, 7, 12]),
    ] {
        let model = SampledModel::find(&data(folder))?;
        for sampler in [Sampler::DDIM, Sampler::PNDM] {
            agrees(&model, &options(sampler, 4), shape, TOLERANCE)?;
        }
    }
    Ok(())
}

#[test]
fn thresholds_are_dynamic() -> Result<()> {
    let model = SampledModel::find(&data("pipelines/int64-scalar"))?;
    let SampledModel::Diffusers(mut folder) = model else { panic!("it is a folder") };
    for (ratio, max) in [(0.995, 3.0), (0.6, 1.5), (1.0, 2.0)] {
        folder.schedule.threshold = Some(Threshold { ratio, max });
        let model = SampledModel::Diffusers(folder.clone());
        for sampler in [Sampler::DDPM, Sampler::DPMPP_2M] {
            agrees(&model, &options(sampler, 4), [2, 3, 7, 12], TOLERANCE)?;
        }
    }
    Ok(())
}

/// A state beside a condition of its size.
struct Conditioned<'a, 's> {
    state: &'a mut State<'s>,
    condition: &'a Array4<f32>,
}

impl Canvas for Conditioned<'_, '_> {
    fn shape(&self) -> Shape {
        self.state.shape()
    }

    fn read(&self, window: Window, scale: f32, out: &mut [f32]) -> Result<()> {
        self.state.read(window, scale, out)
    }

    fn condition(&self, _window: Window, out: &mut [f32]) -> Result<()> {
        out.iter_mut().zip(self.condition).for_each(|(out, value)| *out = *value);
        Ok(())
    }

    fn update(&mut self, update: &Update<'_>) -> Result<()> {
        self.state.update(update)
    }
}

/// A generative upscaler, in whose network the small image follows the channels of the sample.
#[test]
fn conditions_are_concatenated() -> Result<()> {
    let package = Package::find(&data("folders/superresolution"))?;
    let mut decoder = package.load_decoder(&runtime()?, SessionOptions::default())?.unwrap();
    let spec = package.manifest.decoder.clone().unwrap();
    let scale = package.manifest.sample_scale();
    assert_eq!(scale, 1, "the small image is as large as the latent");
    let model = SampledModel::Package(Box::new(package));
    let shape = [1, 3, 8, 16];
    let (x, condition) = (Philox::new(1).initial(shape), Philox::new(2).initial(shape) * 0.3);
    let plan = plan(&model.schedule()?, Sampler::DDIM, 4, None)?;
    let mut network = model.load(&runtime()?, None, SessionOptions::default())?;
    let (noise, sigma) = (Philox::new(0), SigmaMap::ABSOLUTE);
    let mut state = State::new(x.clone(), &plan, &noise, &sigma)?;
    let mut canvas = Conditioned { state: &mut state, condition: &condition };
    let tiles = TilePlan::whole(16, 8, model.multiple_of());
    let mut watch = |_| ControlFlow::Continue(());
    execute(&plan, &mut network, &mut canvas, &tiles, &sigma, &mut watch)?;
    let inputs = [("sample", x.into_dyn()), ("low_resolution", condition.clone().into_dyn())];
    let found = run(&model, &options(Sampler::DDIM, 4), &inputs)?;
    let memory = (TileChoice::default(), Budget::default());
    let expected = decode(&spec, &mut decoder, &state.into_inner(), memory, &mut watch)?;
    assert_near(&found, &expected, TOLERANCE, "superresolution");
    let folder = SampledModel::find(&data("folders/superresolution"))?;
    let message = compile(&folder, &options(Sampler::DDIM, 4)).unwrap_err().to_string();
    assert!(message.contains("3 channels, and its sample 6"), "{message}");
    Ok(())
}

fn manifest(model: &SampledModel) -> &Manifest {
    match model {
        SampledModel::Package(package) => &package.manifest,
        SampledModel::Diffusers(_) => panic!("it is a package"),
    }
}

fn scaled(scale: f64) -> ClassifierFreeOptions {
    ClassifierFreeOptions { scale, ..ClassifierFreeOptions::default() }
}

/// What generation in four steps gives.
fn generated(
    model: &SampledModel,
    sampler: Sampler,
    x: &Array4<f32>,
    classes: Classes,
) -> Result<Array4<f32>> {
    let mut network = model.load(&runtime()?, None, SessionOptions::default())?;
    let options =
        GenerateOptions { sampler: Some(sampler), steps: Some(4), ..GenerateOptions::default() };
    let mut generator = Generator::new(manifest(model), &mut network, options)?;
    let (batch, _, height, width) = x.dim();
    let request = GenerateRequest {
        seeds: vec![0; batch],
        classes: Some(classes),
        initial: Some(x.clone()),
        ..GenerateRequest::default()
    };
    generator.generate([width, height], request, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn guidance_gives_the_generators_numbers() -> Result<()> {
    let model = SampledModel::find("digits-ddpm")?;
    let x = Philox::new(3).initial([2, 1, 8, 8]);
    for (sampler, scale) in [(Sampler::DDIM, 1.5), (Sampler::DPMPP_2M, 3.0)] {
        let classes = Classes { labels: vec![3, 8], negative: None, options: scaled(scale) };
        let expected = generated(&model, sampler, &x, classes)?;
        let own = CompileOptions { guidance_scale: Some(scale), ..options(sampler, 4) };
        let class = Array1::from(vec![3.0, 8.0]).into_dyn();
        let inputs = [("sample", x.clone().into_dyn()), ("class", class)];
        assert_near(&run(&model, &own, &inputs)?, &expected, TOLERANCE, sampler.name());
        let without = run(&model, &options(sampler, 4), &inputs)?;
        assert!(without.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 1e-2), "{sampler}");
    }
    Ok(())
}

/// Latents, which the graph decodes, too.
#[test]
fn latents_are_decoded_as_by_the_generator() -> Result<()> {
    let package = Package::find(&data("folders/latents"))?;
    let (runtime, session) = (runtime()?, SessionOptions::default());
    let mut network = package.load(&runtime, Precision::F32, session)?;
    let mut decoder = package.load_decoder(&runtime, session)?;
    let own = GenerateOptions {
        sampler: Some(Sampler::DDIM),
        steps: Some(4),
        ..GenerateOptions::default()
    };
    let generator = Generator::new(&package.manifest, &mut network, own)?;
    let mut generator = generator.decoded_by(decoder.as_mut());
    let x = Philox::new(3).initial([2, package.manifest.channels, 8, 8]);
    let scale = package.manifest.decoder.as_ref().map_or(1, |decoder| decoder.scale);
    let request = GenerateRequest {
        seeds: vec![0; 2],
        initial: Some(x.clone()),
        ..GenerateRequest::default()
    };
    let expected =
        generator.generate([8 * scale; 2], request, &mut |_| ControlFlow::Continue(()))?;
    let model = SampledModel::Package(Box::new(package.clone()));
    let found = run(&model, &options(Sampler::DDIM, 4), &[("sample", x.into_dyn())])?;
    assert_near(&found, &expected, TOLERANCE, "decoded");
    Ok(())
}

const BY_CONSTANTS: &str = r#"
name = "by-constants"
version = "1"
task = "generate"
prediction = "epsilon"
channels = 1
range = [-1.0, 1.0]
license = "CC0-1.0"
description = "The sine of the product of sample and condition"

[schedule]
num_train_timesteps = 1000
beta_schedule = "linear"

[inputs]
sample = "sample"
timestep = "timestep"

[constants]
condition = 0.9

[unconditional]
condition = 0.4

[outputs]
prediction = "sine"
"#;

/// The network's input has the name that the whole graph's has, too.
#[test]
fn guidance_may_be_by_constants() -> Result<()> {
    let free = ["batch", "height", "width"].map(Length::named);
    let [batch, height, width] = free;
    let one = Length::Fixed(1);
    let shape = vec![batch.clone(), one.clone(), height, width];
    let port = |name, element, shape| Port::new(name, element, shape).write("");
    let graph = Message::default()
        .message(1, node("Mul", &["sample", "condition"], &["product"], []))
        .message(1, node("Sin", &["product"], &["sine"], []))
        .bytes(2, "graph")
        .message(11, port("sample", Element::F32, shape.clone()))
        .message(11, port("timestep", Element::I64, Vec::new()))
        .message(11, port("condition", Element::F32, vec![batch, one.clone(), one.clone(), one]))
        .message(12, port("sine", Element::F32, shape));
    let opset = Message::default().number(2, 17);
    let network = Message::default().number(1, 8).message(8, opset).message(7, graph).into_bytes();
    let folder = tempfile::tempdir().unwrap();
    let hash = sha256(&network);
    let manifest = format!("{BY_CONSTANTS}[files.f32]\npath = \"n.onnx\"\nsha256 = \"{hash}\"\n");
    std::fs::write(folder.path().join("n.onnx"), network).unwrap();
    std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
    let model = SampledModel::find(&folder.path().display().to_string())?;
    let x = Philox::new(3).initial([2, 1, 4, 6]);
    let expected = |scale| {
        let classes = Classes { options: scaled(scale), ..Classes::default() };
        generated(&model, Sampler::DDIM, &x, classes)
    };
    let inputs = [("sample", x.clone().into_dyn())];
    let own = CompileOptions { guidance_scale: Some(2.5), ..options(Sampler::DDIM, 4) };
    let found = run(&model, &own, &inputs)?;
    assert_near(&found, &expected(2.5)?, TOLERANCE, "guided");
    let plain = run(&model, &options(Sampler::DDIM, 4), &inputs)?;
    assert_near(&plain, &expected(1.0)?, TOLERANCE, "conditional");
    assert!(found.iter().zip(&plain).any(|(a, b)| (a - b).abs() > 1e-2));
    Ok(())
}

/// A denoiser starts at its image, whose sigma may be a map.
#[test]
fn denoisers_give_the_numbers_of_denoising() -> Result<()> {
    for (name, channels, map) in [
        ("denoise-fast", 3, SigmaMap::Uniform(0.1)),
        ("camera", 6, SigmaMap::Yuv([0.1, 0.05])),
        (
            "denoise-fast",
            3,
            SigmaMap::PerPixel {
                width: 21,
                values: (0..12 * 21).map(|i| 0.02 + 0.003 * (i % 29) as f32).collect(),
            },
        ),
    ] {
        let model = SampledModel::find(name)?;
        let shape = [1, channels, 12, 21];
        let x = Array4::from_shape_fn(shape, |(_, c, y, x)| ((c + 3 * y + 5 * x) % 7) as f32 / 7.0);
        let sigma = match &map {
            SigmaMap::Uniform(sigma) => Array4::from_elem([1, 1, 1, 1], *sigma),
            SigmaMap::PerPixel { values, .. } => {
                Array4::from_shape_vec([1, 1, 12, 21], values.clone()).unwrap()
            }
            SigmaMap::Yuv(sigmas) => Array4::from_shape_fn([1, 2, 1, 1], |at| sigmas[at.1]),
            SigmaMap::YuvPerPixel { .. } => panic!("no case has one"),
        };
        for (steps, eta) in [(1, 0.0), (3, 0.0), (3, 0.7)] {
            let plan = denoise_plan(steps, eta)?;
            let fresh = noise(steps, shape);
            let expected = looped(&model, (&plan, &map), None, (x.clone(), &fresh, None))?;
            let mut inputs =
                vec![("sample", x.clone().into_dyn()), ("sigma", sigma.clone().into_dyn())];
            if plan.noise_rows() > 0 {
                inputs.push(("noise", fresh.into_dyn()));
            }
            let own = CompileOptions { eta: Some(eta), ..options(None, steps) };
            let what = format!("{name} in {steps} steps");
            assert_near(&run(&model, &own, &inputs)?, &expected, TOLERANCE, &what);
        }
    }
    Ok(())
}

/// At a size that both grids have to be padded for.
#[test]
fn upscalers_give_the_numbers_of_upscaling() -> Result<()> {
    for name in ["upscale-x2", "upscale-x4"] {
        let model = SampledModel::find(name)?;
        let small = Array4::from_shape_fn([1, 3, 7, 10], |(_, c, y, x)| {
            ((2 * c + 3 * y + 5 * x) % 11) as f32 / 11.0
        });
        for steps in [1, 3] {
            let mut network = model.load(&runtime()?, None, SessionOptions::default())?;
            let own = UpscaleOptions { steps: Some(steps), ..UpscaleOptions::default() };
            let mut upscaler = Upscaler::new(manifest(&model), &mut network, own)?;
            let scale = manifest(&model).scale;
            let planes = small.iter().copied().collect();
            let low = LowRes::of_planes(planes, [10, 7], Range::new(0.0, 1.0)?, scale);
            let mut expected = Array4::zeros(low.enlarged_shape());
            let tiles = upscaler.tiles([10, 7], true, 0)?;
            assert!(tiles.is_whole());
            upscaler.run(&low, &mut expected, &tiles, &mut |_| ControlFlow::Continue(()))?;
            let mut inputs = vec![("low_resolution", small.clone().into_dyn())];
            if steps > 1 {
                // Of the upscaler's own seed.
                let start = Philox::new(0).initial(low.enlarged_shape());
                inputs.push(("initial_noise", start.into_dyn()));
            }
            let found = run(&model, &options(None, steps), &inputs)?;
            assert_near(&found, &expected, TOLERANCE, &format!("{name} in {steps} steps"));
        }
    }
    Ok(())
}

#[test]
fn weights_are_stored_once() -> Result<()> {
    for (model, steps) in [("denoise-fast", 50), ("digits-ddpm", 50), ("upscale-x4", 4)] {
        let model = SampledModel::find(model)?;
        let compiled =
            compile(&model, &CompileOptions { steps: Some(steps), ..CompileOptions::default() })?;
        let (whole, network) = (compiled.file.len() as f64, compiled.network_bytes as f64);
        assert!(whole < 1.02 * network, "{whole} bytes, of which the network has {network}");
    }
    Ok(())
}

#[test]
fn says_what_cannot_be_compiled() -> Result<()> {
    let refused = |model: &str, options: &CompileOptions| {
        let model = SampledModel::find(model)?;
        Ok::<_, crate::Error>(compile(&model, options).unwrap_err().to_string())
    };
    for (model, options, problem) in [
        ("digits-classifier", options(Sampler::DDIM, 2), "guides another network"),
        ("upscale-x2", options(Sampler::DDIM, 2), "leave the sampler (ddim) out"),
        ("digits-ddpm", options(Sampler::EULER, 0), "at least one step"),
        (
            "digits-ncsn",
            CompileOptions { guidance_scale: Some(2.0), ..CompileOptions::default() },
            "neither an unconditional class",
        ),
        (
            "digits-ddpm",
            CompileOptions { guidance_scale: Some(f64::NAN), ..CompileOptions::default() },
            "expected a number from 0 to",
        ),
        (
            "digits-ddpm",
            CompileOptions { precision: Some(Precision::F16), ..CompileOptions::default() },
            "it has no f16 file",
        ),
    ] {
        let message = refused(model, &options)?;
        assert!(message.contains(problem), "{message}");
    }
    let folder = data("pipelines/int64-one");
    let message = refused(&folder, &CompileOptions::default())?;
    assert!(message.contains("no number of steps"), "{message}");
    assert!(Path::new(&folder).exists());
    Ok(())
}

/// The network of a package as it is named in the manifest may have any of the names that the
/// whole graph has.
#[test]
fn names_of_the_network_do_not_collide() -> Result<()> {
    let package = Package::find("digits-ddpm")?;
    let file = package.read("digits-ddpm.onnx")?;
    let mut source = super::source::Source::read(&file, "digits-ddpm")?;
    let before = source.nodes.clone();
    source.rename(&["none"]);
    assert_eq!(source.nodes, before, "nothing has this name");
    source.rename(&["class", "epsilon"]);
    let changed = source.nodes.iter().zip(&before).filter(|(new, old)| new != old).count();
    // The lookup of the class, and the node that gives the output.
    assert_eq!(changed, 2);
    let names: Vec<_> = source.inputs.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["x", "t", "network/class"]);
    assert_eq!(source.outputs[0].name, "network/epsilon");
    Ok(())
}

//! Pipelines that `eddy compile` puts into one graph, against `eddy generate`.

use eddy::array;
use eddy::model::ModelFolder;
use eddy::network::{Library, ModelSource, Runtime, SessionOptions, TensorGraph};
use eddy::stages::{PromptTokenizer, fragments};
use ndarray::{Array, Array4, ArrayD, Axis, Ix4, Ix5};

use crate::common::eddy;
use crate::common::place::Place;
use crate::exported::stored;

const PROMPT: &str = "a photograph of an astronaut";

/// What the graph gives for a prompt and the noise of a stored run, from 0 to 1.
fn run(place: &Place, noise: &str, tokenizers: &[&str]) -> Array4<f32> {
    let runtime = Runtime::load(&Library::Embedded).unwrap();
    let file = place.path("whole.onnx");
    let mut graph =
        TensorGraph::open(&runtime, "whole", ModelSource::File(&file), SessionOptions::default())
            .unwrap();
    let described = eddy::compile::describe(&file).unwrap().unwrap();
    let sigma: f32 = described.properties["init_noise_sigma"].parse().unwrap();
    let recorded = |name: &str| stored(&format!("runs/{noise}/{name}"));
    let initial = array::read::<Ix4>(&recorded("initial-noise.npy")).unwrap();
    let mut inputs: Vec<(String, ArrayD<f32>)> =
        vec![("sample".into(), (initial * sigma).into_dyn())];
    for (index, tokenizer) in tokenizers.iter().enumerate() {
        let suffix = if index == 0 { String::new() } else { format!("_{}", index + 1) };
        let name = format!("tokens{suffix}");
        let length = usize::try_from(graph.input(&name).unwrap().shape[1]).unwrap();
        let tokenizer = PromptTokenizer::open(
            &ModelFolder::find(place.path("pipeline")),
            tokenizer,
            Some(length),
        )
        .unwrap();
        let tokens = tokenizer.tokens(&fragments(PROMPT)).unwrap();
        let ids = tokens.ids.iter().map(|id| *id as f32).collect();
        let row = |values: Vec<f32>| Array::from_shape_vec([1, length], values).unwrap().into_dyn();
        inputs.push((name, row(ids)));
        let mask = format!("attention_mask{suffix}");
        if graph.input(&mask).is_some() {
            inputs.push((mask, row(tokens.mask)));
        }
    }
    if graph.input("noise").is_some() {
        let noise = array::read::<Ix5>(&recorded("noise.npy")).map(Array::into_dyn);
        let noise = noise.or_else(|_| {
            array::read::<Ix4>(&recorded("noise.npy")).map(|it| it.insert_axis(Axis(1)).into_dyn())
        });
        inputs.push(("noise".into(), noise.unwrap()));
    }
    let inputs: Vec<_> = inputs.iter().map(|(name, value)| (name.as_str(), value.view())).collect();
    let image = graph.run(&inputs, &["image"]).unwrap().remove(0);
    let image: Array4<f32> = image.into_dimensionality().unwrap();
    image.mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0))
}

#[test]
fn one_graph_gives_the_images_of_the_pipeline() {
    // Pipelines, a run whose noise is taken, steps, tokenizers, and inputs with defaults.
    for (pipeline, noise, options, tokenizers) in [
        ("sd15", "sd15", "--steps 4", vec!["tokenizer"]),
        ("sd15", "sd15", "--steps 3 --sampler ddim --guidance-scale 1", vec!["tokenizer"]),
        (
            "sd15-euler-ancestral",
            "sd15-euler-ancestral",
            "--steps 4 --guidance-scale 3",
            vec!["tokenizer"],
        ),
        // Two text encoders, sizes as inputs, and zeros without a negative prompt.
        ("sdxl", "sdxl+no-negative", "--steps 3", vec!["tokenizer", "tokenizer_2"]),
        // A mask of tokens.
        ("pixart-sigma", "pixart-sigma", "--steps 4", vec!["tokenizer"]),
        // Pixels, with a variance that the network predicts.
        ("if-base", "if-base", "--steps 6", vec!["tokenizer"]),
    ] {
        let place = Place::with_pipeline(pipeline);
        let tokenizers: Vec<&str> = tokenizers
            .into_iter()
            .filter(|name| place.path("pipeline").join(name).is_dir())
            .collect();
        let recorded = |name: &str| stored(&format!("runs/{noise}/{name}"));
        let initial = array::read::<Ix4>(&recorded("initial-noise.npy")).unwrap();
        let (_, _, height, width) = initial.dim();
        eddy(&format!("compile pipeline {options} -o whole.onnx")).within(&place).succeeds();
        let found = run(&place, noise, &tokenizers);
        let scale = found.dim().2 / height;
        let size = format!("--size {}x{}", scale * width, scale * height);
        let mut line =
            eddy(&format!("generate -m pipeline {options} {size} -o y.npy --initial-noise"))
                .arg(recorded("initial-noise.npy"))
                .arg("--prompt")
                .arg(PROMPT);
        if recorded("noise.npy").exists() {
            line = line.arg("--noise").arg(recorded("noise.npy"));
        }
        line.within(&place).succeeds();
        let expected = array::read::<Ix4>(&place.path("y.npy")).unwrap();
        assert_eq!(found.dim(), expected.dim(), "{pipeline}");
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0_f32, |a, b| if b > a || b.is_nan() { b } else { a });
        assert!(apart < 1e-5, "{pipeline} {options}: {apart:.1e} from the pipeline");
    }
}

#[test]
fn says_what_of_a_pipeline_cannot_be_compiled() {
    for (pipeline, problem) in [
        ("flux-schnell", "takes patches in a row"),
        ("kandinsky22", "samples an embedding"),
        ("sana", "an instruction before prompts"),
        ("x4-upscaler", "an image that is given"),
    ] {
        let place = Place::with_pipeline(pipeline);
        eddy("compile pipeline -o whole.onnx").within(&place).fails(4).says(problem);
        place.holds_only(&["pipeline"]);
    }
    let place = Place::with_pipeline("sd15");
    eddy("compile pipeline --precision int8 -o whole.onnx").within(&place).fails(4).says("int8");
    eddy("compile pipeline -o pipeline/unet/model.onnx").within(&place).fails(2).says("folder");
    let place = place.without("text_encoder/model.onnx");
    eddy("compile pipeline -o whole.onnx").within(&place).fails(4).says("text_encoder/model.onnx");
    place.holds_only(&["pipeline"]);
}

//! Cascades of small networks against the pipeline.

use std::ops::ControlFlow;
use std::path::Path;

use ndarray::{Array4, ArrayD, Axis};

use super::onnx::{Attribute, Element, Length, Port, node, tensor};
use super::{CompileOptions, compile_pipeline, save};
use crate::diffusion::Philox;
use crate::error::Result;
use crate::model::protobuf::Message;
use crate::network::{Library, ModelSource, Runtime, SessionOptions, TensorGraph};
use crate::stages::{NoiseSequence, TextToImage, TextToImageOptions, TextToImageRequest};

const SCHEDULE: &str = r#"{"_class_name": "DDPMScheduler", "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon", "clip_sample": true}"#;

/// A network whose output is a function of its channels: `sin(x)` of the sample, or with a
/// condition, `sin(x + 0.7 c + 0.001 level)`.
fn network(takes_condition: bool) -> Vec<u8> {
    let [batch, height, width] = ["batch", "height", "width"].map(Length::named);
    let image =
        |channels| vec![batch.clone(), Length::Fixed(channels), height.clone(), width.clone()];
    let port = |name, element, shape| Port::new(name, element, shape).write("");
    let constant =
        |name, element, shape: &[i64], values: &[f64]| tensor(name, element, shape, values);
    let mut graph = Message::default().bytes(2, "graph");
    if takes_condition {
        graph = graph
            .message(5, constant("three", Element::I64, &[2], &[3.0, 3.0]))
            .message(5, constant("part", Element::F32, &[], &[0.7]))
            .message(5, constant("unit", Element::F32, &[], &[0.001]))
            .message(5, constant("each", Element::I64, &[4], &[-1.0, 1.0, 1.0, 1.0]))
            .message(
                1,
                node("Split", &["sample", "three"], &["x", "c"], [Attribute::Int("axis", 1)]),
            )
            .message(1, node("Mul", &["c", "part"], &["weak"], []))
            .message(1, node("Mul", &["class_labels", "unit"], &["level"], []))
            .message(1, node("Reshape", &["level", "each"], &["levels"], []))
            .message(1, node("Add", &["x", "weak"], &["both"], []))
            .message(1, node("Add", &["both", "levels"], &["all"], []))
            .message(1, node("Sin", &["all"], &["out_sample"], []))
            .message(11, port("sample", Element::F32, image(6)))
            .message(11, port("class_labels", Element::F32, vec![batch.clone()]));
    } else {
        graph = graph
            .message(1, node("Sin", &["sample"], &["out_sample"], []))
            .message(11, port("sample", Element::F32, image(3)));
    }
    let graph = graph
        .message(11, port("timestep", Element::I64, Vec::new()))
        .message(12, port("out_sample", Element::F32, image(3)));
    let opset = Message::default().number(2, 17);
    Message::default().number(1, 8).message(8, opset).message(7, graph).into_bytes()
}

/// Writes a cascade from 12x8 to 36x24 pixels.
fn write(folder: &Path, enlargement: &str) {
    let stage = |network: &str, size: &str, more: &str| {
        format!(
            "[[stages]]\nnetwork = \"{network}\"\nscheduler = \"schedule.json\"\nchannels = 3\n\
             guidance = \"unguided\"\nstate = {{ fixed-image = {size} }}\n{more}\
             [stages.defaults]\nsteps = 3\nguidance_scale = 1.0\nstrength = 1.0\nsize = {size}\n\n"
        )
    };
    let low = stage("low.onnx", "[12, 8]", "");
    let more = format!(
        "concat = {{ enlarged = \"{enlargement}\" }}\nlow_res_scheduler = \"schedule.json\"\n"
    );
    let high = stage("high.onnx", "[36, 24]", &more);
    std::fs::write(folder.join("pipeline.toml"), format!("name = \"cascade\"\n\n{low}{high}"))
        .unwrap();
    std::fs::write(folder.join("schedule.json"), SCHEDULE).unwrap();
    std::fs::write(folder.join("low.onnx"), network(false)).unwrap();
    std::fs::write(folder.join("high.onnx"), network(true)).unwrap();
}

/// Normal values of this shape.
fn drawn(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    Philox::new(seed).initial(shape)
}

#[test]
fn cascades_give_the_numbers_of_the_pipeline() -> Result<()> {
    let runtime = Runtime::load(&Library::Embedded)?;
    for enlargement in ["bilinear", "bilinear-centers", "bicubic"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), enlargement);
        let compiled = compile_pipeline(&folder.path().into(), &CompileOptions::default())?;
        assert_eq!((compiled.steps, compiled.evaluations), (3, 6));
        let file = folder.path().join("whole.onnx");
        save(&compiled.file, &file)?;
        let mut graph = TensorGraph::open(
            &runtime,
            "whole",
            ModelSource::File(&file),
            SessionOptions::default(),
        )?;
        let (small, large) = ([1, 3, 8, 12], [1, 3, 24, 36]);
        // In the order in which the pipeline draws them; the last step draws none.
        let draws = [
            ("sample", vec![drawn(1, small)]),
            ("noise", vec![drawn(2, small), drawn(3, small)]),
            ("sample_2", vec![drawn(4, large)]),
            ("low_resolution_noise_2", vec![drawn(5, large)]),
            ("noise_2", vec![drawn(6, large), drawn(7, large)]),
        ];
        let sequence = draws.iter().flat_map(|(_, all)| all.iter().flatten().copied()).collect();
        let mut pipeline =
            TextToImage::open(&runtime, &folder.path().into(), TextToImageOptions::default())?;
        let (expected, _) = pipeline.sample(
            &TextToImageRequest::default(),
            &mut NoiseSequence::recorded(sequence),
            &mut |_| ControlFlow::Continue(()),
        )?;
        let inputs: Vec<(&str, ArrayD<f32>)> = draws
            .iter()
            .map(|(name, all)| {
                let rows: Vec<_> = all.iter().map(|values| values.view()).collect();
                let value = if name.starts_with("noise") {
                    ndarray::stack(Axis(0), &rows).unwrap().into_dyn()
                } else {
                    all[0].clone().into_dyn()
                };
                (*name, value)
            })
            .collect();
        let inputs: Vec<_> = inputs.iter().map(|(name, value)| (*name, value.view())).collect();
        let found = graph.run(&inputs, &["image"])?.remove(0);
        assert_eq!(found.shape(), expected.shape());
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        let apart = apart.fold(0.0_f32, |a, b| if b > a || b.is_nan() { b } else { a });
        assert!(apart < 1e-5, "{enlargement}: {apart:.1e} from the pipeline");
    }
    Ok(())
}

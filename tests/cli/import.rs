//! `eddy import`, and diffusers folders without conversion.

use std::fs;

use crate::common::eddy;
use crate::common::place::{Place, data};

/// A generating pipeline as diffusers saves it, with random weights, with or without classes.
fn pipeline(place: &Place, config: &str) {
    let from = data("pipelines/int64-batch");
    for part in ["unet/model.onnx", "scheduler/scheduler_config.json"] {
        place.file(&format!("pipeline/{part}"), fs::read(from.join(part)).unwrap());
    }
    place.file("pipeline/unet/config.json", config);
    place.file("pipeline/model_index.json", r#"{"_class_name": "DDPMPipeline"}"#);
}

const UNET: &str = r#"{"_class_name": "UNet2DModel", "in_channels": 3, "out_channels": 3, "sample_size": [8, 12]}"#;

#[test]
fn generates_with_a_pipeline_and_its_package() {
    let place = Place::new();
    pipeline(&place, UNET);
    eddy("generate -m pipeline -o a.png --steps 5 --seed 3").within(&place).succeeds().says("12x8");
    eddy("import pipeline -o package/ --license CC0-1.0")
        .within(&place)
        .succeeds()
        .says("a model to generate; `eddy check package/`");
    assert_eq!(
        place.names("package"),
        ["check-prediction.npy", "check-sample.npy", "model.toml", "network.onnx"]
    );
    eddy("check package").within(&place).succeeds();
    eddy("generate -m package -o b.png --steps 5 --seed 3").within(&place).succeeds();
    assert_eq!(place.image("a.png").samples, place.image("b.png").samples);
    eddy("info package").within(&place).succeeds().prints("CC0-1.0");
    // The result equals that of `eddy sample`, which is compared with diffusers.
    eddy("generate -m package -o c.png --size 10x10").within(&place).fails(2).says("12x8 only");
    eddy("import pipeline -o package").within(&place).fails(2).says("already exists");
}

#[test]
fn imports_a_bare_network_by_its_options() {
    let place = Place::new();
    place.file("net.onnx", fs::read(data("models/identity.onnx")).unwrap());
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma --output-name denoised";
    eddy(&format!("import net.onnx -o net/ {said} --receptive-field 0")).within(&place).succeeds();
    eddy("check net").within(&place).succeeds();
    eddy("denoise")
        .arg(data("chelsea.png"))
        .args("-m net --sigma 10 -o out.png")
        .within(&place)
        .succeeds();
    eddy(&format!("import net.onnx -o other/ {}", said.replace("sample=x", "sample=z")))
        .within(&place)
        .fails(4)
        .says("no input named `z`; it has x, sigma");
    eddy("import net.onnx -o other/ --inputs sample=x,sample=sigma")
        .within(&place)
        .fails(2)
        .says("sample is named twice");
    place.holds_only(&["net", "net.onnx", "out.png"]);
}

/// Unknown values are errors of the command line that list the known ones.
#[test]
fn rejects_unknown_values_of_options() {
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=s --output-name y";
    for (known, unknown, words) in [
        (
            "--task denoise",
            "--task dance",
            "denoise, upscale, generate, classifier, deblur, inpaint",
        ),
        ("--prediction denoised", "--prediction gradient", "score, flow or edm=SIGMA_DATA"),
        ("sigma=s", "depth=d", "expected sample, sigma, timestep, condition, class, mask, known"),
        ("sample=x", "x", "x has no role"),
        ("--sigma-range", "--input depth=far --sigma-range", "a name with numbers"),
        ("--sigma-range", "--colors cmyk --sigma-range", "rgb, bgr, luma"),
        ("--sigma-range", "--axes chw --sigma-range", "nchw, nhwc"),
        ("--sigma-range", "--dtype f64 --sigma-range", "f32, f16, int8"),
        ("--sigma-range", "--sampler dpm --sigma-range", "dpmpp-2m"),
        ("--sigma-range", "--size 0x4 --sigma-range", "640x480"),
    ] {
        eddy(&format!("import net.onnx -o out/ {}", said.replace(known, unknown)))
            .fails(2)
            .says(words);
    }
}

/// What a folder's files say is not replaced by options, nor what options say by a file.
#[test]
fn rejects_options_that_contradict_the_files() {
    let place = Place::new();
    pipeline(&place, UNET);
    eddy("import pipeline -o out/ --prediction sample")
        .within(&place)
        .fails(2)
        .says("leave out the options");
    let said = "--task generate --value-range -1,1 --inputs sample=sample,timestep=timestep --output-name out_sample";
    let import =
        format!("import pipeline/unet/model.onnx -o out/ {said} --size 12x8 --schedule s.json");
    place.file(
        "s.json",
        r#"{"_class_name": "UniPCMultistepScheduler", "prediction_type": "epsilon"}"#,
    );
    eddy(&format!("{import} --prediction sample"))
        .within(&place)
        .fails(4)
        .says("prediction_type = \"epsilon\"");
    eddy(&format!("{import} --prediction score"))
        .within(&place)
        .fails(4)
        .says("v_prediction or sample");
    place.file("s.json", r#"{"_class_name": "DPMSolverSDEScheduler"}"#);
    eddy(&format!("{import} --prediction epsilon"))
        .within(&place)
        .fails(4)
        .says("DPMSolverSDEScheduler");
    place.file("s.json", r#"{"beta_schedule": "cubic"}"#);
    eddy(&format!("{import} --prediction epsilon")).within(&place).fails(4).says("cubic");
    place.holds_only(&["pipeline", "s.json"]);
    place.file("s.json", r#"{"_class_name": "UniPCMultistepScheduler"}"#);
    eddy(&format!("{import} --prediction epsilon")).within(&place).succeeds();
    assert!(manifest(&place).contains("sampler = \"unipc\""));
}

fn manifest(place: &Place) -> String {
    fs::read_to_string(place.path("out/model.toml")).unwrap()
}

/// The command line in `docs/packages.md` is complete: only its files are missing.
#[test]
fn the_documented_command_is_accepted() {
    let document = include_str!("../../docs/packages.md");
    let command =
        document.split("eddy import sr3.onnx").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::new();
    let command = format!("import sr3.onnx{}", command.replace("\\\n", " "));
    eddy(&command).within(&place).fails(3).says("scheduler_config.json");
    place.file("scheduler_config.json", "{}");
    eddy(&command).within(&place).fails(3).says("sr3.onnx");
}

/// Python's infinities, defaults that are noted as such, and tables within the file.
#[test]
fn keeps_every_setting_of_a_scheduler() {
    let place = Place::new();
    pipeline(&place, UNET);
    let scheduler = |rest: &str| {
        let text = format!(
            r#"{{"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": -Infinity{rest}}}"#
        );
        place.file("pipeline/scheduler/scheduler_config.json", text);
    };
    scheduler(
        r#", "steps_offset": 1, "beta_end": 0.5, "trained_betas": null, "_use_default_values": ["beta_end"]"#,
    );
    eddy("import pipeline -o out/").within(&place).succeeds();
    let text = manifest(&place);
    assert!(
        text.contains("[schedule]\nlambda_min_clipped = \"-Infinity\"\nsteps_offset = 1\n\n"),
        "{text}"
    );
    eddy("generate -m out -o a.png --steps 2").within(&place).succeeds();
    fs::remove_dir_all(place.path("out")).unwrap();
    scheduler(r#", "solver_p": {"_class_name": "DDIMScheduler"}"#);
    eddy("import pipeline -o out/").within(&place).succeeds();
    eddy("generate -m out -o a.png --steps 2").within(&place).succeeds();
    eddy("generate -m out -o b.png --steps 2 --sampler unipc")
        .within(&place)
        .fails(4)
        .says("solver_p");
}

#[test]
fn rejects_unsupported_imports() {
    let place = Place::new();
    pipeline(&place, &UNET.replace("\"in_channels\": 3", "\"in_channels\": 6"));
    eddy("import pipeline -o out/").within(&place).fails(4).says("takes 6 channels and gives 3");
    place.file("pipeline/unet/config.json", "no json");
    eddy("import pipeline -o out/")
        .within(&place)
        .fails(4)
        .says("config.json is not as diffusers writes it");
    fs::remove_file(place.path("pipeline/unet/config.json")).unwrap();
    eddy("generate -m pipeline -o a.png").within(&place).fails(4).says("number of channels");
    place.file("text.onnx", "a text");
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma --output-name y";
    eddy(&format!("import text.onnx -o out/ {said}"))
        .within(&place)
        .fails(4)
        .says("ONNX Runtime does not accept it");
    eddy(&format!("import gone.onnx -o out/ {said}")).within(&place).fails(3).says("gone.onnx");
    place.holds_only(&["pipeline", "text.onnx"]);
}

/// A length-delimited protobuf field.
fn field(number: u8, body: &[u8]) -> Vec<u8> {
    [&[(number << 3) | 2, u8::try_from(body.len()).unwrap()], body].concat()
}

/// A denoiser that multiplies by a number in an external file of this name.
fn multiplying(location: &str) -> Vec<u8> {
    let value = |name: &str, channels: u8| {
        let dim = |size: u8| field(1, &[8, size]);
        let named = |name: &str| field(1, &field(2, name.as_bytes()));
        let shape = [dim(1), dim(channels), named("h"), named("w")].concat();
        let tensor = field(1, &[&[8, 1][..], &field(2, &shape)].concat());
        [field(1, name.as_bytes()), field(2, &tensor)].concat()
    };
    let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
    // One external float.
    let weight = [&[8, 1, 16, 1][..], &field(8, b"w"), &field(13, &entry), &[112, 1]].concat();
    let node = [field(1, b"x"), field(1, b"w"), field(2, b"y"), field(4, b"Mul")].concat();
    let graph = [
        field(1, &node),
        field(2, b"g"),
        field(5, &weight),
        field(11, &value("x", 3)),
        field(11, &value("sigma", 1)),
        field(12, &value("y", 3)),
    ];
    let graph = graph.concat();
    let length = [(graph.len() & 0x7F) as u8 | 0x80, (graph.len() >> 7) as u8];
    [&[8, 8, 0x3A][..], &length, &graph, &field(8, &[16, 13])].concat()
}

#[test]
fn imports_external_weight_files() {
    let place = Place::new();
    let said = "--task denoise --prediction denoised --sigma-range 0,1 --inputs sample=x,sigma=sigma --output-name y";
    for (i, location) in ["weights.pb", "parts/of/w.bin", "net.onnx_data"].into_iter().enumerate() {
        place.file(&format!("{i}/net.onnx"), multiplying(location));
        place.file(&format!("{i}/{location}"), 0.5_f32.to_le_bytes());
        place.file(&format!("{i}/net.onnx.txt"), "not named");
        eddy(&format!("import {i}/net.onnx -o p{i}/ {said} --receptive-field 0"))
            .within(&place)
            .succeeds();
        assert!(
            place.path(&format!("p{i}/{location}")).is_file()
                && !place.path(&format!("p{i}/net.onnx.txt")).exists()
        );
        fs::remove_dir_all(place.path(&i.to_string())).unwrap();
        eddy(&format!("check p{i}")).within(&place).succeeds();
        fs::remove_dir_all(place.path(&format!("p{i}"))).unwrap();
    }
    place.file("w", 0.5_f32.to_le_bytes());
    let refused = |location: &str, code: i32, words: &str| {
        place.file("in/net.onnx", multiplying(location));
        eddy(&format!("import in/net.onnx -o p/ {said}"))
            .within(&place)
            .fails(code)
            .says(location)
            .says(words);
    };
    refused("../w", 4, "lies outside of its folder");
    refused("/etc/hostname", 4, "lies outside of its folder");
    refused("gone.bin", 4, "cannot be read");
    std::os::unix::fs::symlink("../w", place.path("in/link.bin")).unwrap();
    refused("link.bin", 4, "a link out of its folder");
    place.file("in/model.toml", 0.5_f32.to_le_bytes());
    refused("model.toml", 4, "has the name of a file of the package");
    place.holds_only(&["in", "w"]);
}

/// Every scheduler class maps to its own sampler or is rejected.
#[test]
fn maps_schedulers_to_their_sampler_or_rejects_them() {
    let scheduler = |place: &Place, config: &str| {
        place.file("pipeline/scheduler/scheduler_config.json", config);
    };
    for (config, sampler) in [
        (r#"{"_class_name": "DDIMScheduler"}"#, "ddim"),
        (r#"{"_class_name": "PNDMScheduler"}"#, "pndm"),
        (r#"{"_class_name": "UniPCMultistepScheduler"}"#, "unipc"),
        (r#"{"_class_name": "DEISMultistepScheduler"}"#, "deis"),
        (r#"{"_class_name": "LMSDiscreteScheduler"}"#, "lms"),
        (r#"{"_class_name": "KDPM2DiscreteScheduler"}"#, "kdpm2"),
        (r#"{"_class_name": "KDPM2AncestralDiscreteScheduler"}"#, "kdpm2-a"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler"}"#, "dpmpp-2m"),
        (r#"{"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}"#, "dpmpp-3m"),
        (
            r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#,
            "dpmpp-2m-sde",
        ),
        (r#"{"_class_name": "DPMSolverSinglestepScheduler"}"#, "dpmpp-single"),
    ] {
        let place = Place::new();
        pipeline(&place, UNET);
        scheduler(&place, config);
        eddy("import pipeline -o out/").within(&place).succeeds();
        let manifest = manifest(&place);
        assert!(manifest.contains(&format!("sampler = \"{sampler}\"")), "{config}: {manifest}");
    }
    for (config, class) in [
        (r#"{"_class_name": "DPMSolverSDEScheduler"}"#, "DPMSolverSDEScheduler"),
        (r#"{"_class_name": "EDMEulerScheduler"}"#, "EDMEulerScheduler"),
        (
            r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "solver_order": 3}"#,
            "with this algorithm_type and solver_order",
        ),
    ] {
        let place = Place::new();
        pipeline(&place, UNET);
        scheduler(&place, config);
        for command in ["import pipeline -o out/", "generate -m pipeline -o a.png"] {
            eddy(command).within(&place).fails(4).says(class).says("UniPCMultistepScheduler");
        }
    }
}

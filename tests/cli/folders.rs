//! Diffusers pipelines, exported with random networks: Eddy's results must match those of
//! diffusers. See `tests/golden/make_folders.py`.

use std::path::PathBuf;

use eddy::array;
use eddy::media::{Image, Metadata, Samples};
use ndarray::{Array4, Ix4};

use crate::common::eddy;
use crate::common::place::{Place, data};

fn stored(name: &str) -> PathBuf {
    data("folders").join(name)
}

fn expected(folder: &str) -> Array4<f32> {
    array::read::<Ix4>(&stored(folder).join("expected.npy")).unwrap()
}

/// What a pipeline with classes gives by `eddy sample`, which works on one class at a time.
#[test]
fn samples_of_a_class_match_diffusers() {
    let initial = array::read::<Ix4>(&stored("classes").join("initial.npy")).unwrap();
    for (row, class) in [2, 0, 1].into_iter().enumerate() {
        let place = Place::new();
        let of_row = |all: &Array4<f32>| all.slice(ndarray::s![row..=row, .., .., ..]).to_owned();
        array::write(&of_row(&initial), &place.path("x.npy")).unwrap();
        let line = "sample --input x.npy -o y.npy --sampler ddim --steps 6";
        eddy(line)
            .arg(stored("classes"))
            .args(&format!("--class {class}"))
            .within(&place)
            .succeeds();
        let found = array::read::<Ix4>(&place.path("y.npy")).unwrap();
        let found = found.mapv(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0));
        assert_alike(&found, &of_row(&expected("classes")));
        eddy(line).arg(stored("classes")).within(&place).fails(2).says("needs a class");
    }
}

/// The allowed difference of results, for images from 0 to 1.
const TOLERANCE: f32 = 1e-4;

fn assert_alike(found: &Array4<f32>, expected: &Array4<f32>) {
    assert_eq!(found.dim(), expected.dim());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < TOLERANCE, "they differ by {worst}");
}

/// The low-resolution image of `superresolution`, in 16 bits, which represent it exactly.
fn small() -> Image {
    let planes = array::read::<Ix4>(&stored("superresolution/small.npy")).unwrap();
    let (_, channels, height, width) = planes.dim();
    let value = |i: usize| planes[[0, i % channels, i / channels / width, i / channels % width]];
    let samples = (0..planes.len()).map(|i| (value(i) * 65535.0).round() as u16).collect();
    Image { width, height, channels, samples: Samples::U16(samples), metadata: Metadata::default() }
}

/// Planes from 0 to 1 of a 16-bit image.
fn planes(image: &Image) -> Array4<f32> {
    let Samples::U16(samples) = &image.samples else { panic!("16 bits were expected") };
    let shape = (1, image.channels, image.height, image.width);
    let at = |c: usize, y: usize, x: usize| samples[(y * image.width + x) * image.channels + c];
    Array4::from_shape_fn(shape, |(_, c, y, x)| f32::from(at(c, y, x)) / 65535.0)
}

#[test]
fn generated_images_match_diffusers() {
    for (folder, options, sampler) in [
        ("ddpm", "--count 2", "ddpm"),
        ("ddim", "--count 2", "ddim"),
        ("classes", "--count 3 --class 2,0,1", "ddim"),
        ("latents", "--count 2", "ddim"),
    ] {
        let place = Place::new();
        let mut command =
            eddy(&format!("generate -o out.npy --steps 6 {options} -m")).arg(stored(folder));
        command = command.args("--initial-noise").arg(stored(folder).join("initial.npy"));
        let fresh = stored(folder).join("fresh.npy");
        if fresh.exists() {
            command = command.args("--noise").arg(fresh);
        }
        command.within(&place).succeeds().says(&format!("{sampler}, 6 evaluations"));
        assert_alike(&array::read::<Ix4>(&place.path("out.npy")).unwrap(), &expected(folder));
    }
}

#[test]
fn upscaling_with_a_folder_and_a_package_matches_diffusers() {
    let place = Place::with("small.png", &small());
    let folder = stored("superresolution");
    eddy("import")
        .arg(&folder)
        .args("-o package/")
        .within(&place)
        .succeeds()
        .says("a model to upscale");
    eddy("check package").within(&place).succeeds();
    eddy("info package")
        .within(&place)
        .succeeds()
        .prints("decoder/network.onnx, 4 times larger, to 3 channels");
    for model in [folder.clone(), place.path("package")] {
        let command = eddy("upscale small.png -o large.png --steps 6 -m").arg(model);
        let command = command.args("--initial-noise").arg(folder.join("initial.npy"));
        command.within(&place).succeeds().says("4 times larger, 56x40");
        assert_alike(&planes(&place.image("large.png")), &expected("superresolution"));
    }
    // A random seed determines the noise, and the latent is generated and decoded in tiles if
    // requested.
    let seeded = |seed: u64, tile: &str| {
        eddy(&format!("upscale small.png -o seeded.png --steps 2 -m package --seed {seed} {tile}"))
            .within(&place)
            .succeeds();
        place.image("seeded.png").samples
    };
    assert_eq!(seeded(1, ""), seeded(1, ""));
    assert_ne!(seeded(1, ""), seeded(2, ""));
    let tiled = seeded(1, "-t 8 --tile-overlap 4");
    assert_eq!(tiled.len(), 3 * 56 * 40);
    assert_ne!(tiled, seeded(1, ""));
}

/// As in SR3, the low-resolution image is enlarged and concatenated to the sample.
#[test]
fn enlarges_the_concatenated_condition() {
    let place = Place::with("small.png", &small());
    let folder = stored("superresolution");
    eddy("import").arg(folder.join("unet/model.onnx"))
        .args("-o sr3/ --task upscale --scale 2 --prediction epsilon --value-range -1,1 --multiple-of 2 --output-name out_sample")
        .args("--inputs sample=sample,condition=sample,timestep=timestep --schedule")
        .arg(folder.join("scheduler/scheduler_config.json"))
        .within(&place)
        .succeeds();
    eddy("check sr3").within(&place).succeeds();
    let enlarged = || {
        eddy("upscale small.png -o large.png -m sr3 --steps 4")
            .within(&place)
            .succeeds()
            .says("2 times larger, 28x20");
        place.image("large.png").samples
    };
    let first = enlarged();
    assert_eq!(first, enlarged());
    // The low-resolution image has an effect.
    let black = Image { samples: Samples::U16(vec![0; 3 * 14 * 10]), ..small() };
    let place = place.and("small.png", &black);
    eddy("upscale small.png -o large.png -m sr3 --steps 4").within(&place).succeeds();
    assert_ne!(first, place.image("large.png").samples);
    // Global attention on a large image exceeds the available memory.
    eddy("upscale")
        .arg(data("chelsea.png"))
        .args("-o chelsea.png -m sr3 --steps 1")
        .within(&place)
        .fails(1)
        .says("smaller tiles (-t)");
    eddy("upscale")
        .arg(data("chelsea.png"))
        .args("-o chelsea.png -m sr3 --steps 1 -t 128 --tile-overlap 32")
        .within(&place)
        .succeeds();
}

#[test]
fn rejects_unsupported_uses_of_folders() {
    let place = Place::with("small.png", &small());
    let (latents, superresolution) = (stored("latents"), stored("superresolution"));
    let refused = |words: &str, model: &PathBuf, says: &str| {
        eddy(words).args("-m").arg(model).within(&place).fails(2).says(says);
    };
    refused("generate -o out.png --from small.png", &latents, "works on latents");
    refused("generate -o out.png --save-steps steps/", &latents, "its steps are latents");
    refused("generate -o out.png --size 30x32", &latents, "take multiples of 4");
    refused("generate -o out.png", &superresolution, "use `eddy upscale`");
    refused("inpaint small.png --mask small.png -o out.png", &latents, "works on latents");
    refused("upscale small.png -o out.png -s 2", &superresolution, "enlarges 4 times");
    refused("upscale small.png -o out.y4m -f y4m", &superresolution, "processes images only");
    eddy("upscale small.png -o out.png --initial-noise")
        .arg(latents.join("initial.npy"))
        .within(&place)
        .fails(2)
        .says("starts from the low-resolution image");
    eddy("sample")
        .arg(&superresolution)
        .args("-o y.npy --sampler ddim --steps 2 --input")
        .arg(latents.join("initial.npy"))
        .within(&place)
        .fails(4)
        .says("3 channels and its sample 6");
    let noise = latents.join("initial.npy");
    eddy("generate -o out.png --count 1 --steps 2 --initial-noise")
        .arg(&noise)
        .args("-m")
        .arg(stored("classes"))
        .args("--class 1")
        .within(&place)
        .succeeds();
    eddy("generate -o out/ --count 3 --steps 2 --initial-noise")
        .arg(&noise)
        .args("-m")
        .arg(stored("ddim"))
        .within(&place)
        .fails(2)
        .says("noise is of 2 images");
    eddy("generate -o out.png --size 32x32 --steps 2 --initial-noise")
        .arg(&noise)
        .within(&place)
        .fails(2)
        .says("expected [1, 3, 32, 32]");
}

#[test]
fn names_a_missing_or_damaged_decoder() {
    let place = Place::new();
    let from = stored("latents");
    let copy = |name: &str| {
        place.file(&format!("pipeline/{name}"), std::fs::read(from.join(name)).unwrap())
    };
    for name in [
        "model_index.json",
        "unet/config.json",
        "unet/model.onnx",
        "scheduler/scheduler_config.json",
    ] {
        copy(name);
    }
    copy("vqvae/config.json");
    eddy("generate -m pipeline -o out.png").within(&place).fails(4).says("no decoder was exported");
    place.file("pipeline/vqvae/model.onnx", "a text");
    eddy("generate -m pipeline -o out.png")
        .within(&place)
        .fails(4)
        .says("ONNX Runtime does not accept it");
    copy("vqvae/model.onnx");
    place.file("pipeline/vqvae/config.json", "[]");
    eddy("generate -m pipeline -o out.png").within(&place).fails(4).says("vqvae/config.json");
    copy("vqvae/config.json");
    eddy("import pipeline -o package/").within(&place).succeeds();
    place.file("package/decoder/network.onnx", "another");
    eddy("generate -m package -o out.png")
        .within(&place)
        .fails(4)
        .says("decoder/network.onnx has SHA-256");
    place.holds_only(&["package", "pipeline"]);
}

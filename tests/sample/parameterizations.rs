//! Exported networks of every kind that is conditioned on sigma, perfect ones for normal data: the
//! prediction type does not affect the result.

use eddy::diffusion::Sampler;
use ndarray::Array4;

use crate::common::eddy;
use crate::common::place::MANIFEST;
use crate::pipelines::place_of;

const SIGMA_MAX: f32 = 5.0;
const VARIANCE: f32 = 0.25;

#[test]
fn results_do_not_depend_on_the_prediction_type() {
    let start = Array4::from_shape_fn((1, 3, 16, 16), |(_, c, y, x)| {
        SIGMA_MAX * (((7 * c + 3 * y + 5 * x) % 13) as f32 / 6.0 - 1.0)
    });
    let place = place_of(&start);
    for (name, prediction, output) in [
        ("normal-denoised", r#""denoised""#, "denoised"),
        ("normal-score", r#""score""#, "score"),
        ("normal-flow", r#""flow""#, "velocity"),
        ("normal-edm", "{ edm = { sigma_data = 1.0 } }", "residual"),
    ] {
        place.model(name, name, |_| {
            let network =
                std::fs::read(crate::common::place::data("models").join(format!("{name}.onnx")))
                    .unwrap();
            MANIFEST
                .replace("{sha256}", &crate::common::place::sha256(&network))
                .replace("task = \"denoise\"", "task = \"generate\"")
                .replace(r#"prediction = "denoised""#, &format!("prediction = {prediction}"))
                .replace("min = 0.0\nmax = 1.0", "min = 0.01\nmax = 5.0")
                .replace("sigma = \"sigma\"", "timestep = \"level\"")
                .replace("denoised = \"denoised\"", &format!("prediction = \"{output}\""))
        });
    }
    for sampler in Sampler::ALL {
        let run = |model: &str| {
            eddy(&format!("sample {model} --input x.npy -o y.npy --steps 8 --sampler {sampler}"))
                .within(&place)
                .succeeds();
            place.result("y.npy")
        };
        let expected = run("normal-denoised");
        for model in ["normal-score", "normal-flow", "normal-edm"] {
            let found = run(model);
            let difference =
                found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 2e-4, "{sampler}, {model}: {difference}");
        }
    }
    // And the flow's end is the data's deviation times the start's own.
    eddy("sample normal-flow --input x.npy -o y.npy --steps 40 --sampler heun")
        .within(&place)
        .succeeds();
    let scale = (VARIANCE / (VARIANCE + SIGMA_MAX * SIGMA_MAX)).sqrt();
    let off = place
        .result("y.npy")
        .iter()
        .zip(&start)
        .map(|(y, x)| (y - scale * x).abs())
        .fold(0.0, f32::max);
    assert!(off < 2e-3, "{off}");
}

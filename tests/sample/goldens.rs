//! Results of diffusers' schedulers with the same networks, see `tests/golden/make_pipelines.py`.

use std::collections::BTreeSet;

use eddy::array;
use ndarray::{Array4, Axis, Ix5};
use serde::Deserialize;

use crate::common::eddy;
use crate::pipelines::{difference, place_of, start, stored};

/// Largest difference over largest value, with a network that computes in f32.
const TOLERANCE: f64 = 1e-5;

/// The same with a network that takes and gives f16. Eddy's state and diffusers' differ in their
/// last bits of f32; where one rounds up and the other down, the network's inputs and outputs
/// differ by a unit of f16, up to 2^-10 of their size.
const F16_TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Case {
    pipeline: String,
    prediction: String,
    sampler: String,
    eta: f64,
    steps: usize,
    /// diffusers' `init_noise_sigma`.
    scale: f32,
    /// The row of the pipeline's `expected.npy`: the result of diffusers as published.
    row: usize,
    /// The row of `exact.npy`: its result when computed in f64, where that differs by more
    /// than 5e-6.
    exact_row: Option<usize>,
    /// That difference, which is diffusers' own error.
    #[serde(default)]
    rounding: f64,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(stored("cases.json")).unwrap()).unwrap()
}

/// Row `row` of a file that belongs to a pipeline.
fn end(pipeline: &str, file: &str, row: usize) -> Array4<f32> {
    let ends = array::read::<Ix5>(&stored(&format!("{pipeline}/{file}"))).unwrap();
    ends.index_axis(Axis(0), row).to_owned()
}

fn agrees(pipeline: &str, tolerance: f64) {
    let start = start();
    for case in cases().iter().filter(|case| case.pipeline == pipeline) {
        let Case { sampler, steps, eta, .. } = case;
        let place = place_of(&start.mapv(|x| x * case.scale));
        let line = format!(
            "sample --sampler {sampler} --steps {steps} --eta {eta} --input x.npy -o y.npy"
        );
        let run = eddy(&line).arg("--noise").arg(stored("noise.npy")).arg(stored(pipeline));
        run.within(&place).succeeds().prints_nothing();
        let result = place.result("y.npy");
        let published = difference(&result, &end(pipeline, "expected.npy", case.row));
        assert!(
            published <= tolerance + case.rounding,
            "{pipeline}: {published:.2e} from diffusers: {line}"
        );
        if let Some(row) = case.exact_row {
            let exact = difference(&result, &end(pipeline, "exact.npy", row));
            assert!(exact <= tolerance, "{pipeline}: {exact:.2e} from diffusers in f64: {line}");
        }
    }
}

#[test]
fn passes_the_timestep_as_int64_scalar() {
    agrees("int64-scalar", TOLERANCE);
}

#[test]
fn passes_the_timestep_as_one_int64() {
    agrees("int64-one", TOLERANCE);
}

#[test]
fn passes_the_timestep_as_int64_per_sample() {
    agrees("int64-batch", TOLERANCE);
}

#[test]
fn passes_the_timestep_as_float32_scalar() {
    agrees("float32-scalar", TOLERANCE);
}

#[test]
fn passes_the_timestep_as_float32_per_sample() {
    agrees("float32-batch", TOLERANCE);
}

#[test]
fn samples_with_a_half_precision_network() {
    agrees("float16", F16_TOLERANCE);
}

/// What the goldens must cover.
#[test]
fn every_sampler_meets_every_prediction_and_number_of_steps() {
    let found: BTreeSet<(String, String, usize)> =
        cases().into_iter().map(|case| (case.sampler, case.prediction, case.steps)).collect();
    for sampler in ["ddim", "ddpm", "euler", "dpmpp-2m"] {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            for steps in [1, 4, 10, 50] {
                let case = (sampler.to_owned(), prediction.to_owned(), steps);
                assert!(found.contains(&case), "{case:?}");
            }
        }
    }
}

//! Reports, seeds and files of runs.

use ndarray::Array4;

use crate::common::eddy;
use crate::common::place::Place;
use crate::pipelines::{place_of, start, stored};

const SAMPLERS: [&str; 4] = ["ddim", "ddpm", "euler", "dpmpp-2m"];

fn sampled(place: &Place, output: &str, options: &str) -> Vec<u8> {
    let line = format!("sample --input x.npy -o {output} --steps 3 {options}");
    eddy(&line).arg(stored("int64-scalar")).within(place).succeeds();
    place.bytes(output)
}

#[test]
fn equal_seeds_give_equal_results() {
    let place = place_of(&start());
    for options in ["--sampler ddpm", "--sampler ddim --eta 1"] {
        let first = sampled(&place, "a.npy", &format!("{options} --seed 7"));
        assert_eq!(
            sampled(&place, "b.npy", &format!("{options} --seed 7 --threads 1")),
            first,
            "{options}"
        );
        assert_ne!(sampled(&place, "c.npy", &format!("{options} --seed 8")), first, "{options}");
        assert_ne!(
            sampled(&place, "d.npy", &format!("{options} --seed 4294967303")),
            first,
            "{options}"
        );
        let none = sampled(&place, "e.npy", options);
        assert_eq!(sampled(&place, "f.npy", &format!("{options} --seed 0")), none, "{options}");
    }
}

#[test]
fn the_seed_does_not_matter_without_noise() {
    let place = place_of(&start());
    for sampler in ["ddim", "euler", "dpmpp-2m"] {
        let first = sampled(&place, "a.npy", &format!("--sampler {sampler} --seed 7"));
        assert_eq!(
            sampled(&place, "b.npy", &format!("--sampler {sampler} --seed 8")),
            first,
            "{sampler}"
        );
    }
    assert_ne!(
        sampled(&place, "c.npy", "--sampler ddim --eta 0.5"),
        sampled(&place, "d.npy", "--sampler ddim")
    );
}

/// On a range of sigma, and at a size that its three scales do not divide.
#[test]
fn the_bundled_network_runs_with_every_sampler() {
    let place = place_of(&Array4::from_shape_fn((1, 3, 20, 28), |(_, c, y, x)| {
        ((c + 3 * y + 5 * x) % 7) as f32 / 7.0
    }));
    let mut results = Vec::new();
    for sampler in SAMPLERS {
        for steps in [1, 4] {
            let line = format!(
                "sample denoise-fast --input x.npy -o y.npy --sampler {sampler} --steps {steps}"
            );
            eddy(&line).within(&place).succeeds();
            assert_eq!(place.result("y.npy").dim(), (1, 3, 20, 28));
            if steps == 4 {
                results.push(place.bytes("y.npy"));
            }
        }
    }
    assert_ne!(results[0], results[1], "ddpm draws noise");
    assert_ne!(results[0], results[3], "dpmpp-2m looks back");
}

#[test]
fn reports_what_was_done() {
    let place = place_of(&start());
    let line = "sample --input x.npy -o y.npy --sampler euler --steps 3";
    eddy(line)
        .arg(stored("int64-one"))
        .within(&place)
        .succeeds()
        .says("x.npy -> y.npy: euler in 3 steps")
        .prints_nothing();
    eddy(line)
        .arg("--quiet")
        .arg(stored("int64-one"))
        .within(&place)
        .succeeds()
        .says_nothing()
        .prints_nothing();
    let record = eddy(line)
        .arg("--json")
        .arg(stored("int64-one"))
        .within(&place)
        .succeeds()
        .says_nothing()
        .json();
    assert_eq!(record["shape"], serde_json::json!([2, 3, 7, 12]));
    assert_eq!((&record["sampler"], &record["steps"]), (&"euler".into(), &3.into()));
    place.holds_only(&["x.npy", "y.npy"]);
}

/// The output may not replace the input.
#[test]
fn rejects_replacing_the_input() {
    let place = place_of(&start());
    let before = place.bytes("x.npy");
    let run =
        eddy("sample --input x.npy -o x.npy --steps 3 --sampler ddim").arg(stored("int64-scalar"));
    run.within(&place).fails(2).says("would replace the input x.npy");
    assert_eq!(place.bytes("x.npy"), before);
    place.holds_only(&["x.npy"]);
}

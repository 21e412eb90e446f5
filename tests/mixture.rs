//! Samplers on a mixture of three normal distributions in the plane, whose score has a closed form.
//! With more steps each sampler converges to the mixture's mean, covariance and weights, and
//! second-order samplers converge faster.
//!
//! `EDDY_MIXTURE=errors.json cargo test --release --test mixture` writes the data that
//! `tests/golden/plot_mixture.py` plots.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use eddy::diffusion::{
    DiscreteSchedule, HISTORY_SLOTS, NoiseAt, NoiseSource, Philox, Plan, Prediction, Sampler,
    Schedule, SigmaSchedule, Step, plan,
};

type Point = [f64; 2];

struct Mode {
    weight: f64,
    mean: Point,
    /// Variances along the axes, and their covariance.
    covariance: [f64; 3],
}

const MODES: [Mode; 3] = [
    Mode { weight: 0.5, mean: [-2.0, 0.0], covariance: [0.2, 0.4, 0.1] },
    Mode { weight: 0.3, mean: [2.0, 1.0], covariance: [0.5, 0.1, -0.1] },
    Mode { weight: 0.2, mean: [0.5, -2.5], covariance: [0.1, 0.1, 0.0] },
];

const SIGMA_MAX: f64 = 20.0;

/// The mean of `x0` given `y = x0 + sigma * n`.
fn denoised(y: Point, sigma: f64) -> Point {
    let mut total = 0.0;
    let mut sum = [0.0; 2];
    // Subtract the largest exponent, so that not all weights underflow.
    let parts = MODES.map(|mode| {
        let [a, b, c] = mode.covariance;
        let (va, vb) = (a + sigma * sigma, b + sigma * sigma);
        let determinant = va * vb - c * c;
        let [dx, dy] = [y[0] - mode.mean[0], y[1] - mode.mean[1]];
        let solved = [(vb * dx - c * dy) / determinant, (va * dy - c * dx) / determinant];
        let exponent =
            mode.weight.ln() - 0.5 * determinant.ln() - 0.5 * (dx * solved[0] + dy * solved[1]);
        (
            exponent,
            [
                mode.mean[0] + a * solved[0] + c * solved[1],
                mode.mean[1] + c * solved[0] + b * solved[1],
            ],
        )
    });
    let most = parts.iter().map(|part| part.0).fold(f64::NEG_INFINITY, f64::max);
    for (exponent, mean) in parts {
        let weight = (exponent - most).exp();
        total += weight;
        sum = [sum[0] + weight * mean[0], sum[1] + weight * mean[1]];
    }
    [sum[0] / total, sum[1] / total]
}

/// The probability flow from `y` at `sigma` to `to`, in `steps` steps of Heun's method.
fn flow(mut y: Point, sigma: f64, to: f64, steps: usize) -> Point {
    let root = |sigma: f64| sigma.powf(1.0 / 7.0);
    let level =
        |i: usize| (root(sigma) + (root(to) - root(sigma)) * i as f64 / steps as f64).powi(7);
    for i in 0..steps {
        let (here, next) = (level(i), level(i + 1));
        let slope = |y: Point, sigma: f64| {
            let d = denoised(y, sigma);
            [(y[0] - d[0]) / sigma, (y[1] - d[1]) / sigma]
        };
        let first = slope(y, here);
        let euler = [0, 1].map(|i| y[i] + (next - here) * first[i]);
        let second = if next > 0.0 { slope(euler, next) } else { first };
        y = [0, 1].map(|i| y[i] + (next - here) * 0.5 * (first[i] + second[i]));
    }
    y
}

/// The prediction of a perfect network of the kind that the sampler needs.
fn prediction(sampler: Sampler, y: Point, sigma: f64, a: f64) -> Point {
    if ![Sampler::LCM, Sampler::TCD].contains(&sampler) {
        return denoised(y, sigma);
    }
    // The prediction with which the step along the flow, to `a` times the noise, is exact.
    let below = flow(y, sigma, a * sigma, 60);
    [0, 1].map(|i| (below[i] - a * y[i]) / (1.0 - a))
}

/// The step's update without noise, and its kept value.
fn updated(row: &Step, x: Point, d: Point, kept: &mut [Point; HISTORY_SLOTS]) -> Point {
    let past =
        |c: usize| row.past.iter().zip(&*kept).map(|(factor, kept)| factor * kept[c]).sum::<f64>();
    let next = [0, 1].map(|c| row.a * x[c] + (row.b + row.e) * d[c] + past(c));
    if let Some(entry) = row.store {
        let [of_x, of_d] = row.factors(entry.value);
        kept[entry.slot] = [0, 1].map(|c| of_x * x[c] + of_d * d[c]);
    }
    next
}

/// Samples `count` points, from the initial noise of the plan.
fn run(plan: &Plan, sampler: Sampler, count: usize) -> Vec<Point> {
    let draw = |step: u32, channel: u32| {
        let mut row = vec![0.0; count];
        Philox::new(3).fill(NoiseAt { step, batch: 0, channel, y: 0 }, 0, &mut row);
        row
    };
    let mut x = data(count);
    let level = plan.steps[0].level;
    let start = [draw(NoiseAt::INITIAL, 0), draw(NoiseAt::INITIAL, 1)];
    for (i, x) in x.iter_mut().enumerate() {
        *x = [0, 1].map(|c| level.signal * x[c] + level.noise * f64::from(start[c][i]));
    }
    let mut kept = vec![[[0.0; 2]; HISTORY_SLOTS]; count];
    for (index, row) in plan.steps.iter().enumerate() {
        let fresh = (row.d != 0.0).then(|| [draw(index as u32, 0), draw(index as u32, 1)]);
        for (i, (x, kept)) in x.iter_mut().zip(&mut kept).enumerate() {
            let y = x.map(|x| x / row.level.signal);
            let d = prediction(sampler, y, row.level.sigma(), row.a);
            let z = |c: usize| fresh.as_ref().map_or(0.0, |fresh| f64::from(fresh[c][i]));
            let next = updated(row, *x, d, kept);
            *x = [0, 1].map(|c| next[c] + row.d * z(c));
        }
    }
    x
}

/// Samples points of the mixture itself.
fn data(count: usize) -> Vec<Point> {
    let noise = Philox::new(7);
    let mut rows = [vec![0.0; count], vec![0.0; count]];
    for (channel, row) in rows.iter_mut().enumerate() {
        noise.fill(NoiseAt { step: 0, batch: 1, channel: channel as u32, y: 0 }, 0, row);
    }
    let points = (0..count).map(|i| {
        // Stratified, so that each mode has its exact share.
        let part = (i as f64 + 0.5) / count as f64;
        let mode = if part < 0.5 {
            &MODES[0]
        } else if part < 0.8 {
            &MODES[1]
        } else {
            &MODES[2]
        };
        let [a, b, c] = mode.covariance;
        let (u, v) = (f64::from(rows[0][i]), f64::from(rows[1][i]));
        let first = a.sqrt();
        [mode.mean[0] + first * u, mode.mean[1] + c / first * u + (b - c * c / a).sqrt() * v]
    });
    points.collect()
}

/// The distance of points to the mixture: the largest difference of weights, of the mean and of the
/// covariance.
fn errors(points: &[Point]) -> [f64; 3] {
    let count = points.len() as f64;
    let statistics = |points: &[Point]| {
        let mean = [0, 1].map(|c| points.iter().map(|p| p[c]).sum::<f64>() / count);
        let of = |i: usize, j: usize| {
            points.iter().map(|p| (p[i] - mean[i]) * (p[j] - mean[j])).sum::<f64>() / count
        };
        let nearest = |p: &Point| {
            let distance =
                |mode: &Mode| (p[0] - mode.mean[0]).powi(2) + (p[1] - mode.mean[1]).powi(2);
            (0..3).min_by(|i, j| distance(&MODES[*i]).total_cmp(&distance(&MODES[*j]))).unwrap()
        };
        let mut weights = [0.0; 3];
        points.iter().for_each(|p| weights[nearest(p)] += 1.0 / count);
        (weights, mean, [of(0, 0), of(1, 1), of(0, 1)])
    };
    // Compared with an equal number of points of the mixture.
    let (found, exact) = (statistics(points), statistics(&data(points.len())));
    let largest =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    [largest(&found.0, &exact.0), largest(&found.1, &exact.1), largest(&found.2, &exact.2)]
}

fn sigmas() -> Schedule {
    Schedule::Sigmas(SigmaSchedule::new(Prediction::Denoised, 0.002, SIGMA_MAX))
}

#[test]
fn every_sampler_converges_to_the_mixture() {
    let count = if cfg!(debug_assertions) { 4000 } else { 20_000 };
    let mut table: BTreeMap<String, Vec<(usize, [f64; 3])>> = BTreeMap::new();
    for sampler in Sampler::ALL {
        // The number of steps depends on the kind of sampler.
        let steps = match sampler.name() {
            "lcm" | "tcd" => vec![1, 2, 4],
            "langevin" => vec![20, 60, 180],
            "ode" | "ddpm" | "pc" | "euler-a" => vec![20, 60, 180],
            _ => vec![10, 30, 90],
        };
        let found: Vec<_> = steps
            .into_iter()
            .map(|steps| {
                let plan = plan(&sigmas(), sampler, steps, None).unwrap();
                (plan.steps.len(), errors(&run(&plan, sampler, count)))
            })
            .collect();
        let [weights, mean, covariance] = found.last().unwrap().1;
        assert!(weights < 0.025 && mean < 0.07 && covariance < 0.15, "{sampler}: {found:?}");
        table.insert(sampler.to_string(), found);
    }
    // The limit depends neither on the coordinates nor on the schedule.
    for sampler in [
        Sampler::DDIM,
        Sampler::DDPM,
        Sampler::EULER,
        Sampler::HEUN,
        Sampler::DPMPP_2M,
        Sampler::DPMPP_2M_SDE,
        Sampler::PC,
    ] {
        let schedule = DiscreteSchedule { clip_sample: Some(false), ..DiscreteSchedule::default() };
        let plan = plan(&Schedule::Discrete(Box::new(schedule)), sampler, 200, None).unwrap();
        let [weights, mean, covariance] = errors(&run(&plan, sampler, count));
        assert!(
            weights < 0.025 && mean < 0.12 && covariance < 0.25,
            "{sampler}: {weights} {mean} {covariance}"
        );
    }
    if let Ok(path) = std::env::var("EDDY_MIXTURE") {
        std::fs::write(path, serde_json::to_string(&table).unwrap()).unwrap();
    }
}

/// Compares each end point with the exact flow, for several numbers of steps.
#[test]
fn deterministic_samplers_have_their_order_of_convergence() {
    let level = SIGMA_MAX;
    let starts: Vec<Point> = data(200)
        .into_iter()
        .enumerate()
        .map(|(i, p)| {
            [p[0] + level * (i as f64 * 0.7).sin(), p[1] + level * (i as f64 * 1.3).cos()]
        })
        .collect();
    let exact: Vec<Point> = starts.iter().map(|start| flow(*start, level, 0.0, 2000)).collect();
    let error = |sampler: Sampler, steps: usize| {
        let plan = plan(&sigmas(), sampler, steps, None).unwrap();
        let squares = starts.iter().zip(&exact).map(|(start, exact)| {
            let (mut x, mut kept) = (*start, [[0.0; 2]; HISTORY_SLOTS]);
            for row in &plan.steps {
                let d = denoised(x, row.level.sigma());
                x = updated(row, x, d, &mut kept);
            }
            (x[0] - exact[0]).powi(2) + (x[1] - exact[1]).powi(2)
        });
        (squares.sum::<f64>() / 200.0).sqrt()
    };
    for (sampler, order) in [
        (Sampler::EULER, 1.0),
        (Sampler::DDIM, 1.0),
        (Sampler::HEUN, 2.0),
        (Sampler::KDPM2, 2.0),
        (Sampler::DPMPP_2M, 2.0),
        (Sampler::DEIS, 2.0),
    ] {
        let measured = (error(sampler, 40) / error(sampler, 160)).log2() / 2.0;
        assert!((measured - order).abs() < 0.45, "{sampler} is of order {measured}");
    }
    // Predictor-corrector and higher-order samplers are more accurate.
    for sampler in [Sampler::DPMPP_3M, Sampler::UNIPC, Sampler::LMS, Sampler::PNDM] {
        let (found, second) = (error(sampler, 40), error(Sampler::DPMPP_2M, 40));
        assert!(found < second, "{sampler}: {found} is not below {second}");
    }
}

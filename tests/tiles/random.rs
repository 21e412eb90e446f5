//! Random images, networks, plans and tiles.

use eddy::diffusion::{
    DiscreteSchedule, Philox, Plan, Prediction, Sampler, Schedule, SigmaMap, SigmaSchedule, State,
    denoise_plan, execute, plan,
};
use eddy::model::{Package, Precision};
use eddy::network::{Library, Runtime, SessionOptions};
use eddy::tile::{Locality, TilePlan};
use proptest::prelude::*;

use super::common::networks::Closed;
#[path = "../common/random.rs"]
mod cases;
use super::{TOLERANCE, go_on, image, largest_difference, run};
use cases::cases;

/// A network that looks `field` pixels far, with strided layers of that grid: its output depends on
/// the position in the grid, and on zeros beyond the border of its input.
fn strided(field: usize, grid: usize) -> Closed<'static> {
    Closed::new(move |sample, sigma, [_, channels, height, width], _, out| {
        for (plane, out) in out.chunks_exact_mut(height * width).enumerate() {
            let sigma = &sigma[plane / channels * height * width..][..height * width];
            let sample = &sample[plane * height * width..][..height * width];
            for (i, out) in out.iter_mut().enumerate() {
                let (x, y) = (i % width, i / width);
                // The farthest pixels that it sees, on the axes and diagonally.
                let at = |dx: isize, dy: isize| {
                    let (x, y) = (x.checked_add_signed(dx), y.checked_add_signed(dy));
                    let inside = x.zip(y).filter(|(x, y)| *x < width && *y < height);
                    inside.map_or(0.0, |(x, y)| sample[y * width + x])
                };
                let far = field.cast_signed();
                let sum = at(-far, 0) + at(far, 0) + at(0, -far) + at(0, far) + at(far, -far);
                let phase = 0.01 * ((x % grid) as f32 - (y % grid) as f32) / grid as f32;
                *out = 0.6 * sample[i] + 0.06 * sum + phase + 0.001 * sigma[i];
            }
        }
    })
}

/// An image, a network for it, a plan and tiles.
#[derive(Clone, Debug)]
struct Case {
    size: [usize; 2],
    channels: usize,
    locality: Locality,
    limit: usize,
    overlap: Option<usize>,
    sigma: SigmaMap,
    plan: Plan,
}

fn plans() -> impl Strategy<Value = Plan> {
    let samplers = (prop::sample::select(Sampler::ALL.to_vec()), 1_usize..8, any::<bool>());
    let sampled = samplers.prop_filter_map("a sampler that takes this schedule", |made| {
        let (sampler, steps, is_discrete) = made;
        let schedule = if is_discrete {
            let prediction = Prediction::VPrediction;
            Schedule::Discrete(Box::new(DiscreteSchedule { prediction, ..Default::default() }))
        } else {
            Schedule::Sigmas(SigmaSchedule::new(Prediction::Denoised, 0.02, 5.0))
        };
        plan(&schedule, sampler, steps, None).ok()
    });
    let denoised =
        (1_usize..6, 0.0..1.0).prop_map(|(steps, eta)| denoise_plan(steps, eta).unwrap());
    prop_oneof![sampled, denoised]
}

fn cases_of_tiles() -> impl Strategy<Value = Case> {
    let network = (0_usize..7, prop::sample::select(vec![1_usize, 2, 4, 8]), 1_usize..4);
    let image = ([1_usize..70, 1_usize..70], prop::sample::select(vec![1_usize, 3, 6]));
    let tiles = (0_usize..30, prop::option::weighted(0.3, 0_usize..20));
    (network, image, tiles, 0_usize..4, plans()).prop_map(
        |((field, multiple_of, factor), (size, channels), (more, overlap), map, plan)| {
            let (grid, receptive_field) = (multiple_of * factor, Some(field));
            let locality = Locality { multiple_of, grid, receptive_field, size: None };
            let ([width, height], values) =
                (size, |seed: usize| move |i: usize| 0.05 + ((i * 31 + seed) % 23) as f32 / 23.0);
            let pixels = 0..width * height;
            let sigma = match map {
                0 => SigmaMap::Uniform(0.4),
                1 => SigmaMap::PerPixel { width, values: pixels.map(values(3)).collect() },
                2 => SigmaMap::Yuv([0.3, 0.7]),
                _ => {
                    let plane = |seed| pixels.clone().map(values(seed)).collect();
                    SigmaMap::YuvPerPixel { width, values: [plane(5), plane(11)] }
                }
            };
            let overlap = overlap.map(|more| 2 * field + more);
            let limit = TilePlan::smallest(locality) + more;
            Case { size, channels, locality, limit, overlap, sigma, plan }
        },
    )
}

impl Case {
    fn run(&self, tiles: &TilePlan) -> (Vec<f32>, usize) {
        let [width, height] = self.size;
        let noise = Philox::new(17);
        let x = image(self.channels, width, height);
        let mut state = State::new(x, &self.plan, &noise, &self.sigma).unwrap();
        let mut network =
            strided(self.locality.receptive_field.unwrap_or_default(), self.locality.grid);
        execute(&self.plan, &mut network, &mut state, tiles, &self.sigma, &mut go_on).unwrap();
        (state.into_inner().into_raw_vec_and_offset().0, network.evaluations)
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Without blending the bits are the same; blending adds products in another order.
    #[test]
    fn tiles_have_the_bits_of_the_whole_image(case in cases_of_tiles()) {
        let ([width, height], multiple) = (case.size, case.locality.multiple_of);
        let cut = TilePlan::cut(width, height, case.limit, case.overlap, case.locality);
        let Ok(tiles) = cut else {
            // Only an overlap beyond two receptive fields may leave no room.
            prop_assert!(case.overlap.is_some());
            return Ok(());
        };
        let (expected, _) = case.run(&TilePlan::whole(width, height, multiple));
        let (found, evaluations) = case.run(&tiles);
        prop_assert_eq!(evaluations, tiles.count() * case.plan.steps.len());
        let blends = tiles.horizontal.feather.max(tiles.vertical.feather) > 0;
        // The state is as large as its noise.
        let largest = case.plan.steps.iter().fold(1.0, |size, step| step.level.noise.max(size));
        let allowed = if blends { TOLERANCE * largest as f32 } else { 0.0 };
        let is_wrong = |(a, b): (&f32, &f32)| (a - b).abs() > allowed || a.is_nan();
        let wrong = found.iter().zip(&expected).position(is_wrong);
        prop_assert_eq!(wrong, None, "{:?}", tiles);
    }
}

proptest! {
    #![proptest_config(cases(4))]

    /// A bundled network, on any number of threads.
    #[test]
    fn tiles_of_a_bundled_network_match_on_any_threads(
        [width, height] in [1_usize..260, 1_usize..260],
        more in 0_usize..80,
        steps in 1_usize..3,
        threads in [1_usize..4, 1_usize..4],
    ) {
        let package = Package::find("denoise-nano").unwrap();
        let runtime = Runtime::load(&Library::Embedded).unwrap();
        let locality = package.manifest.locality();
        let limit = TilePlan::smallest(locality) + more;
        let tiled = TilePlan::cut(width, height, limit, None, locality).unwrap();
        let whole = TilePlan::whole(width, height, locality.multiple_of);
        let x = image(3, width, height);
        let [found, expected] = [(tiled, threads[0]), (whole, threads[1])].map(|(tiles, threads)| {
            let options = SessionOptions { threads, ..SessionOptions::default() };
            let mut network = package.load(&runtime, Precision::F32, options).unwrap();
            run(&mut network, &x, &tiles, &SigmaMap::Uniform(0.1), steps)
        });
        let difference = largest_difference(&found, &expected);
        prop_assert!(difference <= TOLERANCE, "{difference}");
    }
}

//! Denoising plans: they start at the given image, on levels relative to the image's own sigma.

use crate::diffusion::parameterization::Prediction;
use crate::diffusion::plan::{Clip, Level, Plan};
use crate::diffusion::sampler::rows;
use crate::error::{Error, Result};

/// The exponent of the relative levels.
///
/// Detail that is weaker than the noise is decided at small levels, which a large exponent reaches
/// sooner. With EDM's 7, the first of two steps leaves 1% of the noise and is nearly the posterior
/// mean. With 1 (InDI, Delbracio and Milanfar 2023), half of the evaluations run above half of the
/// noise. With 2, the second of two evaluations sees a quarter.
const RHO: f64 = 2.0;

/// The plan that denoises an image in `steps` evaluations of a network that predicts the clean
/// image from the image and its sigma map ([`Prediction::Denoised`]).
///
/// Levels are relative: `noise` goes from 1, the image's own sigma, to 0, and the sigma of each
/// pixel is `noise` times its entry in the task's map. One step gives the posterior mean. More
/// steps remove the noise gradually, at levels `(1 - i / steps)^2` (Karras et al. 2022, equation 5,
/// with rho 2 and a lowest sigma of 0), which trades squared error for texture. With `eta = 0` each
/// step is `x' = r * x + (1 - r) * D`, where `r` is the ratio of the two levels (Song et al. 2021,
/// equation 12). `eta` in `0..=1` replaces a part of the noise by fresh noise.
///
/// # Errors
/// [`Error::Usage`] for zero steps or an eta out of range.
pub fn denoise_plan(steps: usize, eta: f64) -> Result<Plan> {
    super::check_request(super::Sampler::DDIM, steps, Some(eta))?;
    if steps > 1000 {
        return Err(Error::usage(format!("denoising takes 1 to 1000 steps, not {steps}")));
    }
    let level = |i: usize| Level::ve((1.0 - i as f64 / steps as f64).powf(RHO));
    let rows = (0..steps).map(|i| {
        let (from, to) = (level(i), level(i + 1));
        rows::ddim_between(from, Prediction::Denoised.scaling(from, from.noise), to, eta, false)
    });
    Ok(Plan { steps: rows.collect(), clip: Clip::None }.pruned())
}

#[cfg(test)]
mod tests {
    use super::denoise_plan;

    #[test]
    fn one_step_is_the_posterior_mean() {
        let plan = denoise_plan(1, 0.0).unwrap();
        let row = plan.steps[0];
        assert_eq!((row.level.signal, row.level.noise, row.t), (1.0, 1.0, 1.0));
        assert_eq!((row.c_in, row.c_skip, row.c_out), (1.0, 0.0, 1.0));
        assert_eq!((row.a, row.b, row.d, row.e), (0.0, 1.0, 0.0, 0.0));
        assert!(!row.reads_history() && row.store.is_none());
    }

    #[test]
    fn steps_blend_by_the_ratio_of_levels() {
        let plan = denoise_plan(2, 0.0).unwrap();
        assert_eq!((plan.steps[0].a, plan.steps[0].b), (0.25, 0.75));
        assert_eq!((plan.steps[1].a, plan.steps[1].b, plan.steps[1].level.noise), (0.0, 1.0, 0.25));
    }

    #[test]
    fn the_last_step_adds_no_noise() {
        let plan = denoise_plan(3, 1.0).unwrap();
        assert!(plan.steps[0].d > 0.0 && plan.steps[1].d > 0.0);
        assert_eq!(plan.steps[2].d, 0.0);
        assert_eq!(plan.noise_rows(), 2);
        assert_eq!(denoise_plan(3, 0.0).unwrap().noise_rows(), 0);
    }

    #[test]
    fn rejects_zero_steps_and_eta_out_of_range() {
        assert!(
            denoise_plan(0, 0.0).is_err()
                && denoise_plan(1, -0.1).is_err()
                && denoise_plan(1001, 0.0).is_err()
        );
    }

    /// For normal data of variance `v` with noise of variance 1, `D = v / (v + sigma^2) * x`, and
    /// the exact flow ends at `sqrt(v / (v + 1)) * x`.
    #[test]
    fn many_steps_restore_the_variance_that_the_posterior_mean_loses() {
        let v = 0.1_f64;
        let end = |steps: usize| {
            denoise_plan(steps, 0.0).unwrap().steps.iter().fold(1.0, |x, row| {
                let d = v / (v + row.level.noise * row.level.noise) * x;
                row.a * x + row.b * d
            })
        };
        let exact = (v / (v + 1.0)).sqrt();
        assert!((end(1) - v / (v + 1.0)).abs() < 1e-12);
        assert!(end(1) < end(2) && end(2) < end(4) && end(4) < end(8) && end(8) < exact);
        assert!((end(500) / exact - 1.0).abs() < 0.01, "{} is not {exact}", end(500));
    }
}

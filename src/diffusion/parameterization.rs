//! What a network predicts, and how to compute the predicted clean image from it.
//!
//! No other module depends on the kind of prediction: all others use `D`, the mean of `x0` given
//! the state (Tweedie).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diffusion::plan::Level;

/// The meaning of a network's output `F`.
///
/// The formulas are in variance-exploding coordinates, `y = x0 + sigma * n`.
/// [`scaling`](Self::scaling) converts them to the coordinates of any state. In a manifest:
/// `prediction = "v_prediction"`, or `prediction = { edm = { sigma_data = 0.5 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Prediction {
    /// The noise `n` (Ho et al. 2020, DDPM). The input is `y / sqrt(1 + sigma^2)` and a timestep;
    /// `D = y - sigma * F`.
    Epsilon,
    /// The velocity `alpha * n - sigma_vp * x0` (Salimans and Ho 2022, section 4), with the input
    /// of `Epsilon`; `D = y / (1 + sigma^2) - sigma / sqrt(1 + sigma^2) * F`.
    VPrediction,
    /// The clean image, with the input of `Epsilon`; `D = F`.
    Sample,
    /// The preconditioned residual (Karras et al. 2022, EDM, table 1 and equation 7). The input is
    /// `y / sqrt(sigma^2 + sigma_data^2)` and `ln(sigma) / 4`.
    Edm {
        /// The standard deviation of the data, in the network's units.
        sigma_data: f64,
    },
    /// The score, the gradient of `log p(y)` (Song and Ermon 2019, NCSN; Song et al. 2021, VE SDE).
    /// The input is `y` and `sigma`; `D = y + sigma^2 * F`.
    Score,
    /// The velocity `n - x0` of a straight path (Liu et al. 2022, rectified flow). The input is
    /// `(1 - t) * y` and `t = sigma / (1 + sigma)`; `D = (1 - t) * y - t * F`.
    Flow,
    /// The clean image, from `y` and sigma itself, as a scalar or as a map with one value per
    /// pixel.
    Denoised,
}

/// The scaling of a network's input and output: `D = c_skip * x + c_out * F(c_in * x, t)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// Factor of the state at the network's input.
    pub c_in: f64,
    /// Factor of the state in `D`.
    pub c_skip: f64,
    /// Factor of the network's output in `D`.
    pub c_out: f64,
    /// The scalar noise level that the network is conditioned on.
    pub t: f64,
}

impl Prediction {
    /// The name in a manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
            Self::Sample => "sample",
            Self::Edm { .. } => "edm",
            Self::Score => "score",
            Self::Flow => "flow",
            Self::Denoised => "denoised",
        }
    }

    /// The scaling for a state at `level`.
    ///
    /// `timestep` is the row of the training schedule that corresponds to `level`. Networks that
    /// take a timestep use it (`Epsilon`, `VPrediction`, `Sample`); the others are conditioned on a
    /// function of `level`.
    ///
    /// The factors are not finite where the prediction does not determine the clean image: for
    /// `Epsilon`, `Score` and `Denoised` at `signal = 0`, and for `Edm` at `noise = 0`.
    pub fn scaling(self, level: Level, timestep: f64) -> Scaling {
        let Level { signal, noise } = level;
        // Dividing by `norm` makes a state variance-preserving; dividing by `path` puts it on a
        // straight path.
        let norm = signal.hypot(noise);
        let path = signal + noise;
        match self {
            Self::Epsilon => Scaling {
                c_in: 1.0 / norm,
                c_skip: 1.0 / signal,
                c_out: -noise / signal,
                t: timestep,
            },
            Self::VPrediction => Scaling {
                c_in: 1.0 / norm,
                c_skip: signal / norm / norm,
                c_out: -noise / norm,
                t: timestep,
            },
            Self::Sample => Scaling { c_in: 1.0 / norm, c_skip: 0.0, c_out: 1.0, t: timestep },
            Self::Edm { sigma_data } => {
                let norm = noise.hypot(signal * sigma_data);
                Scaling {
                    c_in: 1.0 / norm,
                    c_skip: sigma_data * (sigma_data * signal / norm) / norm,
                    c_out: sigma_data * noise / norm,
                    t: level.sigma().ln() / 4.0,
                }
            }
            Self::Score => {
                let sigma = level.sigma();
                Scaling { c_in: 1.0 / signal, c_skip: 1.0 / signal, c_out: sigma * sigma, t: sigma }
            }
            Self::Flow => {
                let t = noise / path;
                Scaling { c_in: 1.0 / path, c_skip: 1.0 / path, c_out: -t, t }
            }
            Self::Denoised => {
                Scaling { c_in: 1.0 / signal, c_skip: 0.0, c_out: 1.0, t: level.sigma() }
            }
        }
    }

    /// Whether the network takes a timestep of its training schedule, so that the schedule is
    /// needed.
    pub fn takes_timestep(self) -> bool {
        matches!(self, Self::Epsilon | Self::VPrediction | Self::Sample)
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edm { sigma_data } => write!(f, "edm={sigma_data}"),
            other => f.pad(other.name()),
        }
    }
}

impl FromStr for Prediction {
    type Err = String;

    /// Parses what [`Display`](fmt::Display) writes: a name, or `edm=SIGMA_DATA`.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = [
            Self::Denoised,
            Self::Epsilon,
            Self::VPrediction,
            Self::Sample,
            Self::Score,
            Self::Flow,
        ];
        if let Some(known) = plain.into_iter().find(|known| known.name() == text) {
            return Ok(known);
        }
        let edm = || text.strip_prefix("edm=")?.parse().ok();
        edm().map(|sigma_data| Self::Edm { sigma_data }).ok_or_else(|| {
            let names = plain.map(Self::name).join(", ");
            format!("{text} is not a prediction type; expected {names} or edm=SIGMA_DATA, such as edm=0.5")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Level, Prediction};

    const SIGMA_DATA: f64 = 0.5;

    /// What a perfect network of each kind predicts for `x0` and `n`.
    fn target(prediction: Prediction, x0: f64, n: f64, sigma: f64) -> f64 {
        let alpha = 1.0 / sigma.hypot(1.0);
        match prediction {
            Prediction::Epsilon => n,
            Prediction::VPrediction => alpha * n - sigma * alpha * x0,
            Prediction::Sample | Prediction::Denoised => x0,
            Prediction::Edm { sigma_data: d } => {
                let norm = sigma.hypot(d);
                (x0 - d * d / (norm * norm) * (x0 + sigma * n)) * norm / (sigma * d)
            }
            Prediction::Score => -n / sigma,
            Prediction::Flow => n - x0,
        }
    }

    const ALL: [Prediction; 7] = [
        Prediction::Epsilon,
        Prediction::VPrediction,
        Prediction::Sample,
        Prediction::Edm { sigma_data: SIGMA_DATA },
        Prediction::Score,
        Prediction::Flow,
        Prediction::Denoised,
    ];

    #[test]
    fn a_perfect_network_gives_the_clean_image_in_ve_and_vp_coordinates() {
        let (x0, n) = (0.7, -1.3);
        for prediction in ALL {
            for sigma in [0.002, 0.3, 1.0, 14.0, 80.0] {
                for level in [Level::ve(sigma), Level::vp_from_sigma(sigma)] {
                    let x = level.signal * x0 + level.noise * n;
                    let s = prediction.scaling(level, 0.0);
                    let d = s.c_skip * x + s.c_out * target(prediction, x0, n, sigma);
                    assert!((d - x0).abs() < 1e-10, "{prediction:?} at {level:?}: {d}");
                }
            }
        }
    }

    #[test]
    fn input_scaling_matches_training() {
        let (sigma, y) = (3.0_f64, 2.0);
        for level in [Level::ve(sigma), Level::vp_from_sigma(sigma)] {
            let input = |p: Prediction| p.scaling(level, 0.0).c_in * level.signal * y;
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
            near(input(Prediction::Epsilon), y / 10.0_f64.sqrt());
            near(input(Prediction::Edm { sigma_data: SIGMA_DATA }), y / 9.25_f64.sqrt());
            near(input(Prediction::Score), y);
            near(input(Prediction::Flow), y * 0.25);
            near(Prediction::Flow.scaling(level, 0.0).t, 0.75);
            near(
                Prediction::Edm { sigma_data: SIGMA_DATA }.scaling(level, 0.0).t,
                3.0_f64.ln() / 4.0,
            );
            near(Prediction::Score.scaling(level, 0.0).t, 3.0);
        }
    }

    #[test]
    fn scaling_at_pure_noise_is_finite_where_possible() {
        let pure = Level { signal: 0.0, noise: 1.0 };
        let v = Prediction::VPrediction.scaling(pure, 999.0);
        assert_eq!((v.c_in, v.c_skip, v.c_out, v.t), (1.0, 0.0, -1.0, 999.0));
        assert!(Prediction::Flow.scaling(pure, 0.0).c_skip.is_finite());
        assert!(!Prediction::Epsilon.scaling(pure, 0.0).c_skip.is_finite());
    }

    #[test]
    fn names_parse_back() {
        for prediction in ALL {
            assert_eq!(prediction.to_string().parse(), Ok(prediction));
            let json = match prediction {
                Prediction::Edm { .. } => r#"{"edm":{"sigma_data":0.5}}"#.to_owned(),
                plain => format!("\"{}\"", plain.name()),
            };
            assert_eq!(serde_json::to_string(&prediction).unwrap(), json);
            assert_eq!(serde_json::from_str::<Prediction>(&json).unwrap(), prediction);
        }
        for unknown in ["gradient", "edm", "edm=wide", ""] {
            let problem = unknown.parse::<Prediction>().unwrap_err();
            assert!(problem.contains("v_prediction") && problem.contains("edm="), "{problem}");
        }
    }
}

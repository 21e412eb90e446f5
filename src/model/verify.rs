//! Checks that a model gives the recorded output on this machine.

use std::io::Cursor;

use ndarray::{Array4, Ix4};

use super::{Package, Precision};
use crate::array;
use crate::error::{Error, Result};
use crate::network::{Network, OnnxNetwork};

/// The comparison of a model's output with the recorded output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The largest difference, in the network's units.
    pub largest_difference: f32,
    /// The largest difference that passes.
    pub tolerance: f32,
}

impl Verdict {
    /// Whether the model reproduces the recorded output.
    pub fn passes(self) -> bool {
        self.largest_difference <= self.tolerance
    }
}

/// Evaluates a package's recorded input with its network in `precision` and compares the output
/// with the recorded one. The record comes from the f32 network, and the tolerance of each file
/// covers its numeric precision.
///
/// # Errors
/// [`Error::Model`] when the package has no recorded pair, or its files do not fit together; the
/// network's errors.
pub fn verify(
    package: &Package,
    precision: Precision,
    network: &mut OnnxNetwork,
) -> Result<Verdict> {
    let manifest = &package.manifest;
    let Some(check) = &manifest.check else {
        return Err(Error::model(
            &manifest.name,
            "its manifest has no [check], so there is nothing to compare with",
        ));
    };
    let tolerance = package.file(precision)?.tolerance.unwrap_or(check.tolerance);
    let sample = check.sample.as_ref().map(|name| read(package, name)).transpose()?;
    let expected = read(package, &check.prediction)?;
    let sigma = check.sigma.as_ref().map(|name| read(package, name)).transpose()?;
    let condition = check.condition.as_ref().map(|name| read(package, name)).transpose()?;
    network.bind(sample.as_ref().unwrap_or(&expected).dim().into())?;
    let inputs = network.inputs();
    match (sample, manifest.inputs.sample.is_some()) {
        (Some(sample), true) => fill(inputs.sample, &sample, &manifest.name)?,
        (None, false) => {
            // What the output is made of beside its only image.
            inputs.sample.fill(0.0);
        }
        _ => {
            let problem = "its [check] and its [inputs] disagree about a sample";
            return Err(Error::model(&manifest.name, problem));
        }
    }
    for (input, recorded) in [(inputs.sigma, sigma), (inputs.condition, condition)] {
        match (input, &recorded) {
            (Some(input), Some(recorded)) => fill(input, recorded, &manifest.name)?,
            (None, None) => {}
            _ => {
                let problem =
                    "its [check] and its [inputs] disagree about a map of sigma or a condition";
                return Err(Error::model(&manifest.name, problem));
            }
        }
    }
    match (inputs.class, check.class) {
        (Some(labels), Some(class)) => labels.fill(class),
        (None, None) => {}
        _ => {
            return Err(Error::model(
                &manifest.name,
                "its [check] and its [inputs] disagree about a class",
            ));
        }
    }
    let output = network.evaluate(check.timestep.unwrap_or_default())?;
    if output.len() != expected.len() {
        return Err(Error::model(
            &manifest.name,
            "its recorded output differs in shape from its recorded input",
        ));
    }
    // A NaN counts as the largest difference.
    let largest_difference =
        output.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(
            0.0,
            |largest: f32, difference| if difference <= largest { largest } else { difference },
        );
    Ok(Verdict { largest_difference, tolerance })
}

fn read(package: &Package, name: &str) -> Result<Array4<f32>> {
    let bytes = package.record(name)?;
    let values: Array4<f32> = array::decode(Cursor::new(bytes)).map_err(|cause| {
        let problem = format!("its {name} is not readable; {}", array::expected::<Ix4>());
        Error::model_from(&package.manifest.name, problem, cause)
    })?;
    if values.is_empty() {
        let problem =
            format!("its {name} has the shape {:?}, which holds no values", values.shape());
        return Err(Error::model(&package.manifest.name, problem));
    }
    Ok(values)
}

fn fill(buffer: &mut [f32], values: &Array4<f32>, model: &str) -> Result<()> {
    if buffer.len() != values.len() {
        return Err(Error::model(model, "its recorded inputs do not fit each other"));
    }
    buffer.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
    Ok(())
}

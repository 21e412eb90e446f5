//! Folders in the diffusers layout, and tensors for them.

use std::fs;
use std::path::PathBuf;

use eddy::array;
use ndarray::{Array, Array4, Dimension, Ix4};

use crate::common::place::{Place, data};

/// A file of `tests/data/pipelines`, see `tests/golden/make_pipelines.py`.
pub(crate) fn stored(name: &str) -> PathBuf {
    data("pipelines").join(name)
}

/// The state that the goldens start from.
pub(crate) fn start() -> Array4<f32> {
    array::read::<Ix4>(&stored("start.npy")).unwrap()
}

/// A new place that holds a state, `x.npy`.
pub(crate) fn place_of(x: &Array4<f32>) -> Place {
    let place = Place::new();
    place.tensor("x.npy", x);
    place
}

impl Place {
    /// Writes a tensor.
    pub(crate) fn tensor<D: Dimension>(&self, name: &str, array: &Array<f32, D>) {
        array::write(array, &self.path(name)).unwrap();
    }

    /// Writes a pipeline around a network of `tests/data/pipelines`.
    pub(crate) fn pipeline(&self, folder: &str, network: &str, scheduler: &str) {
        self.file(&format!("{folder}/unet/model.onnx"), fs::read(stored(network)).unwrap());
        self.file(&format!("{folder}/scheduler/scheduler_config.json"), scheduler);
    }

    /// Reads the result of a run, which is finite.
    pub(crate) fn result(&self, name: &str) -> Array4<f32> {
        let result = array::read::<Ix4>(&self.path(name)).unwrap();
        assert!(result.iter().all(|value| value.is_finite()), "{name} is not finite");
        result
    }
}

/// The largest difference over the largest expected magnitude.
pub(crate) fn difference(found: &Array4<f32>, expected: &Array4<f32>) -> f64 {
    assert_eq!(found.dim(), expected.dim());
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let gap = largest(
        &mut found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()),
    );
    gap / largest(&mut expected.iter().map(|b| f64::from(b.abs())))
}

//! The numeric precision of a network.

use serde::{Deserialize, Serialize};

use crate::names::named;

/// The numeric precision of a file's weights and activations, the most exact first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout; the default.
    #[default]
    F32,
    /// 16-bit floats throughout: inputs, outputs and weights.
    F16,
    /// 8-bit integers between `QuantizeLinear` and `DequantizeLinear`. Inputs and outputs are
    /// 32-bit floats.
    Int8,
}

named!(Precision, "a precision", F32 = "f32", F16 = "f16", Int8 = "int8");

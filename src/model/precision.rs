//! The numeric precision of a network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The numeric precision of a file's weights and activations.
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

impl Precision {
    /// All precisions, the most exact first.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Int8];

    /// The name in a manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|precision| precision.name() == text);
        known.ok_or_else(|| {
            format!("{text} is no precision; expected {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

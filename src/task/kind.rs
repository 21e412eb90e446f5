//! What kind of noise a picture has, and so which network is for it.

use crate::frame::Frame;

/// A kind of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseKind {
    /// None that is worth removing.
    Clean,
    /// White, in red, green and blue.
    White,
    /// What a camera's processor or a codec made of it: correlated, and different in luma and chroma.
    Camera,
}

impl NoiseKind {
    /// The kind of a picture's noise.
    pub fn of(_frame: &Frame) -> Self {
        Self::White
    }

    /// In words, for people, with the model that is chosen for it.
    pub fn words(self, model: &str) -> String {
        match self {
            Self::Clean => "clean, left as it is".into(),
            Self::White => format!("white noise ({model})"),
            Self::Camera => format!("camera noise ({model})"),
        }
    }
}

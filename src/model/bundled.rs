//! The models that the binary carries.

/// A package inside the binary.
#[derive(Debug)]
pub(super) struct Bundle {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! bundle {
    ($name:literal: $($file:literal),+) => {
        Bundle {
            name: $name,
            files: &[$(($file, include_bytes!(concat!("../../models/", $name, "/", $file)))),+],
        }
    };
}

static BUNDLES: &[Bundle] = &[bundle!(
    "denoise-fast": "model.toml", "denoise-fast.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"
)];

impl Bundle {
    pub(super) fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }
}

pub(super) fn find(name: &str) -> Option<&'static Bundle> {
    BUNDLES.iter().find(|bundle| bundle.name == name)
}

/// The names of the models that the binary carries.
pub fn names() -> Vec<&'static str> {
    BUNDLES.iter().map(|bundle| bundle.name).collect()
}

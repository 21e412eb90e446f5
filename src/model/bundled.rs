//! The models that the binary carries.

/// A package inside the binary.
#[derive(Debug)]
pub(super) struct Bundle {
    name: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! bundle {
    ($name:literal: $($file:literal),+) => { bundle!(@ $name: "model.toml", $($file),+) };
    (@ $name:literal: $($file:literal),+) => {
        Bundle {
            name: $name,
            files: &[$(($file, include_bytes!(concat!("../../models/", $name, "/", $file)))),+],
        }
    };
}

/// One line a model: its folder in `models/`, and the files that its `model.toml` names.
#[rustfmt::skip]
static BUNDLES: &[Bundle] = &[
    bundle!("denoise-fast": "denoise-fast.onnx", "denoise-fast-f16.onnx", "denoise-fast-int8.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("denoise": "denoise.onnx", "denoise-f16.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("camera": "camera.onnx", "camera-f16.onnx", "camera-int8.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("upscale-x2": "upscale-x2.onnx", "upscale-x2-f16.onnx", "check-x.npy", "check-sigma.npy", "check-low.npy", "check-denoised.npy"),
    bundle!("upscale-x4": "upscale-x4.onnx", "upscale-x4-f16.onnx", "check-x.npy", "check-sigma.npy", "check-low.npy", "check-denoised.npy"),
    bundle!("prior": "prior.onnx", "prior-f16.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
];

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::BUNDLES;
    use crate::model::Package;

    #[test]
    fn a_bundle_carries_what_its_manifest_names_and_nothing_else() {
        for bundle in BUNDLES {
            let manifest = Package::find(bundle.name).unwrap().manifest;
            assert_eq!(manifest.name, bundle.name);
            let check = manifest.check.unwrap();
            let mut named: BTreeSet<String> = manifest.files.into_values().map(|file| file.path).collect();
            named.extend(["model.toml".to_owned(), check.sample, check.prediction]);
            named.extend([check.sigma, check.condition].into_iter().flatten());
            let carried: BTreeSet<String> = bundle.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(named, carried, "{}", bundle.name);
        }
    }
}

//! The models embedded in the binary.

use std::io::Read;

use zstd::stream::read::Decoder;

/// The bundled denoiser of white noise in RGB that is taken by default.
pub const WHITE_NOISE_DENOISER: &str = "denoise-fast";
/// The bundled denoiser for the noise of cameras and codecs, on luma and chroma.
pub const CAMERA_DENOISER: &str = "camera";

/// A package embedded in the binary.
#[derive(Debug)]
pub(super) struct Bundle {
    name: &'static str,
    /// Names and packed bytes of its files.
    files: &'static [(&'static str, &'static [u8])],
    /// The f16 file as a difference to the f32 file, packed by `build.rs`. Empty if there is none.
    half: &'static [u8],
}

macro_rules! bundle {
    ($name:literal: $($file:literal),+) => {
        bundle!(
            @ $name, include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "-f16.onnx.zst"))
            => "model.toml", $($file),+
        )
    };
    // Without an f16 file.
    (f32 $name:literal: $($file:literal),+) => {
        bundle!(@ $name, &[] => "model.toml", $($file),+)
    };
    (@ $name:literal, $half:expr => $($file:literal),+) => {
        Bundle {
            name: $name,
            files: &[
                (
                    concat!($name, ".onnx"),
                    include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "/", $name, ".onnx.zst")),
                ),
                $((
                    $file,
                    include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "/", $file, ".zst")),
                )),+
            ],
            half: $half,
        }
    };
}

/// One line per model: its folder in `models/`, and the files that its `model.toml` names beside
/// the f32 and the f16 file.
#[rustfmt::skip]
static BUNDLES: &[Bundle] = &[
    bundle!(
        "denoise-fast":
        "denoise-fast-int8.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"
    ),
    bundle!("denoise-nano": "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("denoise": "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("camera": "camera-int8.onnx", "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!("upscale-x2": "check-x.npy", "check-sigma.npy", "check-low.npy", "check-denoised.npy"),
    bundle!("upscale-x4": "check-x.npy", "check-sigma.npy", "check-low.npy", "check-denoised.npy"),
    bundle!("prior": "check-x.npy", "check-sigma.npy", "check-denoised.npy"),
    bundle!(f32 "digits-ddpm": "check-x.npy", "check-epsilon.npy"),
    bundle!(f32 "digits-ncsn": "check-x.npy", "check-score.npy"),
    bundle!(f32 "digits-classifier": "check-x.npy", "check-gradient.npy"),
];

/// A pipeline of several networks embedded in the binary.
#[derive(Debug)]
pub struct BundledPipeline {
    /// Its name.
    pub name: &'static str,
    /// Names and packed bytes of its files.
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! pipeline {
    ($name:literal: $($file:literal),+) => {
        BundledPipeline {
            name: $name,
            files: &[$((
                $file,
                include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "/", $file, ".zst")),
            )),+],
        }
    };
}

/// One line per pipeline: its folder in `models/`, and its files.
#[rustfmt::skip]
static PIPELINES: &[BundledPipeline] = &[
    pipeline!(
        "shapes-glide":
        "pipeline.toml", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        "text_encoder/model.onnx", "base/model.onnx", "base/scheduler_config.json",
        "upsampler/model.onnx", "upsampler/scheduler_config.json"
    ),
    pipeline!(
        "shapes-imagen":
        "pipeline.toml", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        "text_encoder/model.onnx", "base/model.onnx", "base/scheduler_config.json",
        "upsampler/model.onnx", "upsampler/scheduler_config.json"
    ),
    pipeline!(
        "shapes-unclip":
        "pipeline.toml", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
        "text_encoder/model.onnx", "image_encoder/model.onnx", "prior/model.onnx",
        "prior/mean.npy", "prior/std.npy", "prior/scheduler_config.json",
        "decoder/model.onnx", "decoder/scheduler_config.json",
        "upsampler/model.onnx", "upsampler/scheduler_config.json"
    ),
];

impl BundledPipeline {
    fn packed(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, packed)| *packed)
    }

    /// Whether it has a file of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.packed(name).is_some()
    }

    /// The bytes of a file; none if there is no such file.
    pub fn file(&self, name: &str) -> Option<Vec<u8>> {
        zstd::decode_all(self.packed(name)?).ok()
    }
}

impl Bundle {
    /// The bytes of a file; none if there is no such file.
    pub(super) fn file(&self, name: &str) -> Option<Vec<u8>> {
        let known = |name: &str| {
            let (_, packed) = self.files.iter().find(|(known, _)| *known == name)?;
            zstd::decode_all(*packed).ok()
        };
        if name != self.half_name() || self.half.is_empty() {
            return known(name);
        }
        let whole = known(&format!("{}.onnx", self.name))?;
        let mut bytes = Vec::new();
        let mut decoder = Decoder::with_ref_prefix(self.half, &whole).ok()?;
        decoder.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn half_name(&self) -> String {
        format!("{}-f16.onnx", self.name)
    }
}

pub(super) fn find(name: &str) -> Option<&'static Bundle> {
    BUNDLES.iter().find(|bundle| bundle.name == name)
}

pub(super) fn find_pipeline(name: &str) -> Option<&'static BundledPipeline> {
    PIPELINES.iter().find(|pipeline| pipeline.name == name)
}

/// The names of the embedded pipelines of several networks.
pub fn pipeline_names() -> Vec<&'static str> {
    PIPELINES.iter().map(|pipeline| pipeline.name).collect()
}

/// The names of the embedded models.
pub fn names() -> Vec<&'static str> {
    BUNDLES.iter().map(|bundle| bundle.name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BUNDLES, PIPELINES};
    use crate::model::{ModelFolder, Package, Precision};

    #[test]
    fn a_bundle_has_exactly_the_files_of_its_manifest() {
        for bundle in BUNDLES {
            let manifest = Package::find(bundle.name).unwrap().manifest;
            assert_eq!(manifest.name, bundle.name);
            let check = manifest.check.unwrap();
            let mut named: BTreeSet<String> =
                manifest.files.into_values().map(|file| file.path).collect();
            named.extend(["model.toml".to_owned(), check.prediction]);
            named.extend(check.sample);
            named.extend([check.sigma, check.condition].into_iter().flatten());
            let mut carried: BTreeSet<String> =
                bundle.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            carried.extend((!bundle.half.is_empty()).then(|| bundle.half_name()));
            assert_eq!(named, carried, "{}", bundle.name);
        }
    }

    #[test]
    fn a_pipeline_has_exactly_the_files_of_its_folder() {
        for pipeline in PIPELINES {
            let folder = format!("{}/models/{}", env!("CARGO_MANIFEST_DIR"), pipeline.name);
            let folder = std::path::Path::new(&folder);
            let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let mut files: BTreeSet<String> = ["pipeline.toml".to_owned()].into();
            for part in inner.filter(|path| path.is_dir()) {
                for file in std::fs::read_dir(part).unwrap() {
                    let path = file.unwrap().path();
                    files.insert(path.strip_prefix(folder).unwrap().display().to_string());
                }
            }
            let carried = pipeline.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(files, carried, "{}", pipeline.name);
            for name in &files {
                let whole = std::fs::read(folder.join(name)).unwrap();
                assert_eq!(pipeline.file(name).unwrap(), whole, "{name}");
            }
            let spec = crate::stages::pipeline_of(&ModelFolder::find(pipeline.name)).unwrap();
            assert_eq!(spec.name, pipeline.name);
            assert!(!spec.description.is_empty());
        }
    }

    /// Compares SHA-256 with the one in the manifest.
    #[test]
    fn packed_files_unpack_unchanged() {
        for bundle in BUNDLES.iter().filter(|bundle| !bundle.half.is_empty()) {
            let package = Package::find(bundle.name).unwrap();
            let file = package.file(Precision::F16).unwrap();
            let bytes = package.checked(&file.path, &file.sha256).unwrap();
            assert!(
                bundle.half.len() < bytes.len() / 10,
                "{}: {} of {}",
                bundle.name,
                bundle.half.len(),
                bytes.len()
            );
        }
    }
}

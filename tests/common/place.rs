//! A temporary folder for one test.

use std::path::PathBuf;
use std::{fs, iter};

pub use eddy::digest::sha256;
use eddy::media::Image;

use super::images;

/// A temporary folder.
pub struct Place {
    folder: tempfile::TempDir,
}

/// A manifest that fits most of `tests/data/models`; `{sha256}` stands for its network's.
pub const MANIFEST: &str = r#"name = "tested"
version = "1"
task = "denoise"
prediction = "denoised"
channels = 3
range = [0.0, 1.0]
receptive_field = 0
bytes_per_pixel = 64
license = "CC0-1.0"
description = "a test"
[sigma]
min = 0.0
max = 1.0
[inputs]
sample = "x"
sigma = "sigma"
[outputs]
denoised = "denoised"
[files.f32]
path = "network.onnx"
sha256 = "{sha256}"
"#;

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// An array as numpy saves it.
pub fn npy(shape: [usize; 4], values: &[f32]) -> Vec<u8> {
    let [a, b, c, d] = shape;
    let header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({a}, {b}, {c}, {d}), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("eddy-test-").tempdir().unwrap() }
    }

    /// A new folder that holds an image.
    pub fn with(name: &str, image: &Image) -> Self {
        Self::new().and(name, image)
    }

    /// One more image, in the format that its name ends in.
    pub fn and(self, name: &str, image: &Image) -> Self {
        let (_, extension) = name.rsplit_once('.').unwrap();
        self.file(name, images::encoded(image, extension));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn folder(&self, name: &str) {
        fs::create_dir_all(self.path(name)).unwrap();
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name))
            .unwrap_or_else(|error| panic!("{name}: {error}; there are {:?}", self.names("")))
    }

    pub fn image(&self, name: &str) -> Image {
        images::read(&self.path(name))
    }

    /// Everything in a folder of this place, hidden files too, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Writes a model package around a network of `tests/data/models`; `edit` changes
    /// its manifest.
    pub fn model(&self, folder: &str, network: &str, edit: impl Fn(String) -> String) {
        let bytes = fs::read(data("models").join(format!("{network}.onnx"))).unwrap();
        self.model_of(folder, &bytes, edit);
    }

    /// Writes a model package around these bytes.
    pub fn model_of(&self, folder: &str, network: &[u8], edit: impl Fn(String) -> String) {
        let hash = sha256(network);
        self.file(&format!("{folder}/network.onnx"), network);
        self.file(&format!("{folder}/model.toml"), edit(MANIFEST.replace("{sha256}", &hash)));
    }

    /// Fails if the place contains anything else.
    pub fn holds_only(&self, names: &[&str]) {
        let mut expected: Vec<&str> = names.to_vec();
        expected.sort_unstable();
        let found = self.names("");
        assert!(
            iter::zip(&found, &expected).all(|(a, b)| a == b) && found.len() == expected.len(),
            "{found:?}"
        );
    }
}

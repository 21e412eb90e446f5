//! The pipelines in `tests/data/pipelines/text`, see `tests/golden/pipelines/make_selection.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::place::{Place, data};

/// A file of `tests/data/pipelines/text`.
pub(crate) fn stored(name: &str) -> PathBuf {
    data("pipelines/text").join(name)
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_slice(&fs::read(stored(name)).unwrap()).unwrap()
}

/// The place of each file of each pipeline. Files that several have alike are stored once.
fn files() -> BTreeMap<String, BTreeMap<String, String>> {
    serde_json::from_value(json("files.json")).unwrap()
}

impl Place {
    /// A new place with this pipeline in the folder `pipeline`.
    pub(crate) fn with_pipeline(name: &str) -> Self {
        let place = Self::new();
        let files = files();
        let of_it = files.get(name).unwrap_or_else(|| panic!("no pipeline {name} is stored"));
        for (file, at) in of_it {
            let bytes = fs::read(stored(&format!("folders/{at}"))).unwrap();
            place.file(&format!("pipeline/{file}"), bytes);
        }
        place
    }

    /// Changes entries of a JSON file of the pipeline. Null takes an entry away.
    pub(crate) fn edit(self, file: &str, entries: &Value) -> Self {
        let file = format!("pipeline/{file}");
        let mut json: Value = serde_json::from_slice(&self.bytes(&file)).unwrap();
        let object = json.as_object_mut().unwrap();
        for (key, value) in entries.as_object().unwrap() {
            if value.is_null() {
                assert!(object.remove(key).is_some(), "{file} has no {key}");
            } else {
                object.insert(key.clone(), value.clone());
            }
        }
        self.file(&file, json.to_string());
        self
    }

    /// Takes a file or a folder of the pipeline away.
    pub(crate) fn without(self, part: &str) -> Self {
        let path = self.path("pipeline").join(part);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        self
    }

    /// Writes a file of the pipeline.
    pub(crate) fn holding(self, file: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.file(&format!("pipeline/{file}"), bytes);
        self
    }

    /// Swaps two parts of the pipeline.
    pub(crate) fn swapping(self, one: &str, other: &str) -> Self {
        let part = |name: &str| self.path("pipeline").join(name);
        fs::rename(part(one), part("swapped")).unwrap();
        fs::rename(part(other), part(one)).unwrap();
        fs::rename(part("swapped"), part(other)).unwrap();
        self
    }
}

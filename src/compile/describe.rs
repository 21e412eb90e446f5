//! What a compiled file says of itself.

use std::collections::BTreeMap;
use std::path::Path;

use super::onnx::{Element, Length, Port, last, text};
use crate::error::{Error, Result};
use crate::model::protobuf::messages;
use crate::model::{MAX_GRAPH_BYTES, read_regular};

/// Field numbers of `ModelProto` and `GraphProto`.
const GRAPH: u64 = 7;
const METADATA: u64 = 14;
const INPUT: u64 = 11;
const OUTPUT: u64 = 12;

/// What Eddy's properties begin with.
pub(super) const PREFIX: &str = "eddy.";

/// An input or output of a compiled file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPort {
    /// Its name.
    pub name: String,
    /// The element type, as numpy calls it; empty if it is unknown.
    pub dtype: &'static str,
    /// The axes: a number, or the name of a free one.
    pub shape: Vec<String>,
    /// What it holds.
    pub description: String,
}

/// A compiled file, as [`describe`] reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledFile {
    /// What it says of itself (`docs/compile.md`), without the prefix `eddy.`.
    pub properties: BTreeMap<String, String>,
    /// Its inputs.
    pub inputs: Vec<CompiledPort>,
    /// Its outputs.
    pub outputs: Vec<CompiledPort>,
    /// Its size in bytes.
    pub bytes: usize,
}

/// Reads what the file at `path` says of itself, if [`compile`](super::compile) wrote it; no
/// network is loaded.
///
/// # Errors
/// [`Error::Model`] when the file cannot be read, or has 2 GiB or more.
pub fn describe(path: &Path) -> Result<Option<CompiledFile>> {
    let file = read_regular(path, MAX_GRAPH_BYTES).map_err(|cause| {
        Error::model_from(path.display().to_string(), "the file cannot be read", cause)
    })?;
    Ok(described(&file))
}

pub(super) fn described(file: &[u8]) -> Option<CompiledFile> {
    let properties: BTreeMap<String, String> = messages(file)
        .filter(|(number, _)| *number == METADATA)
        .filter_map(|(_, entry)| {
            let key = text(last(entry, 1));
            Some((key.strip_prefix(PREFIX)?.to_owned(), text(last(entry, 2))))
        })
        .collect();
    properties.contains_key("version").then(|| {
        let graph = last(file, GRAPH);
        let ports = |wanted: u64| {
            messages(graph)
                .filter(|(number, _)| *number == wanted)
                .map(|(_, port)| CompiledPort::read(port))
                .collect()
        };
        CompiledFile { inputs: ports(INPUT), outputs: ports(OUTPUT), bytes: file.len(), properties }
    })
}

impl CompiledPort {
    fn read(bytes: &[u8]) -> Self {
        let port = Port::read(bytes);
        let axis = |length: &Length| match length {
            Length::Fixed(length) => length.to_string(),
            Length::Named(name) => name.clone(),
        };
        Self {
            dtype: port.element.map_or("", Element::name),
            shape: port.shape.iter().map(axis).collect(),
            description: text(last(bytes, 3)),
            name: port.name,
        }
    }
}

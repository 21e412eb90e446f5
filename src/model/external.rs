//! The external files in which an ONNX graph stores its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Links, MAX_GRAPH_BYTES, find_weights, read_regular};
use super::protobuf::{self, Field, Value, last, messages, split};
use crate::error::{Error, Result};

/// The ONNX messages that lead to a tensor.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// The type of a field of this message, by the field numbers of `onnx.proto`.
    fn within(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::Sparse),
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => {
                Some(Self::Tensor)
            }
            _ => None,
        }
    }
}

/// `external_data` of a tensor: pairs of key and value.
const EXTERNAL_DATA: u64 = 13;

/// The depth limit of protobuf is lower.
const DEEPEST: usize = 200;

/// The paths that the tensors of an ONNX file name, relative to its folder. Empty if it is not an
/// ONNX file.
pub fn external_files(network: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(network, Message::Model, 0, &mut found);
    found
}

fn walk(bytes: &[u8], message: Message, depth: usize, found: &mut BTreeSet<String>) {
    if depth > DEEPEST {
        return;
    }
    for (field, body) in messages(bytes) {
        if let Some(within) = message.within(field) {
            walk(body, within, depth + 1, found);
        }
        if let (Message::Tensor, EXTERNAL_DATA) = (message, field) {
            // If there are several, protobuf uses the last.
            if let (Some(b"location"), Some(location)) = (last(body, 1), last(body, 2)) {
                found.insert(String::from_utf8_lossy(location).into_owned());
            }
        }
    }
}

/// The graph `network` with its weights inside, if they are in files in `folder`.
///
/// # Errors
/// [`Error::Model`] for the network `model`, when a file cannot be read, or all weights are more
/// than one file of ONNX holds.
pub(crate) fn with_weights(
    network: Vec<u8>,
    folder: &Path,
    links: Links,
    model: &str,
) -> Result<Vec<u8>> {
    let found = find_weights(&network, folder, links, model)?;
    if found.is_empty() {
        return Ok(network);
    }
    let mut files = BTreeMap::new();
    let mut left = MAX_GRAPH_BYTES.saturating_sub(network.len() as u64);
    for (name, path) in found {
        let bytes = read_regular(&path, left).map_err(|cause| {
            let problem = format!(
                "its weights in {name:?} cannot be put into one file, which holds {} MiB at most",
                MAX_GRAPH_BYTES >> 20
            );
            Error::model_from(model, problem, cause)
        })?;
        left -= bytes.len() as u64;
        files.insert(name, bytes);
    }
    // Tensors may share the bytes of a file, of which each has its own then.
    let mut left = MAX_GRAPH_BYTES.saturating_sub(network.len() as u64);
    inlined(&network, Message::Model, &files, 0, &mut left).ok_or_else(|| {
        let problem = format!(
            "its graph names weights that its files do not hold, or more than the {} MiB of one \
             file in all; fetch or export it again",
            MAX_GRAPH_BYTES >> 20
        );
        Error::model(model, problem)
    })
}

/// A message whose tensors hold their values themselves, of at most `left` bytes; none if a file
/// has not enough of them.
fn inlined(
    bytes: &[u8],
    message: Message,
    files: &BTreeMap<String, Vec<u8>>,
    depth: usize,
    left: &mut u64,
) -> Option<Vec<u8>> {
    /// `data_location` of a tensor, and its values.
    const LOCATION: u64 = 14;
    const RAW_DATA: u64 = 9;
    if depth > DEEPEST {
        return None;
    }
    let (fields, rest) = split(bytes);
    let mut new = protobuf::Message::default();
    let mut external = BTreeMap::new();
    for Field { number, value, encoded } in fields {
        match (message, number, value) {
            (Message::Tensor, EXTERNAL_DATA, Value::Bytes(pair)) => {
                let text = |wanted: u64| {
                    last(pair, wanted).map(|text| String::from_utf8_lossy(text).into_owned())
                };
                external.insert(text(1)?, text(2)?);
            }
            (Message::Tensor, LOCATION, _) => {}
            (_, _, Value::Bytes(body)) if let Some(within) = message.within(number) => {
                new = new.bytes(number, inlined(body, within, files, depth + 1, left)?);
            }
            _ => new = new.encoded(encoded),
        }
    }
    if let Some(location) = external.get("location") {
        let file = files.get(location)?;
        let number = |key| external.get(key).map(|text| text.parse::<usize>().ok());
        let offset = number("offset").unwrap_or(Some(0))?;
        let values = file.get(offset..)?;
        let length = number("length").unwrap_or(Some(values.len()))?;
        *left = left.checked_sub(length as u64)?;
        new = new.bytes(RAW_DATA, values.get(..length)?);
    }
    Some(new.encoded(rest).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::{external_files, inlined, with_weights};
    use crate::model::Links;
    use crate::model::protobuf::Message;

    fn field(number: u8, body: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, body.len() as u8], body].concat()
    }

    fn tensor(file: &str) -> Vec<u8> {
        let pair = |key: &str, value: &str| {
            [field(1, key.as_bytes()), field(2, value.as_bytes())].concat()
        };
        // A dimension and an element type come first.
        [vec![8, 3, 16, 1], field(13, &pair("location", file)), field(13, &pair("offset", "64"))]
            .concat()
    }

    #[test]
    fn finds_tensors_in_all_messages() {
        let deep = field(7, &field(1, &field(5, &field(6, &field(5, &tensor("deep.bin"))))));
        let constant = field(7, &field(1, &field(5, &field(5, &tensor("parts/constant")))));
        let twice =
            field(7, &[field(5, &tensor("weights.pb")), field(5, &tensor("weights.pb"))].concat());
        // The last of two locations is used, and groups are searched.
        let entry = [field(1, b"location"), field(2, b"first"), field(2, b"last.bin")].concat();
        let last = field(7, &[vec![0x1B, 0x1C], field(5, &field(13, &entry))].concat());
        let model = [vec![8, 9], deep, constant, twice, last].concat();
        let found: Vec<_> = external_files(&model).into_iter().collect();
        assert_eq!(found, ["deep.bin", "last.bin", "parts/constant", "weights.pb"]);
        for cut in 0..model.len() {
            assert!(external_files(&model[..cut]).len() <= 4);
        }
        assert!(external_files(b"a text, not a graph").is_empty());
    }

    /// A graph of one tensor, whose four values are at offset 4 of a file.
    fn graph(file: &str, length: &str) -> Vec<u8> {
        let pairs = [("location", file), ("offset", "4"), ("length", length)];
        let tensor = Message::default().number(1, 4).number(2, 2).bytes(8, "w");
        let tensor = pairs.iter().fold(tensor, |tensor, (key, value)| {
            tensor.message(13, Message::default().bytes(1, key).bytes(2, value))
        });
        let tensor = tensor.number(14, 1);
        let graph = Message::default().message(5, tensor).bytes(2, "name");
        Message::default().number(1, 8).message(7, graph).into_bytes()
    }

    #[test]
    fn weights_in_files_are_put_into_the_graph() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w.bin"), [0, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
        let put = |network: Vec<u8>| with_weights(network, folder.path(), Links::Inside, "m");
        let inside =
            Message::default().number(1, 4).number(2, 2).bytes(8, "w").bytes(9, [4, 5, 6, 7]);
        let expected = Message::default().message(5, inside).bytes(2, "name");
        let expected = Message::default().number(1, 8).message(7, expected).into_bytes();
        assert_eq!(put(graph("w.bin", "4")).unwrap(), expected);
        assert_eq!(put(expected.clone()).unwrap(), expected, "nothing is in files");
        let files = [("w.bin".to_owned(), vec![0; 8])].into();
        let within = |mut left: u64| {
            inlined(&graph("w.bin", "4"), super::Message::Model, &files, 0, &mut left).is_some()
        };
        assert!(within(4) && !within(3), "more bytes than there may be");
        for (network, problem) in [
            (graph("w.bin", "6"), "its files do not hold"),
            (graph("w.bin", "-1"), "its files do not hold"),
            (graph("gone.bin", "4"), "cannot be read"),
            (graph("../w.bin", "4"), "cannot be read"),
        ] {
            let message = put(network).unwrap_err().to_string();
            assert!(message.contains(problem), "{message}");
        }
    }
}

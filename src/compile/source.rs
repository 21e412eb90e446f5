//! The graph of a network, taken apart so that another graph can hold it. Nodes and weights stay as
//! they are, byte for byte, except for names that the other graph needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::describe::PREFIX;
use super::onnx::{Port, last, text};
use crate::error::{Error, Result};
use crate::model::protobuf::{Field, Message, Value, split};

/// A network's graph.
pub(super) struct Source<'a> {
    pub(super) ir_version: i64,
    /// The version of ONNX's own operators.
    pub(super) opset: i64,
    /// The versions of all sets of operators, by their domains.
    pub(super) opsets: Vec<(String, i64)>,
    /// Whether nodes are of functions that the file defines.
    pub(super) has_functions: bool,
    /// Fields of the model that its nodes need: sets of operators and functions.
    pub(super) model_fields: Vec<&'a [u8]>,
    /// Fields of the model that say something of it.
    pub(super) metadata: Vec<&'a [u8]>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
    /// The bodies of nodes, in order.
    pub(super) nodes: Vec<Cow<'a, [u8]>>,
    /// Weights and what belongs to them: field numbers of `GraphProto`, and bodies.
    pub(super) weights: Vec<(u64, Cow<'a, [u8]>)>,
}

/// Field numbers of `ModelProto` and `GraphProto`.
mod field {
    pub(super) const IR_VERSION: u64 = 1;
    pub(super) const GRAPH: u64 = 7;
    pub(super) const OPSET: u64 = 8;
    pub(super) const METADATA: u64 = 14;
    pub(super) const FUNCTION: u64 = 25;
    pub(super) const NODE: u64 = 1;
    pub(super) const INITIALIZER: u64 = 5;
    pub(super) const INPUT: u64 = 11;
    pub(super) const OUTPUT: u64 = 12;
    pub(super) const ANNOTATION: u64 = 14;
    pub(super) const SPARSE: u64 = 15;
}

impl<'a> Source<'a> {
    /// Takes the file of a network apart; `model` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Model`] when it is not a complete ONNX file.
    pub(super) fn read(file: &'a [u8], model: &str) -> Result<Self> {
        let damaged = || {
            Error::model(model, "its network is not a complete ONNX file; fetch or export it again")
        };
        let (fields, rest) = split(file);
        if !rest.is_empty() {
            return Err(damaged());
        }
        let (mut ir_version, mut opset, mut is_compiled) = (0, 0, false);
        let (mut opsets, mut has_functions) = (Vec::new(), false);
        let (mut model_fields, mut metadata) = (Vec::new(), Vec::new());
        for Field { number, value, encoded } in fields {
            match (number, value) {
                (field::IR_VERSION, Value::Number(number)) => ir_version = number.cast_signed(),
                (field::OPSET, Value::Bytes(set)) => {
                    let version = split(set).0.into_iter().find_map(|field| match field {
                        Field { number: 2, value: Value::Number(number), .. } => Some(number),
                        _ => None,
                    });
                    let version = version.unwrap_or_default().cast_signed();
                    let mut domain = text(last(set, 1));
                    if matches!(domain.as_str(), "" | "ai.onnx") {
                        // Both are the name of ONNX's own.
                        domain.clear();
                        opset = version;
                    }
                    opsets.push((domain, version));
                    model_fields.push(encoded);
                }
                (field::METADATA, Value::Bytes(entry)) => {
                    is_compiled |= text(last(entry, 1)).starts_with(PREFIX);
                    metadata.push(encoded);
                }
                (field::FUNCTION, _) => {
                    has_functions = true;
                    model_fields.push(encoded);
                }
                _ => {}
            }
        }
        if is_compiled {
            let problem = "its network is a trajectory that was compiled already; give the model \
                           that it was compiled from";
            return Err(Error::model(model, problem));
        }
        let (fields, rest) = split(last(file, field::GRAPH));
        let mut source = Self {
            ir_version,
            opset,
            opsets,
            has_functions,
            model_fields,
            metadata,
            inputs: Vec::new(),
            outputs: Vec::new(),
            nodes: Vec::new(),
            weights: Vec::new(),
        };
        for Field { number, value, .. } in fields {
            let Value::Bytes(body) = value else { continue };
            match number {
                field::NODE => source.nodes.push(body.into()),
                field::INPUT => source.inputs.push(Port::read(body)),
                field::OUTPUT => source.outputs.push(Port::read(body)),
                field::INITIALIZER | field::SPARSE | field::ANNOTATION => {
                    source.weights.push((number, body.into()));
                }
                _ => {}
            }
        }
        if !rest.is_empty() || source.nodes.is_empty() {
            return Err(damaged());
        }
        // Old files list weights among the inputs, too.
        let weights: BTreeSet<String> = source
            .weights
            .iter()
            .filter(|(number, _)| *number == field::INITIALIZER)
            .map(|(_, tensor)| text(last(tensor, 8)))
            .collect();
        source.inputs.retain(|port| !weights.contains(&port.name));
        Ok(source)
    }

    /// Gives values that have one of these names others, and says what an input or output is
    /// called now.
    pub(super) fn rename(&mut self, reserved: &[&str]) -> BTreeMap<String, String> {
        let names = reserved.iter().map(|name| ((*name).to_owned(), format!("network/{name}")));
        let names: BTreeMap<String, String> = names.collect();
        self.rename_by(&|name| names.get(name).cloned());
        names
    }

    fn rename_by(&mut self, new_name: &dyn Fn(&str) -> Option<String>) {
        let renamed = |message: Named, bytes: &mut Cow<'a, [u8]>| {
            if let Some(new) = message.renamed(bytes, new_name) {
                *bytes = new.into();
            }
        };
        self.nodes.iter_mut().for_each(|node| renamed(Named::Node, node));
        for (number, body) in &mut self.weights {
            if let Some(message) = Named::Graph.within(*number) {
                renamed(message, body);
            }
        }
        let ports = self.inputs.iter_mut().chain(&mut self.outputs);
        ports.for_each(|port| {
            if let Some(new) = new_name(&port.name) {
                port.name = new;
            }
        });
    }

    /// A graph with the weights of this one.
    pub(super) fn with_weights(&self, graph: Message) -> Message {
        self.weights.iter().fold(graph, |graph, (number, weights)| graph.bytes(*number, weights))
    }

    /// Puts `prefix` before the names of all values and nodes.
    pub(super) fn prefix(&mut self, prefix: &str) {
        self.rename_by(&|name| (!name.is_empty()).then(|| format!("{prefix}{name}")));
    }

    /// The input or output of this name.
    pub(super) fn find(ports: &'a [Port], name: &str, model: &str) -> Result<&'a Port> {
        ports.iter().find(|port| port.name == name).ok_or_else(|| {
            let present: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            let problem = format!("it has no tensor `{name}`; it has {}", present.join(", "));
            Error::model(model, problem)
        })
    }
}

/// The messages that name values, or hold others that do.
#[derive(Clone, Copy)]
enum Named {
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Annotation,
}

impl Named {
    /// The message in a field of this one.
    fn within(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Graph, field::NODE) => Some(Self::Node),
            (Self::Graph, field::INITIALIZER) | (Self::Sparse, 1) => Some(Self::Tensor),
            (Self::Graph, field::INPUT | field::OUTPUT | 13) => Some(Self::ValueInfo),
            (Self::Graph, field::ANNOTATION) => Some(Self::Annotation),
            (Self::Graph, field::SPARSE) => Some(Self::Sparse),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Attribute, 6 | 11) => Some(Self::Graph),
            _ => None,
        }
    }

    /// Whether a field is the name of a value, or of a node.
    fn is_name(self, number: u64) -> bool {
        matches!(
            (self, number),
            (Self::Node, 1..=3) | (Self::Tensor, 8) | (Self::ValueInfo | Self::Annotation, 1)
        )
    }

    /// The message with other names, if any of its names has a new one.
    fn renamed(self, bytes: &[u8], new_name: &dyn Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
        let (fields, rest) = split(bytes);
        let mut is_changed = false;
        let mut new = Message::default();
        for Field { number, value, encoded } in fields {
            let other = match value {
                Value::Bytes(body) if self.is_name(number) => {
                    new_name(&text(body)).map(String::into_bytes)
                }
                Value::Bytes(body) => {
                    self.within(number).and_then(|message| message.renamed(body, new_name))
                }
                _ => None,
            };
            is_changed |= other.is_some();
            new = match other {
                Some(body) => new.bytes(number, body),
                None => new.encoded(encoded),
            };
        }
        is_changed.then(|| new.encoded(rest).into_bytes())
    }
}

//! Parts of an ONNX graph as protobuf messages, by the field numbers of `onnx.proto`.

use half::f16;

use crate::model::protobuf::{self, Fields, Message, Value, messages};

/// The element type of a tensor, by its number in `onnx.proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32 = 1,
    I32 = 6,
    I64 = 7,
    Bool = 9,
    F16 = 10,
    F64 = 11,
}

impl Element {
    /// The type of that number, if Eddy has values of it.
    fn of(number: u64) -> Option<Self> {
        [Self::F32, Self::I32, Self::I64, Self::Bool, Self::F16, Self::F64]
            .into_iter()
            .find(|element| element.number().cast_unsigned() == number)
    }

    pub(super) fn number(self) -> i64 {
        self as i64
    }

    /// Its name in numpy.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::Bool => "bool",
            Self::F16 => "float16",
            Self::F64 => "float64",
        }
    }

    /// Values as a tensor of this type holds them. Integers are truncated, as the inputs of a
    /// network are.
    fn bytes(self, values: &[f64]) -> Vec<u8> {
        let each = |value: &f64| match self {
            Self::F32 => (*value as f32).to_le_bytes().to_vec(),
            Self::I32 => (*value as i32).to_le_bytes().to_vec(),
            Self::I64 => (*value as i64).to_le_bytes().to_vec(),
            Self::Bool => vec![u8::from(*value != 0.0)],
            Self::F16 => f16::from_f64(*value).to_le_bytes().to_vec(),
            Self::F64 => value.to_le_bytes().to_vec(),
        };
        values.iter().flat_map(each).collect()
    }
}

/// The length of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Fixed(i64),
    /// A free axis, whose name says which others are as long.
    Named(String),
}

impl Length {
    pub(super) fn named(name: &str) -> Self {
        Self::Named(name.to_owned())
    }

    pub(super) fn fixed(&self) -> Option<i64> {
        match self {
            Self::Fixed(length) => Some(*length),
            Self::Named(_) => None,
        }
    }
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    /// None for a type that Eddy has no values of.
    pub(super) element: Option<Element>,
    pub(super) shape: Vec<Length>,
}

impl Port {
    pub(super) fn new(name: &str, element: Element, shape: Vec<Length>) -> Self {
        Self { name: name.to_owned(), element: Some(element), shape }
    }

    /// Reads a `ValueInfoProto`.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let tensor = [2, 1].iter().fold(bytes, |bytes, wanted| last(bytes, *wanted));
        let element = Fields(tensor).fold(None, |found, field| match field {
            (1, Value::Number(number)) => Element::of(number),
            _ => found,
        });
        let axes = messages(last(tensor, 2)).filter(|(field, _)| *field == 1);
        let length = |axis: &[u8]| {
            Fields(axis).fold(Length::named(""), |found, field| match field {
                (1, Value::Number(length)) => Length::Fixed(length.cast_signed()),
                (2, Value::Bytes(name)) => Length::Named(text(name)),
                _ => found,
            })
        };
        let shape = axes.map(|(_, axis)| length(axis)).collect();
        Self { name: text(last(bytes, 1)), element, shape }
    }

    /// The `ValueInfoProto`.
    pub(super) fn write(&self, doc: &str) -> Message {
        let axes = self.shape.iter().map(|length| match length {
            Length::Fixed(length) => Message::default().number(1, *length),
            Length::Named(name) => Message::default().bytes(2, name),
        });
        let shape = axes.fold(Message::default(), |shape, axis| shape.message(1, axis));
        let element = self.element.map_or(0, Element::number);
        let tensor = Message::default().number(1, element).message(2, shape);
        let info = Message::default().bytes(1, &self.name);
        let info = info.message(2, Message::default().message(1, tensor));
        if doc.is_empty() { info } else { info.bytes(3, doc) }
    }
}

/// The last field of that number; nothing if there is none.
pub(super) fn last(bytes: &[u8], wanted: u64) -> &[u8] {
    protobuf::last(bytes, wanted).unwrap_or_default()
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `TensorProto`.
pub(super) fn tensor(name: &str, element: Element, shape: &[i64], values: &[f64]) -> Message {
    let tensor = shape.iter().fold(Message::default(), |tensor, length| tensor.number(1, *length));
    tensor.number(2, element.number()).bytes(8, name).bytes(9, element.bytes(values))
}

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Int(&'a str, i64),
    Float(&'a str, f32),
    Text(&'a str, &'a str),
    Graph(&'a str, Message),
}

impl Attribute<'_> {
    fn write(self) -> Message {
        let named = |name: &str, kind| Message::default().bytes(1, name).number(20, kind);
        match self {
            Self::Float(name, value) => named(name, 1).float(2, value),
            Self::Int(name, value) => named(name, 2).number(3, value),
            Self::Text(name, value) => named(name, 3).bytes(4, value),
            Self::Graph(name, value) => named(name, 5).message(6, value),
        }
    }
}

/// A `NodeProto`.
pub(super) fn node<'a>(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: impl IntoIterator<Item = Attribute<'a>>,
) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, name| node.bytes(1, name));
    let node = outputs.iter().fold(node, |node, name| node.bytes(2, name));
    // Its name is that of its output, which is unique.
    let node = node.bytes(3, outputs.first().copied().unwrap_or_default()).bytes(4, operator);
    attributes.into_iter().fold(node, |node, attribute| node.message(5, attribute.write()))
}

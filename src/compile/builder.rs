//! The graph under construction: nodes that run once, nodes of every step, and constants.

use super::onnx::{Attribute, Element, node, tensor};
use super::source::Source;
use crate::model::protobuf::Message;

/// The index of the step, in the body of the loop.
pub(super) const STEP: &str = "eddy/step";

/// Field numbers of `GraphProto`.
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;

/// When a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before the first step.
    Once,
    /// In every step.
    Step,
}

/// A graph under construction.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) once: Message,
    pub(super) step: Message,
    pub(super) constants: Message,
    count: usize,
}

/// A number of each step, a scalar of float32.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Factor {
    /// The same in all steps.
    Same(f32),
    /// The name of its value in the step.
    Varying(String),
}

impl Builder {
    fn name(&mut self, operator: &str) -> String {
        self.count += 1;
        format!("eddy/{}_{}", operator.to_lowercase(), self.count)
    }

    /// Appends an encoded node.
    pub(super) fn push(&mut self, when: When, node: impl AsRef<[u8]>) {
        let nodes = match when {
            When::Once => &mut self.once,
            When::Step => &mut self.step,
        };
        *nodes = std::mem::take(nodes).bytes(NODE, node);
    }

    /// A node without attributes, and the name of its output.
    pub(super) fn node(&mut self, when: When, operator: &str, inputs: &[&str]) -> String {
        self.node_with(when, operator, inputs, [])
    }

    /// A node, and the name of its output.
    pub(super) fn node_with<const N: usize>(
        &mut self,
        when: When,
        operator: &str,
        inputs: &[&str],
        attributes: [Attribute<'_>; N],
    ) -> String {
        let output = self.name(operator);
        self.push(when, node(operator, inputs, &[&output], attributes).into_bytes());
        output
    }

    /// Appends the weights of a network whose nodes run once.
    pub(super) fn add_weights(&mut self, source: &Source<'_>) {
        self.constants = source.with_weights(std::mem::take(&mut self.constants));
    }

    /// Another name for a value.
    pub(super) fn alias(&mut self, when: When, value: &str, name: &str) {
        self.push(when, node("Identity", &[value], &[name], []).into_bytes());
    }

    pub(super) fn cast(&mut self, when: When, value: &str, to: Element) -> String {
        self.node_with(when, "Cast", &[value], [Attribute::Int("to", to.number())])
    }

    pub(super) fn concat(&mut self, when: When, values: &[&str], axis: i64) -> String {
        match values {
            [value] => (*value).to_owned(),
            _ => self.node_with(when, "Concat", values, [Attribute::Int("axis", axis)]),
        }
    }

    pub(super) fn gather(&mut self, when: When, value: &str, at: &str, axis: i64) -> String {
        self.node_with(when, "Gather", &[value, at], [Attribute::Int("axis", axis)])
    }

    /// `value[.., starts..ends, ..]` along `axes`.
    pub(super) fn slice(
        &mut self,
        when: When,
        value: &str,
        [starts, ends]: [&str; 2],
        axes: &[i64],
    ) -> String {
        let axes = self.integers(axes);
        self.node(when, "Slice", &[value, starts, ends, &axes])
    }

    /// The `count` largest values along axis 1, in descending order.
    pub(super) fn top(&mut self, when: When, value: &str, count: &str) -> String {
        let [values, places] = ["topk", "places"].map(|what| self.name(what));
        let top = node("TopK", &[value, count], &[&values, &places], [Attribute::Int("axis", 1)]);
        self.push(when, top.into_bytes());
        values
    }

    /// A constant under this name.
    pub(super) fn constant(&mut self, name: &str, element: Element, shape: &[i64], values: &[f64]) {
        let tensor = tensor(name, element, shape, values);
        self.constants = std::mem::take(&mut self.constants).message(INITIALIZER, tensor);
    }

    /// A constant, and its name.
    pub(super) fn tensor(&mut self, element: Element, shape: &[i64], values: &[f64]) -> String {
        let name = self.name("constant");
        self.constant(&name, element, shape, values);
        name
    }

    /// The factors by which Resize enlarges height and width.
    pub(super) fn scales(&mut self, scale: f64) -> String {
        self.tensor(Element::F32, &[4], &[1.0, 1.0, scale, scale])
    }

    /// A vector of integers.
    pub(super) fn integers(&mut self, values: &[i64]) -> String {
        let shape = [i64::try_from(values.len()).unwrap_or(i64::MAX)];
        let values: Vec<f64> = values.iter().map(|value| *value as f64).collect();
        self.tensor(Element::I64, &shape, &values)
    }

    /// A constant scalar.
    pub(super) fn scalar(&mut self, element: Element, value: f64) -> String {
        self.tensor(element, &[], &[value])
    }

    /// The value of each step, a scalar: a constant if all are equal.
    pub(super) fn per_step(&mut self, element: Element, values: &[f64]) -> String {
        match values {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => {
                self.scalar(element, *first)
            }
            _ => {
                let table = self.name("table");
                let shape = [i64::try_from(values.len()).unwrap_or(i64::MAX)];
                self.constant(&table, element, &shape, values);
                self.gather(When::Step, &table, STEP, 0)
            }
        }
    }

    /// A factor of each step.
    pub(super) fn factor(&mut self, values: impl Iterator<Item = f32>) -> Factor {
        let values: Vec<f32> = values.collect();
        match values.as_slice() {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => Factor::Same(*first),
            _ => {
                let values: Vec<f64> = values.into_iter().map(f64::from).collect();
                Factor::Varying(self.per_step(Element::F32, &values))
            }
        }
    }

    /// The name of a factor's value.
    pub(super) fn value(&mut self, factor: &Factor) -> String {
        match factor {
            Factor::Same(value) => self.scalar(Element::F32, f64::from(*value)),
            Factor::Varying(name) => name.clone(),
        }
    }

    /// `factor * value` in every step; none if that is always 0.
    pub(super) fn scaled(&mut self, factor: &Factor, value: &str) -> Option<String> {
        match factor {
            Factor::Same(0.0) => None,
            Factor::Same(1.0) => Some(value.to_owned()),
            _ => {
                let factor = self.value(factor);
                Some(self.node(When::Step, "Mul", &[&factor, value]))
            }
        }
    }

    /// The sum of terms in every step, in this order.
    pub(super) fn sum(
        &mut self,
        terms: impl IntoIterator<Item = Option<String>>,
    ) -> Option<String> {
        let mut terms = terms.into_iter().flatten();
        let first = terms.next()?;
        Some(terms.fold(first, |sum, term| self.node(When::Step, "Add", &[&sum, &term])))
    }
}

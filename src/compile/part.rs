//! One network of several in a graph.

use std::collections::BTreeMap;

use super::builder::{Builder, When};
use super::inputs::unsupported;
use super::onnx::{Element, Port};
use super::source::Source;
use crate::error::{Error, Result};

const ONCE: When = When::Once;

/// A network of the pipeline, with names that no other has.
pub(super) struct Part<'a> {
    /// Its file, for errors.
    pub(super) name: String,
    /// What all its names begin with.
    pub(super) prefix: String,
    pub(super) source: Source<'a>,
}

impl<'a> Part<'a> {
    /// Takes the network apart, and puts `prefix` before all its names. `name` is for errors.
    pub(super) fn read(name: String, prefix: String, bytes: &'a [u8]) -> Result<Self> {
        let mut source = Source::read(bytes, &name)?;
        source.prefix(&prefix);
        Ok(Self { name, prefix, source })
    }

    /// The name that its own graph has for a value.
    pub(super) fn own_name<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(&self.prefix).unwrap_or(name)
    }

    /// The names and ranks of its outputs.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (&str, usize)> {
        self.source.outputs.iter().map(|port| (self.own_name(&port.name), port.shape.len()))
    }

    /// A value of `element` in the element of an input.
    pub(super) fn cast(
        &self,
        builder: &mut Builder,
        port: &Port,
        value: &str,
        element: Element,
    ) -> Result<String> {
        match port.element {
            Some(wanted) if wanted == element => Ok(value.to_owned()),
            Some(wanted) => Ok(builder.cast(ONCE, value, wanted)),
            None => {
                let what = format!("its input `{}` is not of numbers", self.own_name(&port.name));
                Err(unsupported(&self.name, what))
            }
        }
    }

    /// Gives an input a value that is of `element`.
    pub(super) fn give(
        &self,
        builder: &mut Builder,
        port: &Port,
        value: &str,
        element: Element,
    ) -> Result<()> {
        let value = self.cast(builder, port, value, element)?;
        builder.alias(ONCE, &value, &port.name);
        Ok(())
    }

    /// Emits its nodes and weights once.
    pub(super) fn emit(&self, builder: &mut Builder) {
        self.source.nodes.iter().for_each(|node| builder.push(ONCE, node));
        builder.add_weights(&self.source);
    }

    /// An output in float32, by the name that the network's own graph has for it.
    pub(super) fn output(&self, builder: &mut Builder, name: &str) -> Result<(&Port, String)> {
        let name = format!("{}{name}", self.prefix);
        let port = Source::find(&self.source.outputs, &name, &self.name)?;
        let value = match port.element {
            Some(Element::F32) => name,
            _ => builder.cast(ONCE, &name, Element::F32),
        };
        Ok((port, value))
    }
}

/// The fields that the nodes of all networks need, and the newest version of the format.
pub(super) fn joined_fields<'a>(
    place: &str,
    sources: &[&Source<'a>],
) -> Result<(i64, Vec<&'a [u8]>)> {
    let mut fields: Vec<&[u8]> = Vec::new();
    let mut opsets: BTreeMap<&str, i64> = BTreeMap::new();
    for source in sources {
        for (domain, version) in &source.opsets {
            let known = *opsets.entry(domain).or_insert(*version);
            if known != *version {
                let problem = format!(
                    "its networks are of the opsets {known} and {version}, and one graph has one; \
                     export the pipeline again with the same opset for all"
                );
                return Err(Error::model(place, problem));
            }
        }
        if sources.len() > 1 && source.has_functions {
            let what = "its networks have functions of their own";
            return Err(unsupported(place, what));
        }
        for field in &source.model_fields {
            if !fields.contains(field) {
                fields.push(field);
            }
        }
    }
    let ir_version = sources.iter().map(|source| source.ir_version).max().unwrap_or_default();
    Ok((ir_version, fields))
}

//! Tensors of the Open Inference Protocol: numbers or texts, as JSON or as bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounded::{Text, few, parameters};
use super::problem::Problem;
use super::work::Outcome;

/// A tensor of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Tensor<'b> {
    pub(super) name: Text,
    #[serde(deserialize_with = "few")]
    pub(super) shape: Vec<u64>,
    pub(super) datatype: Text,
    #[serde(default, deserialize_with = "parameters")]
    pub(super) parameters: Map<String, Value>,
    /// The elements, which are parsed once it is known what they have to be.
    #[serde(borrow)]
    pub(super) data: Option<&'b RawValue>,
}

/// What takes the elements of a tensor in JSON, in order, or says why it does not.
pub(super) trait Sink {
    fn number(&mut self, value: f64) -> Result<(), String>;
    fn text(&mut self, text: &str) -> Result<(), String>;
}

struct Elements<'a, S>(&'a mut S);

impl<'de, S: Sink> Visitor<'de> for Elements<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or texts, in arrays")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.0.number(value).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.text(text).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Elements(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Elements<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Tensor<'_> {
    /// Passes the elements of `data` on, however they are nested.
    pub(super) fn elements(&self, data: &RawValue, sink: &mut impl Sink) -> Outcome<()> {
        let mut json = serde_json::Deserializer::from_str(data.get());
        Elements(sink)
            .deserialize(&mut json)
            .map_err(|error| Problem::invalid(format!("the data of {}: {error}", self.name.0)))
    }
}

/// Takes the bytes of a tensor from the part of the body after the JSON.
pub(super) fn take_binary<'b>(
    tensor: &Tensor<'_>,
    rest: &mut &'b [u8],
) -> Outcome<Option<&'b [u8]>> {
    let Some(size) = tensor.parameters.get("binary_data_size") else { return Ok(None) };
    let name = &tensor.name.0;
    let there = size.as_u64().and_then(|size| rest.split_at_checked(usize::try_from(size).ok()?));
    let (own, others) = there.ok_or_else(|| {
        Problem::invalid(format!(
            "binary_data_size of {name} is {size}, and {} bytes follow the JSON; expected as many",
            rest.len()
        ))
    })?;
    *rest = others;
    Ok(Some(own))
}

#[cfg(test)]
mod tests {
    use super::{Tensor, take_binary};

    #[test]
    fn takes_bytes_in_order() {
        let mut tensor: Tensor<'_> =
            serde_json::from_str(r#"{"name":"a","shape":[1],"datatype":"UINT8"}"#).unwrap();
        let mut rest = &b"abc"[..];
        tensor.parameters.insert("binary_data_size".into(), 2.into());
        assert_eq!(take_binary(&tensor, &mut rest).unwrap(), Some(&b"ab"[..]));
        assert!(take_binary(&tensor, &mut rest).is_err());
        assert_eq!(rest, b"c");
    }
}

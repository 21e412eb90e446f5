//! Tensors of the Open Inference Protocol: numbers or texts, as JSON or as bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::problem::Problem;
use super::work::Outcome;

/// A tensor of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) datatype: String,
    #[serde(default)]
    pub(super) parameters: Map<String, Value>,
    pub(super) data: Option<Data>,
}

/// The elements of a tensor in JSON, in order, however they are nested. Numbers are kept as f32,
/// which holds all of 16 bits.
#[derive(Debug, Default)]
pub(super) struct Data {
    pub(super) numbers: Vec<f32>,
    pub(super) texts: Vec<String>,
}

struct Elements<'a>(&'a mut Data);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers or texts, in arrays")
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.numbers.push(value as f32);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.numbers.push(value as f32);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.numbers.push(value as f32);
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.texts.push(value.to_owned());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while sequence.next_element_seed(Elements(self.0))?.is_some() {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::default();
        Elements(&mut data).deserialize(deserializer)?;
        if data.numbers.is_empty() || data.texts.is_empty() {
            Ok(data)
        } else {
            Err(D::Error::custom("data has both numbers and texts"))
        }
    }
}

/// Takes the bytes of a tensor from the part of the body after the JSON.
pub(super) fn take_binary<'b>(tensor: &Tensor, rest: &mut &'b [u8]) -> Outcome<Option<&'b [u8]>> {
    let Some(size) = tensor.parameters.get("binary_data_size") else { return Ok(None) };
    let name = &tensor.name;
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
        let mut tensor: Tensor =
            serde_json::from_str(r#"{"name":"a","shape":[1],"datatype":"UINT8"}"#).unwrap();
        let mut rest = &b"abc"[..];
        tensor.parameters.insert("binary_data_size".into(), 2.into());
        assert_eq!(take_binary(&tensor, &mut rest).unwrap(), Some(&b"ab"[..]));
        assert!(take_binary(&tensor, &mut rest).is_err());
        assert_eq!(rest, b"c");
    }
}

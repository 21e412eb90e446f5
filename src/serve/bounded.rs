//! Parts of JSON that are refused while they are parsed when they are larger than any client needs:
//! a parsed value may take tens of times the memory of its text.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The most elements of a list, parameters, and bytes of a text. A prompt may be as long.
const MAX_ELEMENTS: usize = 8;
const MAX_PARAMETERS: usize = 32;
const MAX_TEXT: usize = 4096;

/// A text of at most [`MAX_TEXT`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX_TEXT} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        if text.len() > MAX_TEXT {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(Text(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct FewVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FewVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX_ELEMENTS} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == MAX_ELEMENTS {
                return Err(A::Error::invalid_length(MAX_ELEMENTS + 1, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

/// A list of at most [`MAX_ELEMENTS`].
pub(super) fn few<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(FewVisitor(PhantomData))
}

/// A value of a parameter.
struct Scalar(Value);

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX_TEXT} bytes, a number, true, false or null")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(value.into()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        TextVisitor.visit_str(text).map(|Text(text)| Scalar(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(Value::Null))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {MAX_PARAMETERS} parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parameters = Map::new();
        while let Some(Text(name)) = map.next_key()? {
            if parameters.len() == MAX_PARAMETERS {
                return Err(A::Error::invalid_length(MAX_PARAMETERS + 1, &self));
            }
            let Scalar(value) = map
                .next_value()
                .map_err(|error| A::Error::custom(format!("the parameter {name}: {error}")))?;
            parameters.insert(name, value);
        }
        Ok(parameters)
    }
}

/// At most [`MAX_PARAMETERS`], whose values are texts, numbers, truth values or null.
pub(super) fn parameters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Map<String, Value>, D::Error> {
    deserializer.deserialize_map(ParametersVisitor)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Map, Value, json};

    use super::{Text, few, parameters};

    #[derive(Debug, Deserialize)]
    struct All {
        #[serde(default, deserialize_with = "few")]
        list: Vec<u64>,
        text: Option<Text>,
        #[serde(default, deserialize_with = "parameters")]
        parameters: Map<String, Value>,
    }

    fn parse(text: &str) -> Result<All, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn takes_what_clients_send() {
        let all = r#"{"list": [1, 2], "text": "a\n", "other": [[{}]],
            "parameters": {"a": "b", "c": 1, "d": -1, "e": 0.5, "f": true, "g": null}}"#;
        let All { list, text, parameters } = parse(all).unwrap();
        assert_eq!((list, text), (vec![1, 2], Some(Text("a\n".to_owned()))));
        let expected = json!({"a": "b", "c": 1, "d": -1, "e": 0.5, "f": true, "g": null});
        assert_eq!(Value::Object(parameters), expected);
    }

    #[test]
    fn refuses_what_is_larger_than_clients_send() {
        let many: Vec<String> = (0..33).map(|i| format!("\"{i}\": 0")).collect();
        let long = "a".repeat(4097);
        for (text, message) in [
            (format!(r#"{{"list": [{}0]}}"#, "0,".repeat(8)), "at most 8 elements"),
            // It is refused at its first element beyond, not at its end.
            (format!(r#"{{"list": [{}"#, "0,".repeat(9)), "at most 8 elements"),
            (format!(r#"{{"text": "{long}"}}"#), "at most 4096 bytes"),
            (format!(r#"{{"parameters": {{"{long}": 0}}}}"#), "at most 4096 bytes"),
            (format!(r#"{{"parameters": {{"a": "{long}"}}}}"#), "the parameter a: invalid length"),
            (format!(r#"{{"parameters": {{{}}}}}"#, many.join(", ")), "at most 32 parameters"),
            (r#"{"parameters": {"a": [0"#.to_owned(), "the parameter a: invalid type: sequence"),
            (r#"{"parameters": {"a": {"b""#.to_owned(), "the parameter a: invalid type: map"),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(problem.contains(message), "{problem}");
        }
    }
}

//! A JSON object whose keys are taken one by one, so that unknown keys are found at the end.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The keys of a schedule that have not been taken.
pub(crate) struct Keys<'a> {
    name: &'a str,
    /// The part of the model that contains the keys.
    place: &'static str,
    map: Map<String, Value>,
}

/// The keys of a JSON object in this `place` of a model, without `null`s, which count as absent,
/// and without defaults that diffusers wrote to the file, which do not apply to another sampler.
pub(crate) fn keys_of(name: &str, place: &str, text: &str) -> Result<Map<String, Value>> {
    let value = serde_json::from_str(&quote_non_finite(text)).map_err(|source| {
        Error::model_from(name, format!("its {place} is not JSON; export it again"), source)
    })?;
    let Value::Object(mut map) = value else {
        return Err(Error::model(
            name,
            format!("its {place} is not a JSON object; export it again"),
        ));
    };
    if let Some(Value::Array(defaulted)) = map.remove("_use_default_values") {
        for key in defaulted.iter().filter_map(Value::as_str) {
            map.remove(key);
        }
    }
    map.retain(|_, value| !value.is_null());
    Ok(map)
}

impl<'a> Keys<'a> {
    pub(crate) fn new(name: &'a str, place: &'static str, text: &str) -> Result<Self> {
        Ok(Self { name, place, map: keys_of(name, place, text)? })
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>> {
        self.take(key, "true, false", |value| value.as_bool())
    }

    pub(crate) fn count(
        &mut self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let possible = format!("a whole number, {} to {}", range.start(), range.end());
        self.take(key, &possible, |value| {
            value
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .filter(|count| range.contains(count))
        })
    }

    pub(crate) fn number(&mut self, key: &str) -> Result<Option<f64>> {
        self.take(key, "a finite number", |value| {
            value.as_f64().filter(|number| number.is_finite())
        })
    }

    /// A number that may be infinite.
    pub(crate) fn extended(&mut self, key: &str) -> Result<Option<f64>> {
        self.take(key, "a number or an infinity", |value| {
            value
                .as_f64()
                .or_else(|| value.as_str()?.parse().ok())
                .filter(|number: &f64| !number.is_nan())
        })
    }

    pub(crate) fn numbers(&mut self, key: &str) -> Result<Option<Vec<f64>>> {
        self.take(key, "a list of numbers", |value| {
            value.as_array()?.iter().map(Value::as_f64).collect()
        })
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>> {
        self.take(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        self.take(key, &names.join(", "), |value| {
            let text = value.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    /// The value of a key, whatever its type.
    pub(crate) fn value(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    /// Returns `value` if it `is_possible`, and an error otherwise.
    pub(crate) fn checked(
        &self,
        key: &str,
        value: f64,
        is_possible: bool,
        possible: &str,
    ) -> Result<f64> {
        if is_possible { Ok(value) } else { Err(self.refusal(key, &value.to_string(), possible)) }
    }

    pub(crate) fn refusal(&self, key: &str, value: &str, possible: &str) -> Error {
        Error::model(self.name, self.problem(key, value, possible))
    }

    /// The message for a key whose value is not supported.
    pub(crate) fn problem(&self, key: &str, value: &str, possible: &str) -> String {
        let (place, value) = (self.place, shortened(value));
        format!("its {place} has {key} = {value}, which is not supported; possible: {possible}")
    }

    /// Fails on keys that were not taken, except `inert` keys, notes (`_...`) and disabled options.
    pub(crate) fn finish(self, inert: &[&str]) -> Result<()> {
        let matters = |key: &str, value: &Value| {
            !key.starts_with('_') && !inert.contains(&key) && *value != Value::Bool(false)
        };
        match self.map.iter().find(|(key, value)| matters(key, value)) {
            None => Ok(()),
            Some((key, value)) => Err(Error::model(
                self.name,
                format!(
                    "its {} has a key that is not known here, '{}' = {}, and it may change the \
                     numbers; remove it if it does not",
                    self.place,
                    shortened(key),
                    shortened(&value.to_string())
                ),
            )),
        }
    }

    fn take<T>(
        &mut self,
        key: &str,
        possible: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.map.remove(key) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.refusal(key, &value.to_string(), possible))
    }
}

/// A value shortened for a message: a file may hold a megabyte.
pub(crate) fn shortened(value: &str) -> String {
    const MOST: usize = 100;
    let mut characters = value.chars();
    let start: String = characters.by_ref().take(MOST).collect();
    if characters.next().is_some() { start + "..." } else { start }
}

/// Quotes `Infinity`, `-Infinity` and `NaN`, which Python writes and JSON does not allow.
fn quote_non_finite(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 8);
    let (mut in_string, mut is_escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            quoted.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        quoted.push(c);
        rest = &rest[c.len_utf8()..];
    }
    quoted
}

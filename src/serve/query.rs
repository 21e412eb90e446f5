//! The parameters of a request: of a URL, or of a JSON object.

use serde_json::{Map, Value};

use super::problem::Problem;

/// Names and values, in order.
pub(super) type Pairs = Vec<(String, String)>;

/// The parameters of the query of a URL, decoded.
pub(super) fn of_url(query: &str) -> Result<Pairs, Problem> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((decoded(&name.replace('+', " "))?, decoded(&value.replace('+', " "))?))
        })
        .collect()
}

/// The parameters of a JSON object, whose values are texts, numbers and truth values.
pub(super) fn of_json(object: &Map<String, Value>) -> Result<Pairs, Problem> {
    let pair = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Ok((name.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok((name.clone(), value.to_string())),
        _ => Err(Problem::invalid(format!("the parameter {name} is neither a text nor a number"))),
    };
    object.iter().map(pair).collect()
}

/// A text with `%20` and the like decoded.
pub(super) fn decoded(text: &str) -> Result<String, Problem> {
    let invalid = || {
        Problem::invalid(format!(
            "{text:?} is not encoded as a URL is; expected a % to stand before two hexadecimal \
             digits, and UTF-8"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        (bytes, rest) = match (first, others) {
            (b'%', [high, low, others @ ..]) => {
                let digit = |c: u8| char::from(c).to_digit(16);
                let (high, low) = digit(*high).zip(digit(*low)).ok_or_else(invalid)?;
                bytes.push((16 * high + low) as u8);
                (bytes, others)
            }
            (b'%', _) => return Err(invalid()),
            (other, others) => {
                bytes.push(*other);
                (bytes, others)
            }
        };
    }
    String::from_utf8(bytes).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::{decoded, of_url};

    #[test]
    fn decodes_urls() {
        let pairs = of_url("sigma=12%2C5&a+b=&&steps").unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("sigma", "12,5"), ("a b", ""), ("steps", "")]);
        for text in ["%", "%2", "%zz", "%ff", "a%+1"] {
            assert!(decoded(text).is_err(), "{text}");
        }
    }
}

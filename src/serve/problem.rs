//! Why a request is refused or failed, as a status and a message.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::error::{Error, with_causes};
use crate::http::Answer;

/// The longest message, in bytes.
const MAX_TEXT: usize = 2048;

/// A status, a message, and a header that some statuses have.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) text: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.len() > MAX_TEXT {
            // It repeats a part of the request.
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.shrink_to_fit();
            text.push_str(" ...");
        }
        Self { status, text, header: None }
    }

    /// The request is invalid.
    pub(super) fn invalid(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// Another try in so many seconds may succeed.
    pub(super) fn retry(status: StatusCode, text: impl Into<String>, seconds: u64) -> Self {
        let header = Some((header::RETRY_AFTER, HeaderValue::from(seconds)));
        Self { header, ..Self::new(status, text) }
    }

    pub(super) fn method_not_allowed(methods: &'static str) -> Self {
        let header = Some((header::ALLOW, HeaderValue::from_static(methods)));
        let text = format!("this address takes {methods}");
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, text) }
    }

    pub(super) fn unauthorized(text: impl Into<String>) -> Self {
        let header = Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        Self { header, ..Self::new(StatusCode::UNAUTHORIZED, text) }
    }

    /// The server is shutting down.
    pub(super) fn stopping() -> Self {
        let text = "the server is shutting down; send the request to another one, or again later";
        Self::retry(StatusCode::SERVICE_UNAVAILABLE, text, 5)
    }

    /// An error of the library, whose settings `wording` turns into the options of the program.
    pub(super) fn of(error: &Error, wording: fn(&str) -> String) -> Self {
        let status = match error {
            Error::Usage { .. } => StatusCode::BAD_REQUEST,
            Error::Input { .. } | Error::Output { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Interrupted => return Self::stopping(),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, wording(&with_causes(error)))
    }

    pub(super) fn answer(self) -> Answer {
        let mut answer = json_answer(&json!({"error": self.text}));
        *answer.status_mut() = self.status;
        answer.headers_mut().extend(self.header);
        answer
    }
}

/// An answer of JSON.
pub(super) fn json_answer(value: &serde_json::Value) -> Answer {
    answer(value.to_string(), HeaderValue::from_static("application/json"))
}

/// An answer that browsers neither interpret nor keep.
pub(super) fn answer(body: impl Into<Bytes>, kind: HeaderValue) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let fixed = HeaderValue::from_static;
    answer.headers_mut().extend([
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (header::CONTENT_SECURITY_POLICY, fixed("default-src 'none'; frame-ancestors 'none'")),
        (header::CACHE_CONTROL, fixed("no-store")),
    ]);
    answer
}

#[cfg(test)]
mod tests {
    use super::Problem;

    #[test]
    fn messages_do_not_repeat_whole_requests() {
        assert_eq!(Problem::invalid("short").text, "short");
        let text = Problem::invalid("\u{e9}".repeat(1 << 20)).text;
        assert!(text.len() < 2100 && text.ends_with("\u{e9} ..."), "{} bytes", text.len());
    }
}

//! What a worker does for a request.

use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::problem::Problem;
use super::settings::Settings;
use super::{kserve, openai};
use crate::media::{Format, Image};
use crate::task::Assessment;

/// The work of a request.
pub(super) enum Work {
    /// An image file in, an image file out.
    File(Box<FileWork>),
    /// Tensors in, tensors out.
    Tensors(Box<kserve::TensorWork>),
    /// A prompt in, images out.
    Prompt(Box<openai::PromptWork>),
}

/// An image file, and how its result is requested.
pub(super) struct FileWork {
    pub(super) bytes: Vec<u8>,
    pub(super) settings: Settings,
    /// The `Accept` header, which applies where no format is set.
    pub(super) accept: Option<String>,
    /// The model for camera noise, where the noise decides.
    pub(super) for_camera_noise: Option<usize>,
    /// The image, once it is decoded.
    pub(super) decoded: Option<Decoded>,
}

/// A decoded image file.
pub(super) struct Decoded {
    pub(super) image: Image,
    pub(super) format: Format,
    pub(super) assessment: Option<Assessment>,
    /// How long the assessment took.
    pub(super) assessed_in: Duration,
}

/// The answer of a worker.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) kind: HeaderValue,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Vec<u8>,
}

/// What a worker did with its part of a request.
pub(super) enum Step {
    Done(Output),
    /// The rest is for another model.
    Forward(usize, Work),
}

/// The names and values of a report as headers: `tile_width` becomes `Eddy-Tile-Width`.
pub(super) fn headers(report: &Value) -> Vec<(HeaderName, HeaderValue)> {
    let header = |(name, value): (&String, &Value)| {
        let text = match value {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        let name = format!("eddy-{}", name.replace('_', "-"));
        // What is no text of a header is left out: names of models may have any characters.
        Some((name.parse().ok()?, HeaderValue::from_str(&text).ok()?))
    };
    report.as_object().into_iter().flatten().filter_map(header).collect()
}

/// The result of what may fail with a message for the client.
pub(super) type Outcome<T> = Result<T, Problem>;

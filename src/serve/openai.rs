//! Text to image as OpenAI's clients ask for it: `POST /v1/images/generations`.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::queue::Ticket;
use super::work::{Outcome, Output};
use super::worker::Context;
use crate::diffusion::Sampler;
use crate::media::{Format, Image, still};
use crate::stages::{TextToImage, TextToImageRequest};

/// Maximum number of images of one request.
const MAX_IMAGES: u32 = 10;

/// Maximum number of pixels of an image, as 2048x2048 has. Networks with attention take memory that
/// grows with its square.
const MAX_PIXELS: usize = 1 << 22;

/// Maximum length of a prompt in bytes. Encoders take 77 to 512 tokens, and what is longer has no
/// effect but takes time.
const MAX_PROMPT: usize = 4096;

/// Maximum size of a request in bytes.
pub(super) const MAX_BODY: u64 = 256 << 10;

/// What a request takes beside its prompt.
pub(super) const PARAMETERS: &[&str] =
    &["n", "size", "negative_prompt", "seed", "steps", "sampler", "eta", "guidance_scale"];

/// A request. What is not in OpenAI's interface has the name that `eddy generate` has for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    prompt: String,
    pub(super) model: Option<String>,
    n: Option<u32>,
    size: Option<String>,
    response_format: Option<String>,
    output_format: Option<String>,
    negative_prompt: Option<String>,
    seed: Option<u64>,
    steps: Option<usize>,
    sampler: Option<String>,
    eta: Option<f64>,
    guidance_scale: Option<f64>,
    /// Who asks: of no use here, and sent by several clients.
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
}

/// Images of a prompt.
pub(super) struct PromptWork {
    request: TextToImageRequest<'static>,
    seed: u64,
    count: u32,
    format: Format,
}

impl Request {
    pub(super) fn parse(body: &[u8]) -> Outcome<Self> {
        serde_json::from_slice(body)
            .map_err(|error| Problem::invalid(format!("the body is not a request: {error}")))
    }

    /// A request for a prompt with these parameters.
    pub(super) fn of(prompt: String, mut parameters: Map<String, Value>) -> Outcome<Self> {
        parameters.insert("prompt".to_owned(), prompt.into());
        serde_json::from_value(Value::Object(parameters))
            .map_err(|error| Problem::invalid(format!("the parameters do not fit: {error}")))
    }

    /// The work of the request.
    pub(super) fn work(self) -> Outcome<PromptWork> {
        if self.response_format.as_deref().is_some_and(|format| format != "b64_json") {
            let text = "response_format has to be b64_json: images are in the answer, and have no \
                        address of their own";
            return Err(Problem::invalid(text));
        }
        let format = match self.output_format.as_deref() {
            None => Format::Png,
            Some(name) => name.parse().map_err(|error: crate::Error| {
                Problem::invalid(format!("output_format: {error}"))
            })?,
        };
        for text in [Some(&self.prompt), self.negative_prompt.as_ref()].into_iter().flatten() {
            if text.len() > MAX_PROMPT {
                let text =
                    format!("a prompt has {} bytes; at most {MAX_PROMPT} are taken", text.len());
                return Err(Problem::invalid(text));
            }
        }
        let count = self.n.unwrap_or(1);
        if !(1..=MAX_IMAGES).contains(&count) {
            return Err(Problem::invalid(format!("n is {count}; expected 1 to {MAX_IMAGES}")));
        }
        if let Some(steps) = self.steps.filter(|steps| !(1..=1000).contains(steps)) {
            return Err(Problem::invalid(format!("steps is {steps}; expected 1 to 1000")));
        }
        let sampler = self.sampler.as_deref().map(str::parse::<Sampler>).transpose();
        let request = TextToImageRequest {
            negative_prompt: self.negative_prompt,
            size: size(self.size.as_deref())?,
            steps: self.steps,
            sampler: sampler.map_err(|error| Problem::invalid(format!("sampler: {error}")))?,
            eta: self.eta,
            guidance_scale: self.guidance_scale,
            ..TextToImageRequest::new(self.prompt)
        };
        let seed = self.seed.unwrap_or_else(random_seed);
        Ok(PromptWork { request, seed, count, format })
    }
}

/// A seed that is another each time; it is in the answer.
fn random_seed() -> u64 {
    RandomState::new().hash_one(SystemTime::now()) >> 32
}

/// Width and height, such as `512x512`; none for `auto`.
fn size(text: Option<&str>) -> Outcome<Option<[usize; 2]>> {
    let Some(text) = text.filter(|text| *text != "auto") else { return Ok(None) };
    let number = |text: &str| text.parse().ok().filter(|side| (1..=65_535).contains(side));
    let parsed = text.split_once('x').and_then(|(w, h)| Some([number(w)?, number(h)?]));
    let is_small = |[width, height]: &[usize; 2]| width * height <= MAX_PIXELS;
    parsed.filter(is_small).map(Some).ok_or_else(|| {
        Problem::invalid(format!(
            "size is {text:?}; expected such as 512x512, of at most {MAX_PIXELS} pixels"
        ))
    })
}

impl PromptWork {
    /// Generates the images, and answers with their files.
    pub(super) fn run(
        &self,
        pipeline: &mut TextToImage,
        ticket: &Ticket,
        context: &Context<'_>,
    ) -> Outcome<Output> {
        let (mut data, mut size) = (Vec::new(), String::new());
        for (seed, image) in self.images(pipeline, ticket, context)? {
            size = format!("{}x{}", image.width, image.height);
            let bytes = still::encoded(&image, self.format, &still::Options::default())
                .map_err(|error| Problem::of(&error, context.wording))?;
            data.push(json!({"b64_json": base64::encode(bytes), "seed": seed}));
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let answer = json!({
            "created": created, "data": data, "output_format": self.format.extension(),
            "size": size, "model": context.model,
        });
        let kind = HeaderValue::from_static("application/json");
        Ok(Output { kind, headers: Vec::new(), body: answer.to_string().into_bytes() })
    }

    /// The images with their seeds.
    pub(super) fn images(
        &self,
        pipeline: &mut TextToImage,
        ticket: &Ticket,
        context: &Context<'_>,
    ) -> Outcome<Vec<(u64, Image)>> {
        let Self { request, seed, count, .. } = self;
        let seeds = (0..*count).map(|i| seed.wrapping_add(u64::from(i)));
        let image = |seed| {
            let image = pipeline.run_observed(request, seed, |_| ticket.poll());
            image.map(|(image, _)| (seed, image))
        };
        seeds
            .map(image)
            .collect::<crate::Result<_>>()
            .map_err(|error| Problem::of(&error, context.wording))
    }
}

#[cfg(test)]
mod tests {
    use super::Request;

    #[test]
    fn refuses_what_has_no_effect() {
        let parse = |text: &str| Request::parse(text.as_bytes()).and_then(Request::work);
        let long = format!(r#"{{"prompt":"{:4097}"}}"#, "");
        assert!(parse(&long).err().unwrap().text.contains("at most 4096"));
        let work = parse(r#"{"prompt":"a","n":2,"size":"64x48","seed":7,"user":"me"}"#).unwrap();
        assert_eq!((work.count, work.seed, work.request.size), (2, 7, Some([64, 48])));
        for (text, message) in [
            (r#"{"n":1}"#, "missing field `prompt`"),
            (r#"{"prompt":"a","quality":"hd"}"#, "unknown field `quality`"),
            (r#"{"prompt":"a","n":0}"#, "expected 1 to 10"),
            (r#"{"prompt":"a","size":"64"}"#, "such as 512x512"),
            (r#"{"prompt":"a","size":"4096x2048"}"#, "at most 4194304 pixels"),
            (r#"{"prompt":"a","response_format":"url"}"#, "b64_json"),
            (r#"{"prompt":"a","output_format":"gif"}"#, "choose png"),
            (r#"{"prompt":"a","steps":0}"#, "1 to 1000"),
            (r#"{"prompt":"a","sampler":"none"}"#, "sampler"),
            ("", "EOF"),
        ] {
            let problem = parse(text).err().unwrap().text;
            assert!(problem.contains(message), "{text}: {problem}");
        }
    }
}

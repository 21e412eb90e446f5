//! The Open Inference Protocol (KServe V2) over HTTP, with its extension for binary tensors.
//!
//! <https://github.com/kserve/open-inference-protocol>; the extension is
//! `docs/protocol/extension_binary_data.md` of triton-inference-server/server.

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::bounded::{Text, few, parameters};
use super::engine::Engine;
use super::openai;
use super::pixels::{Element, Images, put_text, to_bytes};
use super::problem::Problem;
use super::query;
use super::queue::Ticket;
use super::settings::{DENOISE, Settings, UPSCALE};
use super::shared::{Kind, ModelState};
use super::tensors::{Sink, Tensor, take_binary};
use super::work::{Outcome, Output, Step};
use super::worker::Context;
use crate::error::Error;
use crate::media::{Image, Samples};
use crate::stages::TextToImage;
use crate::task::Assessment;

/// The one version of each model.
pub(super) const VERSION: &str = "1";

/// The header with the length of the JSON before binary tensors.
pub(super) const JSON_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// The names of tensors.
const IMAGE: &str = "image";
const PROMPT: &str = "prompt";

/// The part of the memory that a result in JSON may take.
const JSON_PART: u64 = 4;

/// Says that outputs that do not say otherwise are binary.
const BINARY_OUTPUT: &str = "binary_data_output";

/// The server, as `GET /v2` describes it.
pub(super) fn server() -> Value {
    json!({
        "name": "eddy", "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "model_repository"],
    })
}

/// A model, as `GET /v2/models/NAME` describes it.
pub(super) fn model(model: &ModelState) -> Value {
    let tensor = |name, datatype, shape: Value| json!([{"name": name, "datatype": datatype, "shape": shape}]);
    let image = || tensor(IMAGE, "UINT8", json!([-1, -1, -1]));
    let (inputs, names) = match model.kind {
        Kind::Denoise { .. } => (image(), DENOISE),
        Kind::Upscale { .. } => (image(), UPSCALE),
        Kind::Generate => (tensor(PROMPT, "BYTES", json!([1])), openai::PARAMETERS),
    };
    json!({
        "name": model.name, "versions": [VERSION], "platform": "eddy_onnxruntime",
        "inputs": inputs, "outputs": image(), "parameters": names,
    })
}

/// A request for the list of models.
#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

/// All models, as `POST /v2/repository/index` lists them.
pub(super) fn index(models: &[ModelState], body: &[u8]) -> Value {
    let IndexRequest { ready: ready_only } = serde_json::from_slice(body).unwrap_or_default();
    let shown = models.iter().filter(|model| model.is_ready() || !ready_only);
    let model = |model: &ModelState| {
        let (state, reason) =
            if model.is_ready() { ("READY", "") } else { ("LOADING", "it loads") };
        json!({"name": model.name, "version": VERSION, "state": state, "reason": reason})
    };
    shown.map(model).collect()
}

/// A request for an inference.
#[derive(Deserialize)]
struct Request<'b> {
    id: Option<Text>,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Map<String, Value>,
    #[serde(borrow, deserialize_with = "few")]
    inputs: Vec<Tensor<'b>>,
    #[serde(default, deserialize_with = "few")]
    outputs: Vec<Requested>,
}

/// An output that is requested.
#[derive(Deserialize)]
struct Requested {
    name: Text,
    #[serde(default, deserialize_with = "parameters")]
    parameters: Map<String, Value>,
}

/// The body of a request, and the length of its JSON, if that is not all.
pub(super) struct TensorWork {
    pub(super) body: Vec<u8>,
    pub(super) json_length: Option<usize>,
}

/// A parsed request.
struct Parsed<'b> {
    request: Request<'b>,
    input: Tensor<'b>,
    binary: Option<&'b [u8]>,
    is_binary: bool,
}

impl TensorWork {
    /// Denoises or enlarges images, one after the other.
    pub(super) fn run(
        &self,
        engine: &mut Engine<'_>,
        ticket: &Ticket,
        context: &Context<'_>,
    ) -> Outcome<Step> {
        let Parsed { request, input, binary, is_binary } = self.parse(IMAGE)?;
        let names = if engine.enlarges { UPSCALE } else { DENOISE };
        let settings = Settings::of(query::of_json(&request.parameters)?, names, &[])?;
        let failed = |error: Error| context.problem(&error);
        let factor = engine.manifest.scale;
        if let Some(scale) = settings.scale.filter(|scale| *scale != factor) {
            let text = format!("{} enlarges {factor} times, {scale} was requested", context.model);
            return Err(Problem::invalid(text));
        }
        engine.check(&settings).map_err(failed)?;
        let turn = context.shared.turns.decode();
        // Samples take no more than their text or bytes.
        context.check_memory(self.body.len() as u64)?;
        let Images { images, has_batch, element } = Images::of(&input, binary, context.limits)?;
        drop((input, turn));
        let outline = images.first().map(|image| engine.outline(image, &settings)).transpose();
        let outline = outline.map_err(failed)?.flatten();
        let result = outline.as_ref().or(images.first());
        let pixels = result.map_or(0, |image| image.width * image.height);
        let samples = result.map_or(0, |image| image.samples.len() as u64);
        let samples = samples.saturating_mul(images.len() as u64);
        let most = context.budget.max_memory;
        if engine.enlarges && samples.saturating_mul(4) > most {
            let text = format!("{} results take too much memory; send fewer", images.len());
            return Err(Problem::invalid(text));
        }
        let text = samples.saturating_mul(element.longest_text());
        if !is_binary && text > most / JSON_PART {
            let text = format!(
                "the result may take {} MiB as JSON; ask for bytes ({BINARY_OUTPUT}), or send less",
                text >> 20
            );
            return Err(Problem::invalid(text));
        }
        drop(outline);
        let turn = context.turn(pixels, ticket)?;
        let (mut results, mut report) = (Vec::with_capacity(images.len()), Value::Null);
        for image in images {
            let assessment = engine.assesses(&settings).then(|| Assessment::of(&image)).transpose();
            let assessment = assessment.map_err(failed)?;
            let result = engine.run(image, assessment.as_ref(), &settings, ticket);
            if turn.is_some() {
                engine.trim_memory();
            }
            let (result, own) = result.map_err(failed)?;
            results.push(result);
            report = own;
        }
        if has_batch && results.len() > 1 {
            // Each image has a report of its own, and the protocol no place for several.
            report = Value::Null;
        }
        answer(context.model, request.id, &results, (element, has_batch, is_binary), report)
            .map(Step::Done)
    }

    /// Makes images of a prompt.
    pub(super) fn run_prompt(
        &self,
        pipeline: &mut TextToImage,
        ticket: &Ticket,
        context: &Context<'_>,
    ) -> Outcome<Output> {
        let Parsed { request, input, binary, is_binary } = self.parse(PROMPT)?;
        let prompt = prompt(&input, binary)?;
        let work = openai::Request::of(prompt, request.parameters)?.work()?;
        let images = work.images(pipeline, ticket, context)?;
        let report = json!({"seed": images.first().map(|(seed, _)| seed)});
        let images: Vec<Image> = images.into_iter().map(|(_, image)| image).collect();
        let has_batch = images.len() > 1;
        answer(context.model, request.id, &images, (Element::U8, has_batch, is_binary), report)
    }

    /// Does all of [`run`](Self::run) but the images, which are the answer as they came.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn echo(&self, limits: &crate::media::still::Limits) -> Outcome<Output> {
        let Parsed { request, input, binary, is_binary } = self.parse(IMAGE)?;
        Settings::of(query::of_json(&request.parameters)?, DENOISE, &[])?;
        let Images { images, has_batch, element } = Images::of(&input, binary, limits)?;
        answer("model", request.id, &images, (element, has_batch, is_binary), Value::Null)
    }

    /// Does all of [`run_prompt`](Self::run_prompt) but the images.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn echo_prompt(&self) -> Outcome<openai::PromptWork> {
        let Parsed { request, input, binary, .. } = self.parse(PROMPT)?;
        openai::Request::of(prompt(&input, binary)?, request.parameters)?.work()
    }

    /// The request, with its only input.
    fn parse(&self, name: &str) -> Outcome<Parsed<'_>> {
        let length = self.json_length.unwrap_or(self.body.len());
        let (json, mut rest) = self.body.split_at_checked(length).ok_or_else(|| {
            Problem::invalid(format!(
                "{JSON_LENGTH} is {length}, and the body has {} bytes",
                self.body.len()
            ))
        })?;
        let mut request: Request<'_> = serde_json::from_slice(json)
            .map_err(|error| Problem::invalid(format!("the body is no request: {error}")))?;
        let names = request.inputs.iter().map(|input| input.name.0.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let input =
            request.inputs.pop().filter(|input| request.inputs.is_empty() && input.name.0 == name);
        let input = input.ok_or_else(|| {
            Problem::invalid(format!("the inputs are {names:?}; expected one, called {name}"))
        })?;
        let binary = take_binary(&input, &mut rest)?;
        if !rest.is_empty() {
            let text = format!("{} bytes after the JSON belong to no input", rest.len());
            return Err(Problem::invalid(text));
        }
        let default = request.parameters.remove(BINARY_OUTPUT);
        let mut is_binary = default.as_ref().and_then(Value::as_bool).unwrap_or(false);
        for Requested { name: Text(name), parameters } in &request.outputs {
            if name != IMAGE {
                let text = format!("there is no output {name:?}; expected {IMAGE}");
                return Err(Problem::invalid(text));
            }
            for (name, value) in parameters {
                match value {
                    Value::Bool(value) if name == "binary_data" => is_binary = *value,
                    _ => {
                        let text = format!("the output has no parameter {name}={value}");
                        return Err(Problem::invalid(text));
                    }
                }
            }
        }
        Ok(Parsed { request, input, binary, is_binary })
    }
}

/// The only text of a tensor.
struct Prompt(Option<String>);

impl Sink for Prompt {
    fn number(&mut self, value: f64) -> Result<(), String> {
        Err(format!("it has the number {value}; expected one text"))
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.0.is_some() {
            return Err("it has several texts; expected one".to_owned());
        }
        self.0 = Some(text.to_owned());
        Ok(())
    }
}

/// The prompt in a tensor of one text. As bytes, its length in four bytes stands before it.
fn prompt(input: &Tensor<'_>, binary: Option<&[u8]>) -> Outcome<String> {
    let expected = || Problem::invalid(format!("{PROMPT} has to be one text: BYTES of shape [1]"));
    if input.datatype.0 != "BYTES" || input.shape.iter().any(|side| *side != 1) {
        return Err(expected());
    }
    let Some(bytes) = binary else {
        let mut prompt = Prompt(None);
        input.elements(input.data.ok_or_else(expected)?, &mut prompt)?;
        return prompt.0.ok_or_else(expected);
    };
    let (length, text) = bytes.split_first_chunk::<4>().ok_or_else(expected)?;
    if u32::from_le_bytes(*length) as usize != text.len() {
        return Err(expected());
    }
    String::from_utf8(text.to_vec()).map_err(|_| expected())
}

/// The answer with an output of images.
fn answer(
    model: &str,
    id: Option<Text>,
    images: &[Image],
    (element, has_batch, is_binary): (Element, bool, bool),
    report: Value,
) -> Outcome<Output> {
    let element = match images.first().map(|image| &image.samples) {
        Some(Samples::U8(_)) => Element::U8,
        _ => element,
    };
    let mut shape: Vec<usize> = images
        .first()
        .map(|image| vec![image.height, image.width, image.channels])
        .unwrap_or_default();
    if has_batch {
        shape.insert(0, images.len());
    }
    let mut output = json!({"name": IMAGE, "datatype": element.name(), "shape": shape});
    let mut answer = json!({"model_name": model, "model_version": VERSION});
    if let Some(Text(id)) = id {
        answer["id"] = id.into();
    }
    if let Value::Object(report) = report {
        let said = report.into_iter().filter(|(_, value)| !value.is_null());
        answer["parameters"] = Value::Object(said.collect());
    }
    let json_kind = HeaderValue::from_static("application/json");
    if !is_binary {
        output["data"] = Value::Array(Vec::new());
        answer["outputs"] = json!([output]);
        let mut body = answer.to_string();
        // The numbers stand where the only empty array is that follows `"data":`.
        let place = body.rfind("\"data\":[").map(|at| at + "\"data\":[".len());
        let rest = body.split_off(place.unwrap_or(body.len()));
        put_text(&mut body, images, element);
        body.push_str(&rest);
        return Ok(Output { kind: json_kind, headers: Vec::new(), body: body.into_bytes() });
    }
    let bytes = to_bytes(images, element);
    output["parameters"] = json!({"binary_data_size": bytes.len()});
    answer["outputs"] = json!([output]);
    let mut body = answer.to_string().into_bytes();
    let headers = vec![(JSON_LENGTH, HeaderValue::from(body.len()))];
    body.extend(bytes);
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(Output { kind, headers, body })
}

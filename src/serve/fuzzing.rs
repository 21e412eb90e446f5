//! Requests, up to the network.

use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use hyper::header::HeaderValue;
use serde_json::Value;
use tokio::sync::watch;

use super::body::BodyMemory;
use super::files::format_of;
use super::handler::RequestHandler;
use super::kserve::TensorWork;
use super::metrics::Metrics;
use super::problem::Problem;
use super::settings::{DENOISE, FILE, Settings, UPSCALE};
use super::shared::{Kind, ModelState, Shared};
use super::turns::Turns;
use super::work::{FileWork, Outcome, Output, Step, Work};
use super::worker::each;
use super::{negotiate, openai, query, route};
use crate::fuzzing::{limits, text};
use crate::http::{ConnectionLimits, Connections, Gate, fuzzing::answers};
use crate::media::{Format, still};

/// The largest body.
const MAX_BODY: u64 = 1 << 20;

/// What clients send on one connection to a server with three models. Its workers do all but to run
/// their networks.
pub(crate) fn http(bytes: &[u8]) {
    static SHARED: OnceLock<Arc<Shared>> = OnceLock::new();
    let shared = Arc::clone(SHARED.get_or_init(start));
    let address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    answers(Arc::new(RequestHandler { shared, address }), bytes);
}

/// A server without sockets.
fn start() -> Arc<Shared> {
    let kinds = [
        ("denoise", Kind::Denoise { has_planes: false }),
        ("upscale", Kind::Upscale { scale: 2 }),
        ("generate", Kind::Generate),
    ];
    let model = |(name, kind): (&str, _)| ModelState::new(name.to_owned(), kind, "f32", 4);
    let limits = ConnectionLimits { total: 1, each: 1, local: 1 };
    let shared = Arc::new(Shared {
        models: kinds.map(model).into(),
        has_token: false,
        gate: Gate::new(None),
        max_body: MAX_BODY,
        request_timeout: None,
        memory: BodyMemory::new(4 * MAX_BODY),
        turns: Turns::default(),
        connections: Arc::new(Connections::new(limits)),
        metrics: Metrics::default(),
        started: Instant::now(),
        device: "cpu".to_owned(),
        log: None,
        ready: Mutex::default(),
        failure: Mutex::default(),
        stop: Arc::new(watch::Sender::new(false)),
        active: AtomicUsize::new(0),
        count: AtomicU64::new(0),
    });
    for index in 0..shared.models.len() {
        let shared = Arc::clone(&shared);
        shared.loaded(index);
        thread::spawn(move || {
            if let Some(model) = shared.models.get(index) {
                each(&shared, index, model, |work, _| echo(work).map(Step::Done));
            }
        });
    }
    shared
}

/// The answer to a request, by a network that changes nothing.
fn echo(work: Work) -> Outcome<Output> {
    match work {
        Work::File(work) => echo_file(*work),
        Work::Tensors(work) => work.echo(&limits()).or_else(|_| work.echo_prompt().map(|_| none())),
        Work::Prompt(_) => Ok(none()),
    }
}

fn none() -> Output {
    let kind = HeaderValue::from_static("application/json");
    Output { kind, headers: Vec::new(), body: Vec::new() }
}

fn echo_file(work: FileWork) -> Outcome<Output> {
    let failed = |error: crate::Error| Problem::invalid(error.to_string());
    let own = format_of(&work.bytes)?;
    let image = still::decode(Path::new("the body"), Cursor::new(&work.bytes), &limits());
    let image = image.map_err(failed)?;
    let format = match work.settings.format {
        Some(format) => format,
        None => negotiate::format(work.accept.as_deref(), own)?,
    };
    still::check_format(&image, format).map_err(failed)?;
    let encoded = still::encode_bytes(&image, format, &work.settings.options);
    Ok(Output { body: encoded.map_err(failed)?.0, ..none() })
}

/// A body of the Open Inference Protocol, after two bytes with the length of its JSON, or none
/// where all is JSON.
pub(crate) fn infer(bytes: &[u8]) {
    let Some((length, body)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length));
    let work = TensorWork { body: body.to_vec(), json_length: (length > 0).then_some(length) };
    let _ = work.echo_prompt();
    let Ok(Output { headers, body, .. }) = work.echo(&limits()) else { return };
    let json = headers.first().and_then(|(_, length)| length.to_str().ok()?.parse().ok());
    let json = body.get(..json.unwrap_or(body.len())).unwrap_or_default();
    assert!(serde_json::from_slice::<Value>(json).is_ok(), "{:?}", String::from_utf8_lossy(json));
}

/// A request for images of a prompt.
pub(crate) fn generations(bytes: &[u8]) {
    let _ = openai::Request::parse(bytes).and_then(openai::Request::work);
}

/// The path and the query of a URL, and an `Accept` header, in three lines.
pub(crate) fn query(bytes: &[u8]) {
    let mut lines = text(bytes).splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    if let Some(found) = route::find(line()) {
        let _ = (found.name(), found.methods());
    }
    if let Ok(pairs) = query::of_url(line()) {
        let _ = Settings::of(pairs.clone(), DENOISE, FILE);
        let _ = Settings::of(pairs, UPSCALE, FILE);
    }
    let _ = negotiate::format(Some(line()), Format::Png);
}

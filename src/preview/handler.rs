//! Answers the requests of the page and of programs.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Token;
use super::state::SharedState;
use crate::http::{Answer, Caller, Gate, Handler, Refused, is_addressed_to, text};
use crate::task::SigmaChoice;
use crate::video::{SettingsUpdate, record};

/// Maximum size of a request body in bytes.
const MAX_BODY: usize = 4096;

/// Time limit for receiving it.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// Answers requests.
pub(super) struct RequestHandler {
    state: Arc<SharedState>,
    gate: Gate,
    address: SocketAddr,
    denoises: bool,
}

/// The settings that the page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    sigma: Option<Value>,
    steps: Option<usize>,
    temporal: Option<bool>,
}

impl RequestHandler {
    pub(super) fn new(
        state: Arc<SharedState>,
        token: Option<Token>,
        address: SocketAddr,
        denoises: bool,
    ) -> Self {
        Self { state, gate: Gate::new(token), address, denoises }
    }

    /// Answers a request. All external input is checked here; nothing in it may cause a panic.
    async fn respond(&self, caller: &Caller, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = match received(body).await {
            Ok(body) => body,
            Err((code, problem)) => {
                let answer = text_answer(code, problem);
                return with(answer, header::CONNECTION, HeaderValue::from_static("close"));
            }
        };
        if !is_addressed_to(self.address.ip(), &head) {
            return text_answer(
                StatusCode::FORBIDDEN,
                "this host name is not the preview's; use its address",
            );
        }
        let (path, reads) = (head.uri.path(), matches!(head.method, Method::GET | Method::HEAD));
        // These resources hold no secrets.
        match path {
            "/" if reads => return page(PAGE, "text/html; charset=utf-8"),
            "/page.js" if reads => return page(SCRIPT, "text/javascript; charset=utf-8"),
            "/page.css" if reads => return page(STYLE, "text/css; charset=utf-8"),
            _ => {}
        }
        if let Some(rejection) = self.rejection(caller, &head) {
            return rejection;
        }
        caller.mark_requested();
        match path {
            "/status" if reads => self.status(),
            "/metrics" if reads => self.metrics(),
            "/pair" if reads => self.pair(head.uri.query().unwrap_or_default()).await,
            "/control" if head.method == Method::POST => match self.settings(&head, &body) {
                Ok(settings) => {
                    self.state.request_settings(settings);
                    text_answer(StatusCode::NO_CONTENT, "")
                }
                Err(problem) => text_answer(StatusCode::BAD_REQUEST, problem),
            },
            "/" | "/page.js" | "/page.css" | "/status" | "/metrics" | "/pair" => {
                method_not_allowed("GET, HEAD")
            }
            "/control" => method_not_allowed("POST"),
            _ => text_answer(
                StatusCode::NOT_FOUND,
                "there are /, /status, /metrics, /pair and, to be posted to, /control",
            ),
        }
    }

    fn status(&self) -> Answer {
        let Some(metrics) = self.state.metrics() else { return starting() };
        let mut status = record::of_counters("status", &metrics.counters, metrics.rate);
        record::extend(&mut status, record::of_status(&metrics.stream_status));
        record::extend(&mut status, record::of_latency(&metrics.latency));
        record::extend(&mut status, json!({"denoises": self.denoises}));
        page(status.to_string(), "application/json")
    }

    fn metrics(&self) -> Answer {
        let Some(metrics) = self.state.metrics() else { return starting() };
        page(super::metrics::text(&metrics), "text/plain; version=0.0.4; charset=utf-8")
    }

    /// Waits for a new frame. Frames are encoded once, so that the number of clients does not
    /// affect the run.
    async fn pair(&self, query: &str) -> Answer {
        let after = query.strip_prefix("seen=").and_then(|index| index.parse().ok());
        let Some(pair) = self.state.next(after).await else {
            return text_answer(StatusCode::NO_CONTENT, "");
        };
        match self.state.encode(&pair) {
            Ok(bytes) => {
                let answer = page(bytes, "application/octet-stream");
                with(answer, HeaderName::from_static("x-frame"), HeaderValue::from(pair.index))
            }
            Err(problem) => text_answer(StatusCode::INTERNAL_SERVER_ERROR, problem),
        }
    }

    /// The response to a client without the right token; `None` for a client with it.
    fn rejection(&self, caller: &Caller, head: &Parts) -> Option<Answer> {
        match self.gate.check(caller, head).err()? {
            Refused::Guessing(seconds) => {
                let problem = format!(
                    "too many wrong tokens came from your address; try again in {seconds} s"
                );
                let answer = text_answer(StatusCode::TOO_MANY_REQUESTS, problem);
                Some(with(answer, header::RETRY_AFTER, HeaderValue::from(seconds)))
            }
            Refused::WithoutToken => Some(text_answer(
                StatusCode::UNAUTHORIZED,
                "the preview's token is missing or wrong; open the address that eddy printed",
            )),
        }
    }

    fn settings(&self, head: &Parts, body: &[u8]) -> Result<SettingsUpdate, String> {
        // Pages of other sites can post text without preflight (CORS), but not JSON.
        if !text(head, header::CONTENT_TYPE)
            .is_some_and(|kind| kind.starts_with("application/json"))
        {
            return Err("expected application/json".to_owned());
        }
        let Control { sigma, steps, temporal } =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !self.denoises && (sigma.is_some() || temporal.is_some()) {
            return Err("upscaling has neither sigma nor temporal fusion".to_owned());
        }
        if steps.is_some_and(|steps| !(1..=1000).contains(&steps)) {
            return Err("expected steps from 1 to 1000".to_owned());
        }
        let sigma = match sigma {
            None => None,
            Some(Value::String(auto)) if auto == "auto" => Some(SigmaChoice::Auto),
            Some(value) => match value.as_f64().filter(|sigma| (0.0..=255.0).contains(sigma)) {
                Some(sigma) => Some(SigmaChoice::Known(sigma)),
                None => return Err("expected a sigma from 0 to 255, or \"auto\"".to_owned()),
            },
        };
        Ok(SettingsUpdate { sigma, steps, temporal })
    }
}

impl Handler for RequestHandler {
    fn answer<'a>(
        &'a self,
        caller: &'a Caller,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(self.respond(caller, request))
    }
}

/// The whole body of a request, or the reason why it is rejected.
async fn received(body: Incoming) -> Result<Bytes, (StatusCode, &'static str)> {
    let too_long = (StatusCode::PAYLOAD_TOO_LARGE, "at most 4096 bytes are accepted");
    // Rejects by the declared length, before the body arrives.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_long);
    }
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long),
        Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body of the request is damaged")),
        Err(_) => {
            Err((StatusCode::REQUEST_TIMEOUT, "the body of the request did not arrive in time"))
        }
    }
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

fn page(body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let answer = Response::new(Full::new(body.into()));
    headers
        .into_iter()
        .fold(answer, |answer, (name, value)| with(answer, name, HeaderValue::from_static(value)))
}

fn text_answer(code: StatusCode, problem: impl Into<Bytes>) -> Answer {
    let mut answer = page(problem, "text/plain; charset=utf-8");
    *answer.status_mut() = code;
    answer
}

fn starting() -> Answer {
    text_answer(StatusCode::SERVICE_UNAVAILABLE, "no frame has arrived yet")
}

fn method_not_allowed(methods: &'static str) -> Answer {
    let answer = text_answer(StatusCode::METHOD_NOT_ALLOWED, format!("only {methods} is allowed"));
    with(answer, header::ALLOW, HeaderValue::from_static(methods))
}

//! Answers requests: who may ask, for what, and how long it may take. Nothing in a request may
//! cause a panic here, which would end the server.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::{Hold, receive};
use super::files::format_of;
use super::kserve::{self, JSON_LENGTH, TensorWork};
use super::openai;
use super::problem::{Problem, answer, json_answer};
use super::query;
use super::queue::{Done, Job, Ticket};
use super::record::{CLIENT_LEFT, Record};
use super::route::{Route, find};
use super::settings::{DENOISE, FILE, Settings, UPSCALE};
use super::shared::{Kind, Shared};
use super::work::{FileWork, Outcome, Work};
use super::{metrics, negotiate};
use crate::http::{Answer, Caller, Handler, Refused, is_addressed_to, is_cross_origin, text};

/// Characters of a path that are logged.
const MAX_PATH: usize = 256;

/// Answers the requests that come to one socket.
pub(super) struct RequestHandler {
    pub(super) shared: Arc<Shared>,
    /// The address of the socket; none of a Unix socket.
    pub(super) address: Option<IpAddr>,
}

/// A request that is being answered. When it is dropped before, its client has left.
struct Exchange<'a> {
    shared: &'a Shared,
    endpoint: &'static str,
    record: Record,
    started: Instant,
}

impl<'a> Exchange<'a> {
    fn new(shared: &'a Shared, caller: &Caller, head: &Parts) -> Self {
        shared.active.fetch_add(1, Ordering::Relaxed);
        let record = Record {
            id: shared.count.fetch_add(1, Ordering::Relaxed),
            client: caller.peer.to_string(),
            method: head.method.to_string(),
            path: head.uri.path().chars().take(MAX_PATH).collect(),
            status: CLIENT_LEFT,
            model: None,
            received: 0,
            sent: 0,
            waited: Duration::ZERO,
            ran: Duration::ZERO,
            total: Duration::ZERO,
            error: None,
        };
        Self { shared, endpoint: "none", record, started: Instant::now() }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::Relaxed);
        self.record.total = self.started.elapsed();
        self.shared.metrics.add(self.endpoint, &self.record);
        if let Some(log) = &self.shared.log {
            log(&self.record);
        }
    }
}

/// Stops a request when it is dropped: its client left, its time is over, or it is done.
struct Leaving<'a>(&'a Shared, Arc<Ticket>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.1.stop();
        self.0.purge();
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

impl RequestHandler {
    async fn respond(&self, caller: &Caller, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let mut exchange = Exchange::new(&self.shared, caller, &head);
        let answered = self.dispatch(caller, &head, body, &mut exchange).await;
        let mut answer = answered.unwrap_or_else(|problem| {
            exchange.record.error = Some(problem.text.clone());
            problem.answer()
        });
        if self.shared.is_stopping() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(header::CONNECTION, close);
        }
        exchange.record.status = answer.status().as_u16();
        exchange.record.sent = answer.body().size_hint().lower();
        answer
    }

    async fn dispatch(
        &self,
        caller: &Caller,
        head: &Parts,
        body: Incoming,
        exchange: &mut Exchange<'_>,
    ) -> Outcome<Answer> {
        let shared = &*self.shared;
        self.check_origin(head)?;
        let found = find(head.uri.path());
        exchange.endpoint = found.as_ref().map_or("none", Route::name);
        // These hold no secrets, and load balancers have no token.
        let is_open = matches!(found, Some(Route::Live | Route::Ready));
        if !is_open {
            self.check_token(caller, head)?;
        }
        caller.mark_requested();
        let route = found.ok_or_else(|| Problem::not_found(super::route::KNOWN))?;
        let methods = route.methods();
        if !methods.split(", ").any(|method| head.method.as_str() == method) {
            return Err(Problem::method_not_allowed(methods));
        }
        match route {
            Route::Root => Ok(json_answer(&root())),
            Route::Live => Ok(json_answer(&json!({"live": true}))),
            Route::Ready => ready(shared.is_ready()),
            Route::Server => Ok(json_answer(&kserve::server())),
            Route::Metrics => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                Ok(answer(metrics::text(shared), kind))
            }
            Route::Models => {
                let model = |model: &super::shared::ModelState| json!({"id": model.name, "object": "model", "owned_by": "eddy"});
                let models: Vec<Value> = shared.models.iter().map(model).collect();
                Ok(json_answer(&json!({"object": "list", "data": models})))
            }
            Route::Index => {
                let (body, _hold) =
                    receive(body, openai::MAX_BODY, &shared.memory, || false).await?;
                let wishes: Value = serde_json::from_slice(&body).unwrap_or_default();
                Ok(json_answer(&kserve::index(&shared.models, wishes["ready"] == true)))
            }
            Route::Model(name) => Ok(json_answer(&kserve::model(self.model(&name)?.1))),
            Route::ModelReady(name) => ready(self.model(&name)?.1.is_ready()),
            Route::Infer(name) => {
                let (index, _) = self.model(&name)?;
                self.refuse_encoding(head)?;
                let length = text(head, JSON_LENGTH).map(str::parse).transpose();
                let json_length = length.map_err(|_| {
                    Problem::invalid(format!("{JSON_LENGTH} is no number of bytes"))
                })?;
                let (body, hold) = self.body(index, body, shared.max_body, exchange).await?;
                let work = Work::Tensors(Box::new(TensorWork { body, json_length }));
                self.submit(caller, index, work, hold, exchange).await
            }
            Route::Denoise => self.file(caller, head, body, exchange, DENOISE).await,
            Route::Upscale => self.file(caller, head, body, exchange, UPSCALE).await,
            Route::Generate => self.generate(caller, head, body, exchange).await,
        }
    }

    /// Refuses requests that a browser sends for pages of other sites.
    fn check_origin(&self, head: &Parts) -> Outcome<()> {
        let is_here = self
            .address
            .filter(|_| !self.shared.has_token)
            .is_none_or(|address| is_addressed_to(address, head));
        if !is_here {
            let text = "this name is not the server's; use its address, such as 127.0.0.1, or \
                        start it with a token";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        if is_cross_origin(head) {
            let text = "a page of another site sent this request; send it from a program, or from \
                        a page of the same origin";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        Ok(())
    }

    fn check_token(&self, caller: &Caller, head: &Parts) -> Outcome<()> {
        self.shared.gate.check(caller, head).map_err(|refused| match refused {
            Refused::Guessing(seconds) => Problem::retry(
                StatusCode::TOO_MANY_REQUESTS,
                format!("too many wrong tokens came from your address; try again in {seconds} s"),
                seconds,
            ),
            Refused::WithoutToken => Problem::unauthorized(
                "the token is missing or wrong; send it as a header: Authorization: Bearer TOKEN",
            ),
        })
    }

    /// A model by its name and version in a path.
    fn model(&self, name: &super::route::Name) -> Outcome<(usize, &super::shared::ModelState)> {
        if name.version.as_deref().is_some_and(|version| version != kserve::VERSION) {
            let text = format!("{} has the one version {}", name.name, kserve::VERSION);
            return Err(Problem::not_found(text));
        }
        let index = self.shared.model(&name.name)?;
        let model = self.shared.models.get(index);
        Ok((index, model.ok_or_else(|| Problem::not_found("the model is not loaded"))?))
    }

    /// Denoises or enlarges an image file.
    async fn file(
        &self,
        caller: &Caller,
        head: &Parts,
        body: Incoming,
        exchange: &mut Exchange<'_>,
        names: &'static [&'static str],
    ) -> Outcome<Answer> {
        let shared = &*self.shared;
        let pairs = query::of_url(head.uri.query().unwrap_or_default())?;
        let settings = Settings::of(pairs, names, FILE)?;
        self.refuse_encoding(head)?;
        let accept = text(head, header::ACCEPT).map(str::to_owned);
        if settings.format.is_none() {
            // A format that is none of ours is refused before the image comes.
            negotiate::format(accept.as_deref(), crate::media::Format::Png)?;
        }
        let (index, for_camera_noise) = self.choose(&settings, names == UPSCALE)?;
        let (bytes, hold) = self.body(index, body, shared.max_body, exchange).await?;
        format_of(&bytes)?;
        let work = FileWork { bytes, settings, accept, for_camera_noise, decoded: None };
        self.submit(caller, index, Work::File(Box::new(work)), hold, exchange).await
    }

    /// The model for an image file, and the one for camera noise if the noise decides.
    fn choose(&self, settings: &Settings, enlarges: bool) -> Outcome<(usize, Option<usize>)> {
        let shared = &*self.shared;
        if let Some(name) = &settings.model {
            let index = shared.model(name)?;
            let kind = shared.models.get(index).map(|model| model.kind);
            let suits = match kind {
                Some(Kind::Denoise { .. }) => !enlarges,
                Some(Kind::Upscale { scale }) => {
                    enlarges && settings.scale.is_none_or(|wish| wish == scale)
                }
                _ => false,
            };
            let text = format!("the model {name} does not do that; see /v2/models/{name}");
            return if suits { Ok((index, None)) } else { Err(Problem::invalid(text)) };
        }
        if enlarges {
            let wish = settings.scale;
            let scales: Vec<String> =
                shared.models.iter().filter_map(|it| Some(it.scale()?.to_string())).collect();
            let index = shared.first(|model| {
                model.scale().is_some_and(|scale| wish.is_none_or(|wish| wish == scale))
            });
            let text = match (wish, scales.as_slice()) {
                (Some(wish), [_, ..]) => {
                    format!(
                        "no model enlarges {wish} times; there are those of {}",
                        scales.join(", ")
                    )
                }
                _ => "no model that enlarges is loaded; start the server with -m upscale-x2".into(),
            };
            return Ok((index.ok_or_else(|| Problem::not_found(text))?, None));
        }
        let of =
            |planes: bool| shared.first(|model| model.kind == Kind::Denoise { has_planes: planes });
        match (of(false), of(true)) {
            (Some(white), camera) => Ok((white, camera)),
            (None, Some(camera)) => Ok((camera, None)),
            (None, None) => {
                let text = "no denoiser is loaded; start the server with -m denoise-fast";
                Err(Problem::not_found(text))
            }
        }
    }

    /// Generates images of a prompt.
    async fn generate(
        &self,
        caller: &Caller,
        head: &Parts,
        body: Incoming,
        exchange: &mut Exchange<'_>,
    ) -> Outcome<Answer> {
        let shared = &*self.shared;
        let Some(first) = shared.first(|model| model.kind == Kind::Generate) else {
            let text = "no text-to-image model is loaded; start the server with -m FOLDER, a \
                        folder in the diffusers layout";
            return Err(Problem::not_found(text));
        };
        self.refuse_encoding(head)?;
        // Pages of other sites can post text without preflight (CORS), but not JSON.
        let kind = text(head, header::CONTENT_TYPE).unwrap_or_default();
        if !kind.starts_with("application/json") {
            let text = format!("the content type is {kind:?}; expected application/json");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let most = openai::MAX_BODY.min(shared.max_body);
        let (bytes, hold) = self.body(first, body, most, exchange).await?;
        let request = openai::Request::parse(&bytes)?;
        let index = request.model.as_deref().map_or(Ok(first), |name| shared.model(name))?;
        if shared.models.get(index).is_none_or(|model| model.kind != Kind::Generate) {
            return Err(Problem::invalid("that model makes no images of a text"));
        }
        let work = Work::Prompt(Box::new(request.work()?));
        self.submit(caller, index, work, hold, exchange).await
    }

    /// Refuses compressed bodies: a small one may grow without limit.
    fn refuse_encoding(&self, head: &Parts) -> Outcome<()> {
        match text(head, header::CONTENT_ENCODING) {
            None | Some("identity") => Ok(()),
            Some(encoding) => {
                let text = format!("the body is encoded by {encoding:?}; send it as it is");
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
            }
        }
    }

    /// The body of a request for a model, unless the model takes no further requests.
    async fn body(
        &self,
        index: usize,
        body: Incoming,
        most: u64,
        exchange: &mut Exchange<'_>,
    ) -> Outcome<(Vec<u8>, Hold)> {
        let shared = &*self.shared;
        if shared.is_stopping() {
            return Err(Problem::stopping());
        }
        if let Some(model) = shared.models.get(index)
            && model.queue.seconds_if_full().is_some()
        {
            return Err(shared.full(model));
        }
        let (bytes, hold) = receive(body, most, &shared.memory, || shared.is_stopping()).await?;
        exchange.record.received = bytes.len() as u64;
        Ok((bytes, hold))
    }

    /// Waits for the result of a request.
    async fn submit(
        &self,
        caller: &Caller,
        index: usize,
        work: Work,
        hold: Hold,
        exchange: &mut Exchange<'_>,
    ) -> Outcome<Answer> {
        let shared = &*self.shared;
        let Some(model) = shared.models.get(index) else {
            return Err(Problem::not_found("the model is not loaded"));
        };
        exchange.record.model = Some(model.name.clone());
        let (reply, result) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let leaving = Leaving(shared, Arc::clone(&ticket));
        let job = Job { work, ticket: Arc::clone(&ticket), reply, queued: Instant::now(), hold };
        model.queue.push(job).map_err(|_| shared.full(model))?;
        let kept = caller.keep();
        let done = match shared.request_timeout {
            None => result.await,
            Some(limit) => match timeout(limit, result).await {
                Ok(done) => done,
                Err(_) => return Err(late(limit, &ticket)),
            },
        };
        drop((kept, leaving));
        // The sender is dropped when the server shuts down.
        let Done { result, model, waited, ran } = done.map_err(|_| Problem::stopping())?;
        exchange.record.model = shared.models.get(model).map(|model| model.name.clone());
        (exchange.record.waited, exchange.record.ran) = (waited, ran);
        let output = result?;
        let mut answer = answer(shared.memory.keep(output.body), output.kind);
        answer.headers_mut().extend(output.headers);
        Ok(answer)
    }
}

/// Why a request was not answered in time.
fn late(limit: Duration, ticket: &Ticket) -> Problem {
    let seconds = limit.as_secs_f64();
    if ticket.is_started() {
        let text = format!(
            "the model took longer than {seconds} s (--request-timeout), waiting included; send a \
             smaller image or ask for fewer steps"
        );
        return Problem::new(StatusCode::GATEWAY_TIMEOUT, text);
    }
    let text = format!(
        "the request waited longer than {seconds} s (--request-timeout) for others; try again later"
    );
    Problem::retry(StatusCode::SERVICE_UNAVAILABLE, text, seconds.ceil() as u64)
}

fn ready(is_ready: bool) -> Outcome<Answer> {
    if is_ready {
        return Ok(json_answer(&json!({"ready": true})));
    }
    let text = "it is not ready: models are being loaded, or the server is shutting down";
    Err(Problem::retry(StatusCode::SERVICE_UNAVAILABLE, text, 1))
}

fn root() -> Value {
    let mut root = kserve::server();
    root["endpoints"] = super::route::ENDPOINTS.into();
    root
}

//! From the body of a request to the result of a model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header;
use hyper::http::request::Parts;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::body::{Hold, receive};
use super::exchange::{Exchange, Leaving};
use super::files::format_of;
use super::handler::RequestHandler;
use super::problem::{Problem, answer};
use super::queue::{Done, Job, Ticket};
use super::settings::{FILE, Settings, UPSCALE};
use super::shared::Kind;
use super::work::{FileWork, Outcome, Work};
use super::{negotiate, openai, query};
use crate::http::{Answer, Caller, text};

impl RequestHandler {
    /// Denoises or enlarges an image file.
    pub(super) async fn file(
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
                    enlarges && settings.scale.is_none_or(|it| it == scale)
                }
                _ => false,
            };
            let text = format!("the model {name} does not do that; see /v2/models/{name}");
            return if suits { Ok((index, None)) } else { Err(Problem::invalid(text)) };
        }
        if enlarges {
            let requested = settings.scale;
            let scales: Vec<String> =
                shared.models.iter().filter_map(|it| Some(it.scale()?.to_string())).collect();
            let index = shared.first(|model| {
                model.scale().is_some_and(|scale| requested.is_none_or(|it| it == scale))
            });
            let text = match (requested, scales.as_slice()) {
                (Some(requested), [_, ..]) => {
                    format!(
                        "no model enlarges {requested} times; there are those of {}",
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
    pub(super) async fn generate(
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
    pub(super) fn refuse_encoding(&self, head: &Parts) -> Outcome<()> {
        match text(head, header::CONTENT_ENCODING) {
            None | Some("identity") => Ok(()),
            Some(encoding) => {
                let text = format!("the body is encoded by {encoding:?}; send it as it is");
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
            }
        }
    }

    /// The body of a request for a model, unless the model takes no further requests.
    pub(super) async fn body(
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
    pub(super) async fn submit(
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

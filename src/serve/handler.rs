//! Answers requests: who may ask, for what, and how long it may take. Nothing in a request may
//! cause a panic here, which would end the server.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use super::body::receive;
use super::exchange::Exchange;
use super::kserve::{self, JSON_LENGTH, TensorWork};
use super::problem::{Problem, answer, json_answer};
use super::route::{self, Name, Route, find};
use super::settings::{DENOISE, UPSCALE};
use super::shared::{ModelState, Shared};
use super::work::{Outcome, Work};
use super::{metrics, openai};
use crate::http::{Answer, Caller, Handler, Refused, is_addressed_to, is_cross_origin, text};

/// Answers the requests that come to one socket.
pub(super) struct RequestHandler {
    pub(super) shared: Arc<Shared>,
    /// The address of the socket; none of a Unix socket.
    pub(super) address: Option<IpAddr>,
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
        let found = found.ok_or_else(|| Problem::not_found(route::KNOWN))?;
        let methods = found.methods();
        if !methods.split(", ").any(|method| head.method.as_str() == method) {
            return Err(Problem::method_not_allowed(methods));
        }
        match found {
            Route::Root => Ok(json_answer(&root())),
            Route::Live => Ok(json_answer(&json!({"live": true}))),
            Route::Ready => self.ready(shared.is_ready()),
            Route::Server => Ok(json_answer(&kserve::server())),
            Route::Metrics => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                Ok(answer(metrics::text(shared), kind))
            }
            Route::Models => {
                let model = |model: &ModelState| json!({"id": model.name, "object": "model", "owned_by": "eddy"});
                let models: Vec<Value> = shared.models.iter().map(model).collect();
                Ok(json_answer(&json!({"object": "list", "data": models})))
            }
            Route::Index => {
                let (body, _hold) =
                    receive(body, openai::MAX_BODY, &shared.memory, || false).await?;
                Ok(json_answer(&kserve::index(&shared.models, &body)))
            }
            Route::Model(name) => Ok(json_answer(&kserve::model(self.model(&name)?.1))),
            Route::ModelReady(name) => self.ready(self.model(&name)?.1.is_ready()),
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
    fn model(&self, name: &Name) -> Outcome<(usize, &ModelState)> {
        if name.version.as_deref().is_some_and(|version| version != kserve::VERSION) {
            let text = format!("{} has the one version {}", name.name, kserve::VERSION);
            return Err(Problem::not_found(text));
        }
        let index = self.shared.model(&name.name)?;
        let model = self.shared.models.get(index);
        Ok((index, model.ok_or_else(|| Problem::not_found("the model is not loaded"))?))
    }

    fn ready(&self, is_ready: bool) -> Outcome<Answer> {
        if is_ready {
            return Ok(json_answer(&json!({"ready": true})));
        }
        if self.shared.is_stopping() {
            return Err(Problem::stopping());
        }
        let loading = self.shared.models.iter().filter(|model| !model.is_ready());
        let names: Vec<&str> = loading.map(|model| model.name.as_str()).collect();
        let text = format!("it is not ready yet: {} is being loaded", names.join(", "));
        Err(Problem::retry(StatusCode::SERVICE_UNAVAILABLE, text, 1))
    }
}

fn root() -> Value {
    let mut root = kserve::server();
    root["endpoints"] = route::ENDPOINTS.into();
    root
}

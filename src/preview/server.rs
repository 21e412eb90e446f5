//! The page and what it asks for, over HTTP.

use std::io::{Cursor, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use serde::Deserialize;
use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use super::board::{Board, Pen};
use super::{Address, Token, metrics};
use crate::error::{Error, Result};
use crate::frame::stream::{Picture, Video};
use crate::task::SigmaChoice;
use crate::video::{Running, Wishes, record};

/// So many wait for pictures, or anything else, at the same time.
const THREADS: usize = 4;

/// What is asked for is no longer than this.
const LONGEST: u64 = 4096;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");
const STYLE: &str = include_str!("page.css");

/// A live view that is being served. It ends when it is dropped.
pub struct Preview {
    server: Arc<Server>,
    board: Arc<Board>,
    pen: Pen,
    url: String,
}

impl Preview {
    /// Serves a view of pictures that are as `before` describes them and become what `after` describes. `denoises` says whether
    /// their noise is known and pictures before may be drawn on. An address that is not for this machine alone wants a token.
    ///
    /// # Errors
    /// [`Error::Usage`] when it cannot be served there.
    pub fn serve(
        Address(address): Address,
        token: Option<Token>,
        before: &Video,
        after: &Video,
        denoises: bool,
    ) -> Result<Self> {
        let is_local = address.ip().is_loopback();
        if !is_local && token.is_none() {
            return Err(Error::usage(format!("a preview at {address} can be seen from elsewhere and needs a token")));
        }
        let server = Server::http(address).map_err(|error| {
            Error::usage(format!(
                "the preview cannot be served at {address} ({error}); choose another --preview=ADDRESS:PORT"
            ))
        })?;
        let server = Arc::new(server);
        let address = server.server_addr().to_ip().unwrap_or(address);
        let fragment = token.as_ref().map_or(String::new(), |Token(token)| format!("#token={token}"));
        let url = format!("http://{address}/{fragment}");
        let board = Arc::new(Board::new(before.clone(), after.clone()));
        let desk = Arc::new(Desk { board: Arc::clone(&board), token, address, denoises });
        for _ in 0..THREADS {
            let (server, desk) = (Arc::clone(&server), Arc::clone(&desk));
            let body = move || {
                while let Ok(request) = server.recv() {
                    desk.answer(request);
                }
            };
            let spawned = thread::Builder::new().name("preview".to_owned()).spawn(body);
            spawned.map_err(|error| Error::usage(format!("the preview gets no thread ({error})")))?;
        }
        Ok(Self { server, board, pen: Pen::new(), url })
    }

    /// Where it is to be seen, with its token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Tells how far the run has come.
    pub fn look(&mut self, running: &Running<'_>) {
        self.pen.write(&self.board, running);
    }

    /// Shows a picture to whoever waits for one.
    pub fn show(&self, before: &Picture, after: &Picture) {
        self.board.show(before, after);
    }

    /// What is wished for since this was last asked.
    pub fn wishes(&self) -> Option<Wishes> {
        self.board.take_wishes()
    }
}

impl Drop for Preview {
    fn drop(&mut self) {
        // A thread may still wait for a picture, for two seconds; the process need not.
        for _ in 0..THREADS {
            self.server.unblock();
        }
    }
}

/// Who answers.
struct Desk {
    board: Arc<Board>,
    token: Option<Token>,
    address: SocketAddr,
    denoises: bool,
}

type Answer = Response<Cursor<Vec<u8>>>;

/// What the page sends to change something.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    sigma: Option<Value>,
    steps: Option<usize>,
    temporal: Option<bool>,
}

impl Desk {
    fn answer(&self, mut request: Request) {
        let answer = self.find(&mut request).unwrap_or_else(|(code, problem)| said(code, problem));
        // Whoever asked may be gone.
        let _ = request.respond(answer);
    }

    fn find(&self, request: &mut Request) -> std::result::Result<Answer, (u16, String)> {
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        if !self.is_meant(request) {
            return Err((403, "this name is not the preview's; use its address".to_owned()));
        }
        match (request.method(), path) {
            // These hold nothing that is secret.
            (Method::Get | Method::Head, "/") => return Ok(page(PAGE, "text/html; charset=utf-8")),
            (Method::Get | Method::Head, "/page.js") => return Ok(page(SCRIPT, "text/javascript; charset=utf-8")),
            (Method::Get | Method::Head, "/page.css") => return Ok(page(STYLE, "text/css; charset=utf-8")),
            _ => {}
        }
        if !self.is_allowed(request) {
            return Err((
                401,
                "the preview's token is missing or wrong; open the address that eddy printed".to_owned(),
            ));
        }
        let starting = || (503, "no picture has come yet".to_owned());
        match (request.method(), path) {
            (Method::Get, "/status") => {
                let figures = self.board.figures().ok_or_else(starting)?;
                let mut status = record::of_tally("status", &figures.tally, figures.rate);
                record::extend(&mut status, record::of_treatment(&figures.treatment));
                record::extend(&mut status, record::of_latency(&figures.latency));
                record::extend(&mut status, json!({"denoises": self.denoises}));
                Ok(page(&status.to_string(), "application/json"))
            }
            (Method::Get, "/metrics") => {
                let figures = self.board.figures().ok_or_else(starting)?;
                Ok(page(&metrics::text(&figures), "text/plain; version=0.0.4; charset=utf-8"))
            }
            (Method::Get, "/pair") => {
                let seen = query.strip_prefix("seen=").and_then(|seen| seen.parse().ok());
                let Some(pair) = self.board.next(seen) else {
                    return Err((204, String::new()));
                };
                let bytes = self.board.encode(&pair).map_err(|error| (500, error.to_string()))?;
                let answer = with(Response::from_data(bytes), "Content-Type", "application/octet-stream");
                Ok(with(answer, "X-Picture", &pair.index.to_string()))
            }
            (Method::Post, "/control") => {
                self.board.wish(self.wishes(request).map_err(|problem| (400, problem))?);
                Err((204, String::new()))
            }
            _ => Err((404, "there are /, /status, /metrics, /pair and, to be posted to, /control".to_owned())),
        }
    }

    /// Whether a request was meant for this, and not sent by a page from elsewhere under a name that leads here.
    fn is_meant(&self, request: &Request) -> bool {
        if !self.address.ip().is_loopback() {
            // The token says so.
            return true;
        }
        let host = header(request, "Host").unwrap_or_default();
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        ["localhost", "127.0.0.1", "[::1]"].contains(&name.map_or(host, |(name, _)| name))
            || name.is_some_and(|(name, _)| name == self.address.ip().to_string())
    }

    fn is_allowed(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        header(request, "Authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|given| token.is(given))
    }

    fn wishes(&self, request: &mut Request) -> std::result::Result<Wishes, String> {
        // A page from elsewhere can post text without asking, and JSON not.
        if !header(request, "Content-Type").is_some_and(|kind| kind.starts_with("application/json")) {
            return Err("expected application/json".to_owned());
        }
        let mut text = String::new();
        request.as_reader().take(LONGEST).read_to_string(&mut text).map_err(|error| error.to_string())?;
        let Control { sigma, steps, temporal } = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if !self.denoises && (sigma.is_some() || temporal.is_some()) {
            return Err("enlarging knows no sigma and no pictures before".to_owned());
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
        Ok(Wishes { sigma, steps, temporal })
    }
}

fn header<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    let found = request.headers().iter().find(|header| header.field.equiv(name));
    found.map(|header| header.value.as_str())
}

fn with(answer: Answer, name: &str, value: &str) -> Answer {
    match Header::from_bytes(name, value) {
        Ok(header) => answer.with_header(header),
        // Never, of what is given above.
        Err(()) => answer,
    }
}

fn page(text: &str, kind: &str) -> Answer {
    let answer = with(Response::from_data(text.as_bytes()), "Content-Type", kind);
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let answer = with(answer, "Content-Security-Policy", policy);
    let answer = with(answer, "X-Content-Type-Options", "nosniff");
    let answer = with(answer, "Referrer-Policy", "no-referrer");
    with(answer, "Cache-Control", "no-store")
}

fn said(code: u16, problem: String) -> Answer {
    page(&problem, "text/plain; charset=utf-8").with_status_code(code)
}

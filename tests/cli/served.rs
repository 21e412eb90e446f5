//! A server that tests talk to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::preview::Answer;
use crate::common::eddy;
use crate::common::place::Place;

/// Longer than any machine needs for the awaited events.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `eddy serve`.
pub(super) struct Server {
    pub(super) child: Child,
    /// The address of its first socket.
    pub(super) address: String,
    said: Arc<Mutex<Vec<String>>>,
    pub(super) place: Place,
}

impl Server {
    /// Serves with these arguments, and waits until it is ready.
    pub(super) fn new(arguments: &str) -> Self {
        let place = Place::new();
        let command = eddy(&format!("serve -l 127.0.0.1:0 {arguments}")).within(&place).command();
        Self::of(command, place)
    }

    pub(super) fn of(mut command: Command, place: Place) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::<String>::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&said);
        std::thread::spawn(move || lines.for_each(|line| kept.lock().unwrap().push(line.unwrap())));
        let mut server = Self { child, address: String::new(), said, place };
        wait_until("the start", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {:?}", server.said());
            server.said().iter().any(|line| line.starts_with("ready: "))
        });
        let line = server.said().remove(0);
        let url = line.strip_prefix("listens at ").unwrap();
        server.address = url.strip_prefix("http://").unwrap_or(url).to_owned();
        server
    }

    /// The lines that it printed.
    pub(super) fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// The records of its log.
    pub(super) fn records(&self) -> Vec<Value> {
        self.said().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Sends a request, and returns the connection.
    pub(super) fn send(&self, request: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let host = if headers.contains("Host:") { "" } else { "Host: localhost\r\n" };
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A request that is refused is not read to its end.
        let _ = stream.write_all(body);
        stream
    }

    pub(super) fn ask(&self, request: &str, headers: &str, body: &[u8]) -> Answer {
        answer(self.send(request, headers, body))
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", b"")
    }

    /// Checks that a request is refused with a message.
    pub(super) fn refuses(
        &self,
        request: &str,
        headers: &str,
        body: &[u8],
        code: u16,
        words: &str,
    ) {
        let answer = self.ask(request, headers, body);
        assert_eq!(answer.code, code, "{request}: {}", answer.text());
        let error: Value = serde_json::from_slice(&answer.body).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(error.contains(words), "{request}: {error}");
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(super) fn end(&mut self) -> ExitStatus {
        wait_until("the end", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer until the connection is closed.
pub(super) fn answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Answer::read(&bytes).unwrap()
}

/// The value of a header.
pub(super) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

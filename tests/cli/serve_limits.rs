//! `eddy serve` under load, with clients that misbehave, and at its end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::served::{Server, answer, header, wait_until};
use crate::common::eddy;
use crate::common::images::{encoded, noisy};
use crate::common::place::Place;

/// An image that takes a while.
fn large() -> Vec<u8> {
    encoded(&noisy(768, 768, 3, 8), "png")
}

fn small() -> Vec<u8> {
    encoded(&noisy(24, 16, 3, 8), "png")
}

#[test]
fn refuses_what_it_cannot_answer() {
    let server = Server::new("-m denoise-fast --max-body 100K --max-image 1M");
    let png = small();
    let denoise = "POST /v1/denoise";
    for (request, headers, body, code, words) in [
        ("GET /nowhere", "", &b""[..], 404, "GET / lists"),
        ("GET /v1/denoise", "", b"", 405, "POST, PUT"),
        ("DELETE /v2", "", b"", 405, "GET, HEAD"),
        ("POST /v2/models/camera/infer", "", b"{}", 404, "there are denoise-fast"),
        ("GET /v2/models/denoise-fast/versions/2", "", b"", 404, "the one version 1"),
        (denoise, "", b"", 415, "the body is empty"),
        (denoise, "", b"GIF89a-and-more", 415, "PNG"),
        (denoise, "", &png[..100], 422, "cut off"),
        (denoise, "Content-Encoding: gzip\r\n", &png, 415, "gzip"),
        ("POST /v1/denoise?sigma=loud", "", &png, 400, "expected auto"),
        ("POST /v1/denoise?sigma=%zz", "", &png, 400, "hexadecimal"),
        ("POST /v1/denoise?volume=3", "", &png, 400, "there are sigma"),
        ("POST /v1/denoise?model=none", "", &png, 404, "there are denoise-fast"),
        ("POST /v1/upscale", "", &png, 404, "no model that enlarges"),
        (denoise, "", &vec![0; 100 << 10 | 1], 413, "--max-body"),
    ] {
        server.refuses(request, headers, body, code, words);
    }
    // A small file of a large image.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xc0, 0, 0, 0, 0xc0, 0]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    server.refuses(denoise, "", &bomb, 422, "at most 65535 pixels a side and 1 MiB");
    assert_eq!(server.ask(denoise, "", &png).code, 200);
}

/// The checksum of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn refuses_malformed_inferences() {
    let server = Server::new("-m denoise-fast");
    let infer = "POST /v2/models/denoise-fast/infer";
    let input = json!({"name": "image", "shape": [1, 1, 1], "datatype": "UINT8", "data": [1]});
    let bytes = json!({"name": "image", "shape": [1, 1, 1], "datatype": "UINT8",
        "parameters": {"binary_data_size": 9}});
    for (headers, body, words) in [
        ("", "{".to_owned(), "no request"),
        ("", "{}".to_owned(), "missing field `inputs`"),
        ("", json!({"inputs": []}).to_string(), "expected one, called image"),
        ("", json!({"inputs": [input, input]}).to_string(), "expected one, called image"),
        ("", json!({"inputs": [bytes]}).to_string(), "0 bytes follow"),
        ("", json!({"inputs": [input], "outputs": [{"name": "x"}]}).to_string(), "no output"),
        ("", json!({"inputs": [input], "parameters": {"x": 1}}).to_string(), "not known"),
        (
            "",
            json!({"inputs": [input], "parameters": {"sigma": []}}).to_string(),
            "the parameter sigma: invalid type",
        ),
        ("Inference-Header-Content-Length: 99999\r\n", "{}".to_owned(), "the body has 2 bytes"),
        ("Inference-Header-Content-Length: -1\r\n", "{}".to_owned(), "no number of bytes"),
        ("Inference-Header-Content-Length: 2\r\n", "{}x".to_owned(), "missing field"),
        ("", format!("{{\"inputs\":{}", "[".repeat(100_000)), "no request"),
        // What would take tens of times its size as values.
        ("", format!(r#"{{"parameters":{{"x":[{}0]}}}}"#, "0,".repeat(4 << 20)), "parameter x"),
        ("", format!(r#"{{"outputs":[{}0]}}"#, "{},".repeat(2 << 20)), "missing field `name`"),
        ("", format!(r#"{{"other":[{}0]}}"#, "[],".repeat(2 << 20)), "missing field `inputs`"),
    ] {
        server.refuses(infer, headers, body.as_bytes(), 400, words);
    }
}

#[test]
fn other_machines_need_the_token() {
    let place = Place::new();
    place.file("token", "a-long-token\n");
    let run = eddy("serve -l 0.0.0.0:0 -m denoise-fast --token-file token").within(&place);
    let mut server = Server::of(run.command(), place);
    server.address = server.address.replace("0.0.0.0", "127.0.0.1");
    let with = |token: &str| {
        let headers = format!("Host: any.example\r\nAuthorization: {token}\r\n");
        server.ask("GET /v2", &headers, b"").code
    };
    assert_eq!(server.get("/v2/health/live").code, 200);
    server.refuses("GET /v2", "", b"", 401, "Authorization: Bearer");
    server.refuses("POST /v1/denoise", "", &small(), 401, "Authorization: Bearer");
    assert_eq!((with("Bearer a-long-token"), with("bearer a-long-token")), (200, 200));
    for guess in 0..5 {
        assert_eq!(with(&format!("Bearer a-long-toke{guess}")), 401);
    }
    server.refuses("GET /v2", "Authorization: Bearer a-long-token\r\n", b"", 429, "wrong tokens");
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = Server::new("-m denoise-fast");
    let png = small();
    for headers in [
        "Host: evil.example\r\n",
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
    ] {
        server.refuses("POST /v1/denoise", headers, &png, 403, "");
    }
    assert_eq!(server.ask("POST /v1/denoise", "Origin: http://localhost\r\n", &png).code, 200);
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let server = Server::new("-m denoise-fast --queue 2");
    let body = large();
    let streams: Vec<_> = (0..12).map(|_| server.send("POST /v1/denoise", "", &body)).collect();
    let answers: Vec<_> = streams.into_iter().map(answer).collect();
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|it| it.code == 200);
    assert!(done.len() >= 2 && !refused.is_empty(), "{} are done", done.len());
    for answer in refused {
        assert_eq!(answer.code, 429, "{}", answer.text());
        let seconds: u64 = header(answer, "Retry-After").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds) && answer.text().contains("try again in"));
    }
    assert_eq!(server.ask("POST /v1/denoise", "", &small()).code, 200);
}

#[test]
fn requests_end_at_their_deadline() {
    let server = Server::new("-m denoise-fast -t 256 --request-timeout 0.2");
    let body = large();
    let first = server.send("POST /v1/denoise?steps=50", "", &body);
    wait_until("the start", || {
        server.get("/metrics").text().contains("eddy_requests_running{model=\"denoise-fast\"} 1")
    });
    let second = answer(server.send("POST /v1/denoise?steps=50", "", &body));
    let first = answer(first);
    assert_eq!(first.code, 504, "{}", first.text());
    assert!([503, 504].contains(&second.code), "{}", second.text());
    // The model is free again, although the requests would take far longer.
    let begun = Instant::now();
    wait_until("an answer", || server.ask("POST /v1/denoise", "", &small()).code == 200);
    assert!(begun.elapsed() < Duration::from_secs(20), "the request went on");
}

#[test]
fn stops_requests_whose_client_left() {
    let server = Server::new("-m denoise-fast -t 256 --log json");
    let streams: Vec<_> =
        (0..3).map(|_| server.send("POST /v1/denoise?steps=200", "", &large())).collect();
    wait_until("the queue", || {
        server.get("/metrics").text().contains("eddy_requests_waiting{model=\"denoise-fast\"} 2")
    });
    for stream in streams {
        stream.shutdown(Shutdown::Both).unwrap();
    }
    let begun = Instant::now();
    assert_eq!(server.ask("POST /v1/denoise", "", &small()).code, 200);
    assert!(begun.elapsed() < Duration::from_secs(20), "the requests went on");
    wait_until("the log", || server.records().len() >= 4);
    let left: Vec<_> = server.records().into_iter().filter(|it| it["status"] == 499).collect();
    assert_eq!(left.len(), 3);
    assert_eq!(
        (&left[0]["path"], &left[0]["model"]),
        (&json!("/v1/denoise"), &json!("denoise-fast"))
    );
}

#[test]
fn finishes_what_runs_and_refuses_the_rest_when_stopped() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::new("-m denoise-fast --grace 120");
        let body = large();
        let streams: Vec<_> = (0..3).map(|_| server.send("POST /v1/denoise", "", &body)).collect();
        // Two may wait before the first is taken, while the third is still being sent.
        wait_until("the queue", || {
            let metrics = server.get("/metrics");
            let metrics = metrics.text();
            metrics.contains("eddy_requests_waiting{model=\"denoise-fast\"} 2")
                && metrics.contains("eddy_requests_running{model=\"denoise-fast\"} 1")
        });
        server.signal(signal);
        wait_until("the stop", || server.said().iter().any(|line| line.starts_with("stopping")));
        server.refuses("POST /v1/denoise", "", &body, 503, "shutting down");
        server.refuses("GET /v2/health/ready", "", b"", 503, "the server is shutting down;");
        assert_eq!(server.get("/v2/health/live").code, 200);
        for stream in streams {
            let answer = answer(stream);
            assert_eq!(answer.code, 200, "{}", answer.text());
        }
        assert_eq!(server.end().code(), Some(0), "{:?}", server.said());
    }
}

#[test]
fn cuts_off_what_exceeds_the_grace() {
    let mut server = Server::new("-m denoise-fast -t 256 --grace 0.2");
    let stream = server.send("POST /v1/denoise?steps=1000", "", &large());
    wait_until("the start", || {
        server.get("/metrics").text().contains("eddy_requests_running{model=\"denoise-fast\"} 1")
    });
    server.signal(Signal::TERM);
    let answer = answer(stream);
    assert_eq!(answer.code, 503, "{}", answer.text());
    assert_eq!(server.end().code(), Some(0));
    assert!(server.said().iter().any(|line| line == "stopped; 1 request was cut off"));
}

#[test]
fn bodies_without_end_are_refused() {
    let server = Server::new("-m denoise-fast --max-body 1M");
    let head = "POST /v1/denoise HTTP/1.1\r\nHost: localhost\r\n";
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let chunk = format!("8000\r\n{:32768}\r\n", "");
    let sent = (0..100_000).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 100_000, "a body without end was taken");
    // A declared size is refused before the body comes.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(format!("{head}Content-Length: 9999999999999\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = [0; 12];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"HTTP/1.1 413");
    assert!(server.get("/metrics").text().contains("eddy_body_bytes 0\n"));
}

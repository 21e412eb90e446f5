//! `eddy serve`: results equal those of the commands.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use eddy::media::still::{self, Limits};
use eddy::media::{Image, Samples};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::preview::Answer;
use super::served::{Server, answer, header};
use crate::common::images::{encoded, noisy};
use crate::common::place::{Place, data};
use crate::common::{BINARY, eddy};

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.code, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn image_files_equal_those_of_the_commands() {
    let server = Server::new("");
    let place = &server.place;
    place.file("white.png", fs::read(data("noisy-chelsea.png")).unwrap());
    // Noise through a codec.
    eddy("denoise white.png -o camera.jpg --sigma 0").within(place).succeeds();
    for (command, file, options, query) in [
        ("denoise", "white.png", "", ""),
        ("denoise", "camera.jpg", "", ""),
        (
            "denoise",
            "white.png",
            "-m camera --sigma 12,5 --strength 0.5",
            "model=camera&sigma=12%2C5&strength=0.5",
        ),
        (
            "denoise",
            "white.png",
            "-f webp --sigma 20 --steps 2 --eta 1 --seed 7",
            "format=webp&sigma=20&steps=2&eta=1&seed=7",
        ),
        ("denoise", "white.png", "-f jpg --jpeg-quality 80", "format=jpg&jpeg-quality=80"),
        ("upscale", "camera.jpg", "-s 2", "scale=2"),
    ] {
        let run = eddy(&format!("{command} {file} -o result --json {options}")).within(place);
        let format =
            if options.contains("-f ") { "" } else { &format!("-f {}", &file[file.len() - 3..]) };
        let record = run.args(format).succeeds().json();
        let body = fs::read(place.path(file)).unwrap();
        let answer = server.ask(&format!("PUT /v1/{command}?{query}"), "", &body);
        assert_eq!(answer.code, 200, "{file} {query}: {}", answer.head);
        assert!(answer.body == fs::read(place.path("result")).unwrap(), "{file} {query} differs");
        for name in ["model", "noise", "sigma", "steps", "tiles", "width", "precision"] {
            let title: String = name[..1].to_uppercase() + &name[1..];
            let said = header(&answer, &format!("Eddy-{title}")).map(str::to_owned);
            let expected = match &record[name] {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
            assert_eq!(said, expected, "{name} of {file} {query}");
        }
        fs::remove_file(place.path("result")).unwrap();
    }
}

#[test]
fn the_seconds_include_the_assessment_of_the_noise() {
    let server = Server::new("-m denoise-fast");
    // Without noise, the network does not run.
    let image = Image::new(2048, 2048, 3, Samples::U8(vec![128; 3 * 2048 * 2048])).unwrap();
    let answer = server.ask("POST /v1/denoise", "", &encoded(&image, "png"));
    assert_eq!(header(&answer, "Eddy-Noise"), Some("clean"), "{}", answer.head);
    let seconds: f64 = header(&answer, "Eddy-Seconds").unwrap().parse().unwrap();
    assert!(seconds > 1e-3, "{seconds} s for 4 million pixels");
}

#[test]
fn formats_follow_the_accept_header() {
    let server = Server::new("-m denoise-fast");
    let png = encoded(&noisy(24, 16, 3, 8), "png");
    for (headers, kind) in [
        ("", "image/png"),
        ("Accept: */*\r\n", "image/png"),
        ("Accept: image/jpeg;q=0.5, image/webp\r\n", "image/webp"),
        ("Accept: image/tiff\r\n", "image/tiff"),
    ] {
        let answer = server.ask("POST /v1/denoise", headers, &png);
        assert_eq!((answer.code, header(&answer, "Content-Type")), (200, Some(kind)), "{headers}");
        let image = still::decode("a".as_ref(), Cursor::new(&answer.body), &Limits::default());
        assert_eq!(image.unwrap().width, 24);
    }
    server.refuses("POST /v1/denoise", "Accept: text/html\r\n", &png, 406, "image/png");
    let transparent = encoded(&noisy(24, 16, 4, 8), "png");
    server.refuses(
        "POST /v1/denoise?format=jpg",
        "",
        &transparent,
        422,
        "cannot store the image's transparency",
    );
}

/// A request for an inference with binary tensors.
fn binary_request(json: &Value, tensor: &[u8]) -> (String, Vec<u8>) {
    let json = json.to_string();
    let headers = format!("Inference-Header-Content-Length: {}\r\n", json.len());
    (headers, [json.as_bytes(), tensor].concat())
}

#[test]
fn tensors_equal_image_files() {
    let server = Server::new("-m fast=denoise-fast");
    let image = noisy(24, 16, 3, 8);
    let Samples::U8(samples) = &image.samples else { panic!("of 8 bits") };
    let file = server.ask("POST /v1/denoise?sigma=25", "", &encoded(&image, "png"));
    let expected = still::decode("a".as_ref(), Cursor::new(&file.body), &Limits::default());
    let Samples::U8(expected) = expected.unwrap().samples else { panic!("of 8 bits") };
    let path = "POST /v2/models/fast/versions/1/infer";
    let input =
        json!({"name": "image", "shape": [16, 24, 3], "datatype": "UINT8", "data": samples});
    let request = json!({"id": "7", "inputs": [input], "parameters": {"sigma": 25}});
    let found = json_of(&server.ask(path, "", request.to_string().as_bytes()));
    let output = &found["outputs"][0];
    assert_eq!((&found["id"], &found["model_version"]), (&json!("7"), &json!("1")));
    assert_eq!((&output["shape"], &output["datatype"]), (&json!([16, 24, 3]), &json!("UINT8")));
    assert_eq!(output["data"], json!(expected));
    assert_eq!(found["parameters"]["sigma"], json!(25.0));

    // Two images as bytes, and the results likewise.
    let bytes = [samples.as_slice(), samples].concat();
    let input = json!({"name": "image", "shape": [2, 16, 24, 3], "datatype": "UINT8",
        "parameters": {"binary_data_size": bytes.len()}});
    let output = json!({"name": "image", "parameters": {"binary_data": true}});
    let parameters = json!({"sigma": "25"});
    let request = json!({"inputs": [input], "outputs": [output], "parameters": parameters});
    let (headers, body) = binary_request(&request, &bytes);
    let found = server.ask(path, &headers, &body);
    let length: usize = header(&found, "Inference-Header-Content-Length").unwrap().parse().unwrap();
    let described: Value = serde_json::from_slice(&found.body[..length]).unwrap();
    assert_eq!(described["outputs"][0]["shape"], json!([2, 16, 24, 3]));
    assert!(found.body[length..] == [expected.as_slice(), &expected].concat());

    // Floats from 0 to 1.
    let floats: Vec<f32> = samples.iter().map(|value| f32::from(*value) / 255.0).collect();
    let input = json!({"name": "image", "shape": [16, 24, 3], "datatype": "FP32", "data": floats});
    let request = json!({"inputs": [input], "parameters": {"sigma": 25}});
    let found = json_of(&server.ask(path, "", request.to_string().as_bytes()));
    let values = found["outputs"][0]["data"].as_array().unwrap();
    assert_eq!(values.len(), expected.len());
    for (value, expected) in values.iter().zip(&expected) {
        assert!((255.0 * value.as_f64().unwrap() - f64::from(*expected)).abs() < 0.51);
    }
}

#[test]
fn describes_models() {
    let server = Server::new("-m denoise-fast -m big=upscale-x4");
    assert_eq!(json_of(&server.get("/v2"))["name"], "eddy");
    assert_eq!(json_of(&server.get("/v2/health/live"))["live"], true);
    assert_eq!(json_of(&server.get("/v2/health/ready"))["ready"], true);
    assert_eq!(json_of(&server.get("/v2/models/big/versions/1/ready"))["ready"], true);
    let model = json_of(&server.get("/v2/models/big"));
    assert_eq!(
        model["inputs"][0],
        json!({"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1]})
    );
    assert!(model["parameters"].as_array().unwrap().contains(&json!("scale")));
    let index = json_of(&server.ask("POST /v2/repository/index", "", b"{}"));
    assert_eq!(index[1], json!({"name": "big", "version": "1", "state": "READY", "reason": ""}));
    assert_eq!(json_of(&server.get("/v1/models"))["data"][0]["id"], "denoise-fast");
    assert!(json_of(&server.get("/"))["endpoints"].as_array().unwrap().len() > 5);
    let png = encoded(&noisy(24, 16, 3, 8), "png");
    assert_eq!(server.ask("POST /v1/upscale", "", &png).code, 200);
    server.refuses("POST /v1/upscale?scale=2", "", &png, 404, "no model enlarges 2 times");
    server.refuses("POST /v1/images/generations", "", b"", 404, "no text-to-image model is loaded");
}

#[test]
fn images_of_a_prompt_equal_those_of_generate() {
    let folder = data("pipelines/text/folders/sd15");
    let server = Server::new(&format!("-m tiny={}", folder.display()));
    let run = eddy("generate --prompt ship -o a.png --size 64x48 --steps 2 --seed 3 -m")
        .within(&server.place)
        .arg(&folder);
    run.succeeds();
    let expected = still::read(&server.place.path("a.png"), &Limits::default()).unwrap();
    let kind = "Content-Type: application/json\r\n";
    let request = json!({"prompt": "ship", "n": 2, "size": "64x48", "steps": 2, "seed": 3,
        "response_format": "b64_json", "model": "tiny"});
    let post = "POST /v1/images/generations";
    let found = json_of(&server.ask(post, kind, request.to_string().as_bytes()));
    let image = |item: &Value| -> Image {
        let bytes = base64::decode(item["b64_json"].as_str().unwrap()).unwrap();
        still::decode("a".as_ref(), Cursor::new(bytes), &Limits::default()).unwrap()
    };
    assert_eq!(found["data"][1]["seed"], 4);
    assert!(image(&found["data"][0]).samples == expected.samples, "another image");
    assert!(image(&found["data"][1]).samples != expected.samples);
    // The same by the Open Inference Protocol.
    let input = json!({"name": "prompt", "shape": [1], "datatype": "BYTES", "data": ["ship"]});
    let parameters = json!({"size": "64x48", "steps": 2, "seed": 3});
    let request = json!({"inputs": [input], "parameters": parameters});
    let path = "POST /v2/models/tiny/infer";
    let found = json_of(&server.ask(path, "", request.to_string().as_bytes()));
    let Samples::U8(expected) = &expected.samples else { panic!("of 8 bits") };
    assert_eq!(found["outputs"][0]["data"], json!(expected));
    for (body, code, words) in [
        (r#"{"prompt":"a","size":"1x1"}"#, 400, "multiple"),
        (r#"{"prompt":"a","quality":"hd"}"#, 400, "unknown field"),
        (r#"{"prompt":"a","model":"dall-e-3"}"#, 404, "there are tiny"),
        ("[]", 400, "no"),
    ] {
        server.refuses(post, kind, body.as_bytes(), code, words);
    }
    server.refuses(post, "Content-Type: text/plain\r\n", b"{}", 415, "application/json");
}

#[test]
fn serves_a_unix_socket() {
    let place = Place::new();
    let command = eddy("serve -l unix:eddy.sock -m denoise-fast").within(&place).command();
    let mut server = Server::of(command, place);
    let path = server.place.path("eddy.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert_eq!(answer(stream).code, 200);
    // A second server does not take it away.
    let second = eddy("serve -l unix:eddy.sock -m denoise-fast").within(&server.place);
    second.fails(2).says("another server listens there");
    server.signal(Signal::TERM);
    assert_eq!(server.end().code(), Some(0), "{:?}", server.said());
    assert!(!path.exists());
}

#[test]
fn takes_the_sockets_of_systemd() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut command = Command::new("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" serve -m denoise-fast 3<&0 </dev/null";
    command.args(["-c", script, BINARY]).stdin(Stdio::from(OwnedFd::from(listener)));
    let server = Server::of(command, Place::new());
    assert_eq!(server.address, address);
    assert_eq!(server.get("/v2/health/ready").code, 200);
    // A socket that is connected, and more than anybody passes.
    let (connected, _other) = UnixStream::pair().unwrap();
    for (script, words) in [
        (script, "it does not listen"),
        (
            "LISTEN_PID=$$ LISTEN_FDS=999999999 exec \"$0\" serve -m denoise-fast 3<&0 </dev/null",
            "at most 1024",
        ),
    ] {
        let stdin = Stdio::from(OwnedFd::from(connected.try_clone().unwrap()));
        let output = Command::new("sh").args(["-c", script, BINARY]).stdin(stdin).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(words), "{said}");
    }
    let run = eddy("serve -l systemd -m denoise-fast");
    run.fails(2).says("passed no sockets");
}

#[test]
fn refuses_models_that_it_cannot_serve() {
    let run = |arguments: &str| eddy(&format!("serve -l 127.0.0.1:0 {arguments}"));
    run("-m nowhere").fails(4).says("there is no bundled model");
    run("-m prior").fails(4).says("a model to generate");
    run("-m denoise-fast -m denoise-fast").fails(2).says("two models are called denoise-fast");
    run("-l 0.0.0.0:0").fails(2).says("needs a token");
    run("-l 127.0.0.1:0 --token short").fails(2).says("8 or more");
    for endless in ["/dev/zero", "/dev/full"] {
        run(&format!("--token-file {endless}")).fails(3).says("more than 4096 bytes");
    }
    run("--token-file /proc").fails(3).says("the token cannot be read");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    run(&format!("-l {}", taken.local_addr().unwrap())).fails(2).says("cannot listen at");
}

#[test]
fn metrics_are_in_prometheus_format() {
    let server = Server::new("-m denoise-fast");
    let png = encoded(&noisy(24, 16, 3, 8), "png");
    assert_eq!(server.ask("POST /v1/denoise", "", &png).code, 200);
    assert_eq!(server.ask("POST /v1/denoise", "", b"").code, 415);
    let answer = server.get("/metrics");
    assert_eq!(header(&answer, "Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "eddy_requests_total{endpoint=\"denoise\",status=\"200\"} 1",
        "eddy_requests_total{endpoint=\"denoise\",status=\"415\"} 1",
        "eddy_running_seconds_count{model=\"denoise-fast\"} 1",
        "eddy_requests_waiting{model=\"denoise-fast\"} 0",
        "eddy_model_ready{model=\"denoise-fast\"} 1",
        "eddy_requests_active 1",
        "eddy_body_bytes 0",
    ] {
        assert!(answer.text().lines().any(|it| it == line), "{line}: {}", answer.text());
    }
    answer.checks_metrics();
}

#[test]
fn connections_are_kept() {
    let server = Server::new("-m denoise-fast");
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    let mut bytes = [0; 4096];
    for _ in 0..3 {
        stream.write_all(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let count = stream.read(&mut bytes).unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200 OK"), "{count} bytes");
    }
}

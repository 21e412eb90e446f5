//! The live view of a run, over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use eddy::media::still::{Limits, decode};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::common::eddy;
use crate::common::place::Place;

const SIZE: usize = 64;

/// A run on noisy frames with a live view, until it ends.
pub(super) struct Viewed {
    child: Child,
    pub(super) address: String,
    pub(super) token: Option<String>,
    _place: Place,
}

pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Parses the bytes of a connection, if they contain at least a complete head.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Self { code, head, body: bytes[end + 4..].to_vec() })
    }

    /// Checks that every line is a metric of ours with a number and a type.
    pub(super) fn checks_metrics(&self) {
        for line in self.text().lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("eddy_") && value.parse::<f64>().is_ok(), "{line}");
            let name = name.split('{').next().unwrap();
            let of = name.trim_end_matches("_sum").trim_end_matches("_count");
            assert!(self.text().contains(&format!("# TYPE {of} ")), "{line}");
        }
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Viewed {
    pub(super) fn new(arguments: &str) -> Self {
        let place = Place::new();
        Self::of(eddy(arguments).within(&place).command(), place)
    }

    /// Serves at a public address with a chosen token.
    pub(super) fn with_token(address: &str, token: &str) -> Self {
        let place = Place::new();
        let run = eddy(&format!("denoise - -o - --sigma 20 --preview={address}:0")).within(&place);
        let mut viewed = Self::of(run.env("EDDY_PREVIEW_TOKEN", token).command(), place);
        viewed.token = Some(token.to_owned());
        viewed
    }

    fn of(mut command: Command, place: Place) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::spawn(move || {
            let header = format!("YUV4MPEG2 W{SIZE} H{SIZE} F25:1 Ip C420jpeg\n");
            let mut fed = stdin.write_all(header.as_bytes());
            let mut state = 1_u32;
            while fed.is_ok() {
                let mut frame = b"FRAME\n".to_vec();
                frame.extend((0..SIZE * SIZE * 3 / 2).map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    118 + (state >> 27) as u8
                }));
                fed = stdin.write_all(&frame);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let url = line.strip_prefix("preview: http://").unwrap_or_else(|| panic!("{line}"));
        let (address, token) = url.split_once('/').unwrap();
        let token = token.strip_prefix("#token=").map(str::to_owned);
        // Keep reading, so that messages do not block the run.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.to_owned(), token, _place: place }
    }

    pub(super) fn ask(&self, request: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = if headers.contains("Host:") {
            String::new()
        } else {
            format!("Host: {}\r\n", self.address)
        };
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        Answer::read(&bytes).unwrap()
    }

    /// A memory value of the process, in bytes.
    pub(super) fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// The number of open file descriptors of the process.
    pub(super) fn descriptors(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count() as u64
    }

    /// Limits the process to file descriptors below `count`.
    pub(super) fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit { current: Some(count), maximum: Some(count) };
        prlimit(Pid::from_child(&self.child).into(), Resource::Nofile, limit).unwrap();
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), "", "")
    }

    fn control(&self, wish: &str) -> Answer {
        self.ask("POST /control", "Content-Type: application/json\r\n", wish)
    }

    /// Waits until the status meets the condition, and returns it.
    pub(super) fn status_when(&self, is_there: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.get("/status");
            if answer.code == 200 {
                let status = serde_json::from_str(answer.text()).unwrap();
                if is_there(&status) {
                    return status;
                }
                assert!(began.elapsed() < Duration::from_secs(60), "{status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Viewed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn page_shows_frames_and_statistics() {
    let viewed = Viewed::new("denoise - -o - --preview=127.0.0.1:0");
    assert_eq!(viewed.token, None);
    for (path, kind) in
        [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")]
    {
        let answer = viewed.get(path);
        assert!(
            answer.code == 200 && answer.head.contains(kind) && !answer.body.is_empty(),
            "{}",
            answer.head
        );
        assert!(answer.head.contains("default-src 'none'"), "{}", answer.head);
    }
    let status = viewed.status_when(|status| status["written"].as_u64() > Some(3));
    assert_eq!(
        (status["model"].as_str(), status["denoises"].as_bool()),
        (Some("camera"), Some(true))
    );
    assert!(
        status["latency_p95_ms"].as_f64() > Some(0.0) && status["rate"].as_f64() > Some(0.0),
        "{status}"
    );
    let (first, second) = (viewed.get("/pair"), viewed.get("/pair?seen=0"));
    for answer in [&first, &second] {
        assert!(answer.code == 200 && answer.head.contains("X-Frame: "), "{}", answer.head);
        let length = u32::from_be_bytes(*answer.body.first_chunk().unwrap()) as usize;
        for jpeg in [&answer.body[4..4 + length], &answer.body[4 + length..]] {
            let frame =
                decode("a.jpg".as_ref(), std::io::Cursor::new(jpeg), &Limits::default()).unwrap();
            assert_eq!((frame.width, frame.height), (SIZE, SIZE));
        }
    }
    assert!(first.head != second.head, "the frames go on");
    assert_eq!(viewed.get("/elsewhere").code, 404);
}

#[test]
fn metrics_are_in_prometheus_format() {
    let viewed = Viewed::new("denoise - -o - --preview=127.0.0.1:0 --sigma 20");
    viewed.status_when(|status| status["written"].as_u64() > Some(3));
    let answer = viewed.get("/metrics");
    assert!(answer.head.contains("text/plain; version=0.0.4"), "{}", answer.head);
    let value = |name: &str| {
        let line =
            answer.text().lines().find_map(|line| line.strip_prefix(&format!("eddy_{name} ")));
        line.unwrap_or_else(|| panic!("{name}: {}", answer.text())).parse::<f64>().unwrap()
    };
    assert!(value("frames_written_total") > 3.0 && value("latency_seconds_count") > 3.0);
    assert_eq!(
        (value("sigma"), value("steps"), value("scale"), value("temporal")),
        (20.0, 1.0, 1.0, 0.0)
    );
    assert!(answer.text().contains("eddy_latency_seconds{quantile=\"0.95\"} "));
    assert!(answer.text().contains(",model=\"camera\",precision=\"f32\"} 1"));
    answer.checks_metrics();
}

#[test]
fn controls_change_settings() {
    let viewed = Viewed::new("denoise - -o - --preview=127.0.0.1:0");
    viewed.status_when(|status| status["sigma"].as_f64() > Some(1.0));
    assert_eq!(viewed.control(r#"{"sigma": 33, "steps": 2}"#).code, 204);
    viewed.status_when(|status| {
        (status["sigma"].as_f64(), status["steps"].as_u64()) == (Some(33.0), Some(2))
    });
    assert_eq!(viewed.control(r#"{"temporal": true}"#).code, 204);
    viewed.status_when(|status| {
        (status["temporal"].as_bool(), status["steps"].as_u64()) == (Some(true), Some(2))
    });
    assert_eq!(viewed.control(r#"{"temporal": false, "sigma": "auto", "steps": 1}"#).code, 204);
    let status = viewed
        .status_when(|status| status["temporal"] == false && status["sigma"].as_f64() < Some(20.0));
    assert_eq!(status["steps"].as_u64(), Some(1));
    for wish in [
        r#"{"sigma": -1}"#,
        r#"{"sigma": "loud"}"#,
        r#"{"steps": 0}"#,
        r#"{"temporal": 3}"#,
        r#"{"what": 1}"#,
        "steps=1",
        "",
    ] {
        assert_eq!(viewed.control(wish).code, 400, "{wish}");
    }
    assert_eq!(
        viewed.ask("POST /control", "Content-Type: text/plain\r\n", r#"{"steps": 1}"#).code,
        400
    );
}

#[test]
fn upscaling_has_no_noise_control() {
    let viewed = Viewed::new("upscale - -o - -s 2 --preview=127.0.0.1:0");
    let status = viewed.status_when(|status| status["written"].as_u64() > Some(0));
    assert_eq!((status["denoises"].as_bool(), status["sigma"].is_null()), (Some(false), true));
    assert_eq!(viewed.control(r#"{"sigma": 3}"#).code, 400);
    assert_eq!(viewed.control(r#"{"steps": 2}"#).code, 204);
    viewed.status_when(|status| status["steps"].as_u64() == Some(2));
}

#[test]
fn rejects_foreign_host_names() {
    let viewed = Viewed::new("denoise - -o - --preview=127.0.0.1:0");
    viewed.status_when(|_| true);
    for (host, code) in [
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("localhost:1234", 200),
        ("127.0.0.1", 200),
    ] {
        assert_eq!(
            viewed.ask("GET /status", &format!("Host: {host}\r\n"), "").code,
            code,
            "{host}"
        );
    }
}

#[test]
fn other_machines_need_a_token() {
    let viewed = Viewed::new("denoise - -o - --preview=0.0.0.0:0");
    let token = viewed.token.clone().unwrap();
    assert_eq!(token.len(), 32);
    assert_eq!(viewed.get("/").code, 200);
    let with = |token: &str, path: &str| {
        viewed.ask(&format!("GET {path}"), &format!("Authorization: Bearer {token}\r\n"), "").code
    };
    for path in ["/status", "/metrics", "/pair"] {
        assert_eq!(
            (viewed.get(path).code, with("wrong", path), with("", path)),
            (401, 401, 401),
            "{path}"
        );
    }
    assert_eq!(viewed.control(r#"{"steps": 2}"#).code, 401);
    let began = Instant::now();
    while with(&token, "/status") != 200 {
        assert!(began.elapsed() < Duration::from_secs(60), "the token is not taken");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((with(&token, "/metrics"), with(&token, "/pair")), (200, 200));
}

#[test]
fn reports_an_unusable_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let place = Place::new();
    place.file("in.y4m", "YUV4MPEG2 W2 H2 F25:1 Cmono\nFRAME\nabcd");
    let run = |preview: &str| {
        eddy(&format!("denoise in.y4m -o out.y4m --preview={preview}")).within(&place)
    };
    run(&port.to_string()).fails(2).says("cannot be served at 127.0.0.1").says("choose another");
    run("nowhere").fails(2).says("expected an address, a port or both");
    run("0.0.0.0:0").env("EDDY_PREVIEW_TOKEN", "abc").fails(2).says("8 or more");
    place.holds_only(&["in.y4m"]);
}

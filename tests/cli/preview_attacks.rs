//! Attacks on the live view of a run: the stream continues, other requests are answered, and memory
//! does not grow.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::preview::{Answer, Viewed};

/// A time limit for everything, even on a heavily loaded machine.
const LONG: Duration = Duration::from_secs(30);

/// The most memory that an attack may take.
const MEMORY: u64 = 24 << 20;

const GET: &[u8] = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A run with a live view, and its memory before the attack.
struct Attacked {
    viewed: Viewed,
    memory: u64,
}

impl Attacked {
    fn new(address: &str) -> Self {
        Self::of(Viewed::new(&format!("denoise - -o - --sigma 20 --preview={address}:0")))
    }

    fn of(viewed: Viewed) -> Self {
        let token = viewed
            .token
            .iter()
            .map(|token| format!("Authorization: Bearer {token}\r\n"))
            .collect::<String>();
        while viewed.ask("GET /status", &token, "").code == 503 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let memory = viewed.memory("VmRSS");
        Self { viewed, memory }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.viewed.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// Sends bytes that may not be a valid request, and reads until the other side closes or resets
    /// the connection.
    fn send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        let _ = stream.write_all(bytes);
        rest(&mut stream)
    }

    fn code(&self, request: &str) -> u16 {
        self.send(request.as_bytes()).map_or(0, |answer| answer.code)
    }

    /// Checks that the stream continues, frames are shown, and memory is about the size it was
    /// before.
    fn still_runs(&self) {
        let written = self.viewed.status_when(|_| true)["written"].as_u64();
        self.viewed.status_when(|status| status["written"].as_u64() > written);
        assert_eq!(self.viewed.get("/pair").code, 200);
        let more = self.viewed.memory("VmRSS").saturating_sub(self.memory);
        assert!(more < MEMORY, "{} MiB more than before", more >> 20);
    }
}

fn rest(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "the connection was not closed"
        );
    }
    Answer::read(&bytes)
}

#[test]
fn rejects_oversized_content_lengths() {
    let attacked = Attacked::new("127.0.0.1");
    let post = |headers: &str, body: &str| {
        attacked
            .code(&format!("POST /control HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}"))
    };
    for length in ["99999999999999999", "9223372036854775807", "4097"] {
        assert_eq!(post(&format!("Content-Length: {length}"), ""), 413, "{length}");
        assert_eq!(
            post(&format!("Expect: 100-continue\r\nContent-Length: {length}"), ""),
            413,
            "{length}"
        );
    }
    assert_eq!(post("Content-Length: 18446744073709551615", ""), 431);
    for length in ["18446744073709551616", "-1", "1, 2", "2\r\nContent-Length: 3"] {
        assert_eq!(post(&format!("Content-Length: {length}"), ""), 400, "{length}");
    }
    assert_eq!(
        post("Transfer-Encoding: chunked", &format!("1000\r\n{:4096}\r\n1\r\na\r\n0\r\n\r\n", "")),
        413
    );
    assert_eq!(post("Transfer-Encoding: chunked", "fffffffffffffffff\r\n"), 400);
    assert_eq!(post("Transfer-Encoding: chunked", "zz\r\n"), 400);
    let mut stream = attacked.connect();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = format!("8000\r\n{:32768}\r\n", "");
    let sent = (0..1000).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 1000, "a body without end was taken");
    attacked.still_runs();
}

#[test]
fn survives_reset_connections() {
    let attacked = Attacked::new("127.0.0.1");
    for count in 0..300 {
        let mut stream = attacked.connect();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        if count % 2 == 1 {
            stream.write_all(GET).unwrap();
        }
    }
    attacked.still_runs();
}

#[test]
fn survives_idle_connections() {
    let attacked = Attacked::new("127.0.0.1");
    let idle: Vec<TcpStream> = (0..600).map(|_| attacked.connect()).collect();
    attacked.still_runs();
    drop(idle);
    attacked.still_runs();
}

#[test]
fn survives_running_out_of_file_descriptors() {
    let attacked = Attacked::new("127.0.0.1");
    let open = attacked.viewed.descriptors();
    attacked.viewed.limit_descriptors(open + 8);
    let _idle: Vec<TcpStream> = (0..60).map(|_| attacked.connect()).collect();
    attacked.still_runs();
    assert!(attacked.viewed.descriptors() > open + 4, "file descriptors did not run out");
}

#[test]
fn survives_clients_that_never_read_answers() {
    let attacked = Attacked::new("127.0.0.1");
    let requests = [GET.repeat(100), b"OPTIONS /x HTTP/1.1\r\nHost: evil\r\n\r\n".repeat(100)];
    let stuck = (0..8).map(|number| {
        let mut stream = attacked.connect();
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let sent =
            (0..10_000).take_while(|_| stream.write_all(&requests[number % 2]).is_ok()).count();
        assert!(sent < 10_000, "requests are taken for ever");
        stream
    });
    let stuck: Vec<TcpStream> = stuck.collect();
    attacked.still_runs();
    drop(stuck);
}

#[test]
fn rejects_endless_request_heads() {
    let attacked = Attacked::new("127.0.0.1");
    for start in [
        "GET /",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX: ",
    ] {
        let mut stream = attacked.connect();
        stream.write_all(start.as_bytes()).unwrap();
        let sent = (0..1000).take_while(|_| stream.write_all(&[b'a'; 1 << 16]).is_ok()).count();
        assert!(sent < 1000, "{start} was taken");
    }
    let many = "a: b\r\n".repeat(1000);
    assert_eq!(attacked.code(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n")), 431);
    attacked.still_runs();
}

#[test]
fn delays_guessed_tokens() {
    let attacked = Attacked::new("0.0.0.0");
    let viewed = &attacked.viewed;
    let with =
        |token: &str| viewed.ask("GET /metrics", &format!("Authorization: Bearer {token}\r\n"), "");
    let token = viewed.token.clone().unwrap();
    // Requests without a token, or with an unchanged wrong token, do not count as guesses.
    for _ in 0..20 {
        assert_eq!((viewed.get("/metrics").code, with("old").code), (401, 401));
    }
    let codes: Vec<u16> = (0..50).map(|guess| with(&format!("guess-{guess}")).code).collect();
    assert!(
        codes[0] == 401 && codes.iter().filter(|code| **code == 429).count() >= 30,
        "{codes:?}"
    );
    // A random token is accepted even then; other tokens still wait.
    assert_eq!((with(&token).code, with("another").code), (200, 429));
    // Another address is answered at once.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).unwrap();
    let port = viewed.address.rsplit(':').next().unwrap().parse().unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    let request = format!(
        "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(rest(&mut stream).map(|answer| answer.code), Some(404));
}

/// While a client has to wait, a correct chosen token gets no other answer than a wrong one.
#[test]
fn delays_a_chosen_token_like_a_guess() {
    let attacked = Attacked::of(Viewed::with_token("0.0.0.0", "correct-horse"));
    let with = |token: &str| {
        attacked.viewed.ask("GET /metrics", &format!("Authorization: Bearer {token}\r\n"), "")
    };
    assert_eq!(with("correct-horse").code, 200);
    (0..20).for_each(|guess| drop(with(&format!("guess-{guess}"))));
    let answer = with("correct-horse");
    assert!(
        answer.code == 429 && answer.head.to_lowercase().contains("retry-after: "),
        "{}",
        answer.head
    );
}

#[test]
fn answers_many_clients_at_once() {
    let attacked = Attacked::new("127.0.0.1");
    std::thread::scope(|scope| {
        let looks: Vec<_> =
            (0..30).map(|_| scope.spawn(|| attacked.viewed.get("/pair").code)).collect();
        assert_eq!(attacked.viewed.get("/status").code, 200);
        for look in looks {
            assert_eq!(look.join().unwrap(), 200);
        }
    });
    attacked.still_runs();
}

#[test]
fn answers_unusual_requests() {
    let attacked = Attacked::new("127.0.0.1");
    let ask = |method: &str, path: &str| attacked.viewed.ask(&format!("{method} {path}"), "", "");
    for (method, path, code) in [
        ("HEAD", "/", 200),
        ("HEAD", "/status", 200),
        ("OPTIONS", "/status", 405),
        ("OPTIONS", "*", 404),
        ("BREW", "/pair", 405),
        ("PUT", "/control", 405),
        ("GET", "/control", 405),
        ("POST", "/", 405),
        ("GET", "http://evil.example/status", 403),
        ("CONNECT", "evil.example:80", 403),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/pair?seen=99999999999999999999", 200),
    ] {
        let answer = ask(method, path);
        assert_eq!(answer.code, code, "{method} {path}");
        assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {path}");
        assert_eq!(answer.head.contains("Allow: "), code == 405, "{}", answer.head);
    }
    for request in [
        "\r\n\r\n\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    ] {
        assert_eq!(attacked.code(request), 400, "{request}");
    }
    assert_eq!(
        attacked.code(
            "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ),
        403
    );
    // HTTP/1.0 closes the connection; HTTP/1.1 keeps it and answers all requests on it.
    assert_eq!(attacked.code("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"), 200);
    let twice = format!(
        "{}{}",
        String::from_utf8_lossy(GET),
        "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    let answer = attacked.send(twice.as_bytes()).unwrap();
    assert!(
        answer.code == 200 && answer.text().contains("HTTP/1.1 200 OK\r\n"),
        "{}",
        answer.text()
    );
    // A client that has closed its sending side still gets an answer.
    let mut stream = attacked.connect();
    stream.write_all(b"GET /pair HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut stream).map(|answer| answer.code), Some(200));
    // The server asks for a body that the client withholds (`Expect: 100-continue`).
    let mut stream = attacked.connect();
    let head = "POST /control HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    stream
        .write_all(format!("{head}Expect: 100-continue\r\nContent-Length: 12\r\n\r\n").as_bytes())
        .unwrap();
    let mut requested = [0; 25];
    stream.read_exact(&mut requested).unwrap();
    assert_eq!(&requested, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(br#"{"steps": 2}"#).unwrap();
    assert_eq!(rest(&mut stream).map(|answer| answer.code), Some(204));
    attacked.still_runs();
}

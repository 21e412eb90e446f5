//! The sockets that the server listens on: addresses, Unix sockets, and those of systemd.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use listenfd::ListenFd;
use rustix::fs::Mode;
use rustix::net::sockopt::socket_acceptconn;
use tokio::net::{TcpListener, UnixListener};

use crate::error::{Error, Result};
use crate::http::{Listener, listen_tcp, parse_address};

/// The default port.
const PORT: u16 = 8071;

/// The most sockets that are taken of systemd.
const MAX_PASSED: i64 = 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At an address.
    Tcp(SocketAddr),
    /// At a Unix socket, which the user and the group of the process may use.
    Unix(PathBuf),
    /// At the sockets that systemd passes (`LISTEN_FDS`).
    Systemd,
}

impl Default for Listen {
    /// This machine only.
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], PORT)))
    }
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.strip_prefix("unix:") {
            Some("") => Err("expected the path of a socket after unix:"),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text == "systemd" => Ok(Self::Systemd),
            None => parse_address(text, PORT).map(Self::Tcp).ok_or(
                "expected an address, a port or both, such as 127.0.0.1:8071, 8071 or 0.0.0.0, or \
                 unix:PATH, or systemd",
            ),
        }
    }
}

/// An open socket.
pub(super) struct Open {
    pub(super) listener: Listener,
    /// Its address; none of a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// For people.
    pub(super) url: String,
    /// The file of a socket, which is deleted in the end.
    pub(super) file: Option<SocketFile>,
}

/// The file of a Unix socket, until it is dropped.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have deleted it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens all sockets; without any, those of systemd, or else the default address. Call it within a
/// runtime.
pub(super) fn open(places: &[Listen]) -> Result<Vec<Open>> {
    let default = [if passed(variable) > 0 { Listen::Systemd } else { Listen::default() }];
    let mut all = Vec::new();
    for place in if places.is_empty() { &default } else { places } {
        match place {
            Listen::Tcp(address) => all.push(tcp(*address)?),
            Listen::Unix(path) => all.push(unix(path)?),
            Listen::Systemd => all.extend(of_systemd()?),
        }
    }
    Ok(all)
}

fn refused(place: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Error {
    move |error| {
        Error::usage(format!("cannot listen at {place} ({error}); choose another address or port"))
    }
}

fn tcp(address: SocketAddr) -> Result<Open> {
    let listener = listen_tcp(address).map_err(refused(address))?;
    of_tcp(listener).map_err(refused(address))
}

fn of_tcp(listener: TcpListener) -> io::Result<Open> {
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    Ok(Open { listener: Listener::Tcp(listener), address: Some(address.ip()), url, file: None })
}

fn unix(path: &Path) -> Result<Open> {
    let shown = path.display();
    if let Ok(found) = path.symlink_metadata() {
        let is_socket = found.file_type().is_socket();
        if !is_socket || UnixStream::connect(path).is_ok() {
            let what = if is_socket { "another server listens there" } else { "it is no socket" };
            let text = format!("cannot listen at {shown}: {what}; choose another path");
            return Err(Error::usage(text));
        }
        // A server that was killed left it.
        std::fs::remove_file(path).map_err(refused(shown))?;
    }
    let shown = path.display();
    // The socket appears with its permissions, of the user and the group.
    let before = rustix::process::umask(Mode::from_raw_mode(0o117));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = Listener::Unix(bound.map_err(refused(shown))?);
    let url = format!("unix:{}", path.display());
    Ok(Open { listener, address: None, url, file: Some(SocketFile(path.to_owned())) })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// How many sockets systemd passes to this process, by the variables of the environment.
fn passed(variable: impl Fn(&str) -> Option<String>) -> i64 {
    let is_for_other = variable("LISTEN_PID")
        .filter(|pid| !pid.is_empty())
        .is_some_and(|pid| pid.parse::<u32>() != Ok(std::process::id()));
    let count = variable("LISTEN_FDS").and_then(|count| count.parse::<i64>().ok());
    count.filter(|_| !is_for_other).unwrap_or(0)
}

fn check_listens(socket: impl AsFd) -> io::Result<()> {
    if socket_acceptconn(socket)? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"))
}

fn of_systemd() -> Result<Vec<Open>> {
    let count = passed(variable);
    if count > MAX_PASSED {
        return Err(Error::usage(format!(
            "LISTEN_FDS is {count}; at most {MAX_PASSED} sockets of systemd are taken"
        )));
    }
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Err(Error::usage(
            "systemd passed no sockets (LISTEN_FDS and LISTEN_PID are not those of this process); \
             start the server by a socket unit",
        ));
    }
    let count = passed.len();
    let opened = |index: usize| -> io::Result<Open> {
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            check_listens(&listener)?;
            listener.set_nonblocking(true)?;
            return of_tcp(TcpListener::from_std(listener)?);
        }
        let listener = passed.take_unix_listener(index)?.ok_or(io::ErrorKind::InvalidInput)?;
        check_listens(&listener)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let path =
            address.as_pathname().map_or_else(String::new, |path| path.display().to_string());
        let listener = Listener::Unix(UnixListener::from_std(listener)?);
        Ok(Open { listener, address: None, url: format!("unix:{path}"), file: None })
    };
    let opened: io::Result<Vec<Open>> = (0..count).map(opened).collect();
    opened.map_err(refused("a socket of systemd, which has to be a stream that listens"))
}

#[cfg(test)]
mod tests {
    use super::{Listen, passed};

    #[test]
    fn takes_sockets_that_are_for_this_process() {
        let own = std::process::id().to_string();
        for (count, pid, expected) in [
            (Some("2"), Some(own.as_str()), 2),
            (Some("2"), None, 2),
            (Some("2"), Some(""), 2),
            (Some("2"), Some("1"), 0),
            (Some("2"), Some("init"), 0),
            (Some("0"), None, 0),
            (Some(""), None, 0),
            (None, Some(own.as_str()), 0),
        ] {
            let variable = |name: &str| if name == "LISTEN_PID" { pid } else { count };
            let found = passed(|name| variable(name).map(str::to_owned));
            assert_eq!(found, expected, "{count:?} {pid:?}");
        }
    }

    #[test]
    fn parses_places() {
        assert_eq!("9000".parse(), Ok(Listen::Tcp("127.0.0.1:9000".parse().unwrap())));
        assert_eq!("0.0.0.0".parse(), Ok(Listen::Tcp("0.0.0.0:8071".parse().unwrap())));
        assert_eq!("unix:/run/a b".parse(), Ok(Listen::Unix("/run/a b".into())));
        assert_eq!("systemd".parse(), Ok(Listen::Systemd));
        for text in ["", "unix:", "example.com", "unix", "99999"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}

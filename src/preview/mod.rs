//! A live view: one small page that shows a stream before and after and lets its treatment be changed, and figures for
//! Prometheus. Nothing is copied or encoded for it unless somebody looks.

mod callers;
mod handler;
mod metrics;
mod server;
mod socket;
mod state;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use server::Preview;

use crate::error::{Error, Result};

/// The port where none is given.
const PORT: u16 = 8070;

/// Where a live view is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Default for Address {
    /// This machine alone.
    fn default() -> Self {
        Self(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let by_port = || text.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let by_address = || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
        let local = || {
            text.strip_prefix("localhost:")?.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        };
        let found = text.parse().ok().or_else(by_port).or_else(by_address).or_else(local);
        found.map(Self).ok_or("expected an address, a port or both, such as 127.0.0.1:8070, 8070 or 0.0.0.0")
    }
}

/// What whoever looks has to know, where the view is not for this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Whether it is one of 2^128, which nobody guesses however often he may.
    is_random: bool,
}

impl Token {
    /// A token that somebody chose.
    ///
    /// # Errors
    /// [`Error::Usage`] for one that cannot be part of an address, or is guessed soon.
    pub fn chosen(text: String) -> Result<Self> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if text.len() >= 8 && is_plain {
            return Ok(Self { text, is_random: false });
        }
        Err(Error::usage("the preview's token has to be 8 or more of the letters a to z, digits, -, _ and ."))
    }

    /// A new one.
    ///
    /// # Errors
    /// [`Error::Usage`] where the system has nothing random.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.map_err(|error| Error::usage(format!("/dev/urandom gives no token ({error}); set EDDY_PREVIEW_TOKEN")))?;
        Ok(Self { text: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), is_random: true })
    }

    /// Whether `given` is it, in a time that does not say how much of it is right.
    fn is(&self, given: &str) -> bool {
        let differs = self.text.bytes().zip(given.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.text.len() == given.len() && differs == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever a thread that panicked left is still figures, wishes and lists of callers.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Address, Token};

    #[test]
    fn addresses_as_people_write_them() {
        for (text, address) in [
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("9000", "127.0.0.1:9000"),
            ("0.0.0.0", "0.0.0.0:8070"),
            ("[::1]:80", "[::1]:80"),
            ("::1", "[::1]:8070"),
            ("localhost:81", "127.0.0.1:81"),
        ] {
            assert_eq!(text.parse(), Ok(Address(address.parse().unwrap())), "{text}");
        }
        for text in ["", "70000", "example.com:80", "127.0.0.1:", "/dev/video0"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens() {
        let token = Token::chosen("correct-horse".into()).unwrap();
        assert!(token.is("correct-horse"));
        assert!(!token.is("correct-hors") && !token.is("correct-horsf") && !token.is(""));
        assert!(Token::chosen("short".into()).is_err() && Token::chosen("with a space".into()).is_err());
        assert!(Token::random().unwrap() != Token::random().unwrap());
    }
}

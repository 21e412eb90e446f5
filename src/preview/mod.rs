//! A live view: one small page that shows the input and the result of a stream and allows settings
//! to be changed, and metrics for Prometheus. Nothing is copied or encoded for it unless a client
//! asks.

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

/// The default port.
const PORT: u16 = 8070;

/// The address of a live view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Default for Address {
    /// This machine only.
    fn default() -> Self {
        Self(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let by_port =
            || text.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        let by_address =
            || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
        let local = || {
            text.strip_prefix("localhost:")?
                .parse()
                .ok()
                .map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        };
        let found = text.parse().ok().or_else(by_port).or_else(by_address).or_else(local);
        found
            .map(Self)
            .ok_or("expected an address, a port or both, such as 127.0.0.1:8070, 8070 or 0.0.0.0")
    }
}

/// The secret that clients must present if other machines can reach the live view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Whether it has 128 random bits, and thus cannot be guessed.
    is_random: bool,
}

impl Token {
    /// A token chosen by the user.
    ///
    /// # Errors
    /// [`Error::Usage`] for a token that cannot be part of a URL, or is too short.
    pub fn chosen(text: String) -> Result<Self> {
        let is_plain =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if text.len() >= 8 && is_plain {
            return Ok(Self { text, is_random: false });
        }
        Err(Error::usage(
            "the preview's token has to be 8 or more of the letters a to z, digits, -, _ and .",
        ))
    }

    /// A random token.
    ///
    /// # Errors
    /// [`Error::Usage`] when the system provides no random bytes.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.map_err(|error| {
            Error::usage(format!(
                "no token can be read from /dev/urandom ({error}); set \
                                  EDDY_PREVIEW_TOKEN"
            ))
        })?;
        Ok(Self { text: bytes.iter().map(|byte| format!("{byte:02x}")).collect(), is_random: true })
    }

    /// Compares with `given` in constant time.
    fn is(&self, given: &str) -> bool {
        let differs =
            self.text.bytes().zip(given.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.text.len() == given.len() && differs == 0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The shared data stays valid when a thread panics with the lock held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Address, Token};

    #[test]
    fn parses_addresses() {
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
    fn compares_and_checks_tokens() {
        let token = Token::chosen("correct-horse".into()).unwrap();
        assert!(token.is("correct-horse"));
        assert!(!token.is("correct-hors") && !token.is("correct-horsf") && !token.is(""));
        assert!(
            Token::chosen("short".into()).is_err() && Token::chosen("with a space".into()).is_err()
        );
        assert!(Token::random().unwrap() != Token::random().unwrap());
    }
}

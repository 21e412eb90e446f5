//! A live view: one small page that shows the input and the result of a stream and allows settings
//! to be changed, and metrics for Prometheus. Nothing is copied or encoded for it unless a client
//! asks.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handler;
mod metrics;
mod server;
mod state;

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

pub use server::Preview;

pub use crate::http::Token;
use crate::http::parse_address;

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
        parse_address(text, PORT)
            .map(Self)
            .ok_or("expected an address, a port or both, such as 127.0.0.1:8070, 8070 or 0.0.0.0")
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

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
}

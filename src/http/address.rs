//! Addresses as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address, a port, or both, such as `127.0.0.1:8070`, `8070`, `0.0.0.0` or `localhost:8070`.
pub(crate) fn parse_address(text: &str, default_port: u16) -> Option<SocketAddr> {
    let local = |port: &str| {
        port.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    };
    let by_address =
        || text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, default_port));
    let by_name = || local(text.strip_prefix("localhost:")?);
    text.parse().ok().or_else(|| local(text)).or_else(by_address).or_else(by_name)
}

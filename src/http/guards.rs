//! Who may ask: guards against pages of other sites, and the token.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hyper::header::{self, HeaderName};
use hyper::http::request::Parts;

use super::callers::{Caller, Guesses};
use super::token::Token;

/// The value of a header, if it is text.
pub(crate) fn text(head: &Parts, name: HeaderName) -> Option<&str> {
    head.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether a request was meant for the server at `address`, rather than sent by another site's page
/// through DNS rebinding.
pub(crate) fn is_addressed_to(address: IpAddr, head: &Parts) -> bool {
    if !address.is_loopback() {
        // The token proves that.
        return true;
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if hosts.next().is_some() || head.uri.authority().is_some() {
        return false;
    }
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    ["localhost", "127.0.0.1", "[::1]"].contains(&name.map_or(host, |(name, _)| name))
        || name.is_some_and(|(name, _)| name == address.to_string())
}

/// Whether a browser sent the request for a page of another site. Programs send neither header.
pub(crate) fn is_cross_origin(head: &Parts) -> bool {
    let site = text(head, HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
        return true;
    }
    let Some(origin) = head.headers.get(header::ORIGIN) else { return false };
    let own = text(head, header::HOST).unwrap_or_default();
    let host = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    host.is_none_or(|(_, host)| own.is_empty() || host != own)
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The token is missing or wrong.
    WithoutToken,
    /// It sent too many wrong tokens, and may try again in so many seconds.
    Guessing(u64),
}

/// Lets in clients that have the token, where there is one.
pub(crate) struct Gate {
    token: Option<Token>,
    guesses: Guesses,
}

impl Gate {
    pub(crate) fn new(token: Option<Token>) -> Self {
        Self { token, guesses: Guesses::default() }
    }

    /// # Errors
    /// [`Refused`] for a client without the token.
    pub(crate) fn check(&self, caller: &Caller, head: &Parts) -> Result<(), Refused> {
        let Some(token) = &self.token else { return Ok(()) };
        let now = Instant::now();
        let given = text(head, header::AUTHORIZATION).and_then(bearer);
        let is_valid = given.is_some_and(|given| token.is(given));
        // Guesses from the same address do not lock out a client with a random token. A chosen
        // token can be guessed, so it is not accepted while the address must wait, unless this
        // connection presented it before.
        if is_valid && token.is_random {
            caller.is_known.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if !caller.is_known.load(Ordering::Relaxed)
            && let Some(wait) = self.guesses.wait(caller.peer, now)
        {
            return Err(Refused::Guessing(wait.as_secs().saturating_add(1)));
        }
        caller.is_known.store(is_valid, Ordering::Relaxed);
        if is_valid {
            return Ok(());
        }
        // A missing token is not a guess.
        if let Some(given) = given {
            self.guesses.wrong(caller.peer, given, now);
        }
        Err(Refused::WithoutToken)
    }
}

/// The token of an `Authorization` header; the scheme may be in any case (RFC 9110, section 11.1).
fn bearer(value: &str) -> Option<&str> {
    value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|it| it.1)
}

#[cfg(test)]
mod tests {
    use super::{bearer, is_addressed_to, is_cross_origin};
    use hyper::Request;
    use hyper::http::request::Parts;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let request =
            headers.iter().fold(Request::get("/"), |request, (k, v)| request.header(*k, *v));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn recognizes_pages_of_other_sites() {
        let host = ("host", "localhost:8071");
        for (headers, foreign) in [
            (&[host][..], false),
            (&[host, ("origin", "http://localhost:8071")], false),
            (&[host, ("origin", "http://evil.example")], true),
            (&[host, ("origin", "http://localhost:80710")], true),
            (&[host, ("origin", "null")], true),
            (&[host, ("sec-fetch-site", "same-origin")], false),
            (&[host, ("sec-fetch-site", "cross-site")], true),
            (&[("origin", "http://")], true),
        ] {
            assert_eq!(is_cross_origin(&head(headers)), foreign, "{headers:?}");
        }
    }

    #[test]
    fn rejects_names_of_others_on_loopback() {
        let local = "127.0.0.1".parse().unwrap();
        for (host, ok) in [
            ("localhost:1", true),
            ("127.0.0.1", true),
            ("[::1]:3", true),
            ("evil:1", false),
            ("", false),
        ] {
            assert_eq!(is_addressed_to(local, &head(&[("host", host)])), ok, "{host}");
        }
        assert!(is_addressed_to("0.0.0.0".parse().unwrap(), &head(&[("host", "evil")])));
    }

    #[test]
    fn takes_bearer_in_any_case() {
        assert_eq!((bearer("bearer a"), bearer("Basic a"), bearer("a")), (Some("a"), None, None));
    }
}

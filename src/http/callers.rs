//! Limits of clients: connections for each address, and the rate of token guesses.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::lock;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// In all.
    pub(crate) total: usize,
    /// Of one address of another machine.
    pub(crate) each: usize,
    /// Of this machine.
    pub(crate) local: usize,
}

/// Number of addresses with wrong tokens that are remembered.
const GUESSERS: usize = 256;

/// Wrong tokens that an address may send in a burst.
const GUESSES: u32 = 5;

/// Interval after which it may send another.
const GUESS: Duration = Duration::from_secs(10);

/// Number of wrong tokens of an address that are remembered: pages that were left open repeat
/// theirs, which is not guessing.
const KNOWN: usize = 4;

/// An address for the limits: an IPv4 address, or a whole /64 network of IPv6, since a client may
/// have all its 2^64 addresses. Clients of a Unix socket count as this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(IpAddr);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)))
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// An open connection.
struct Connection {
    id: u64,
    peer: Peer,
    /// When its last authorized request came.
    requested_at: Option<Instant>,
    /// Whether one of its requests is being answered, so that it is not closed for another.
    is_busy: bool,
    task: AbortHandle,
}

/// The open connections. A new one gets a place, for which an older one is closed that is not busy.
pub(crate) struct Connections {
    limits: ConnectionLimits,
    open: Mutex<Vec<Connection>>,
    count: AtomicU64,
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, open: Mutex::default(), count: AtomicU64::new(0) }
    }

    /// The number of open connections.
    pub(crate) fn count(&self) -> usize {
        lock(&self.open).len()
    }

    /// Accepts a connection from `address`. `serve` starts the task that serves it, and returns
    /// the task's handle.
    pub(super) fn serve(
        self: &Arc<Self>,
        address: IpAddr,
        serve: impl FnOnce(Caller) -> AbortHandle,
    ) {
        let (id, peer) = (self.count.fetch_add(1, Ordering::Relaxed), Peer::from(address));
        let caller =
            Caller { id, peer, connections: Arc::clone(self), is_known: AtomicBool::new(false) };
        // The task starts after this returns, since there is a single thread.
        let task = serve(caller);
        let mut open = lock(&self.open);
        let gone = self.limits.one_too_many(&open, peer).map(|old| open.swap_remove(old));
        open.push(Connection { id, peer, requested_at: None, is_busy: false, task });
        drop(open);
        end(gone);
    }

    /// Closes a connection to make room for another.
    pub(super) fn end_one(&self) {
        let mut open = lock(&self.open);
        let gone = least_of_crowd(&open).map(|old| open.swap_remove(old));
        drop(open);
        end(gone);
    }
}

fn end(gone: Option<Connection>) {
    if let Some(gone) = gone {
        gone.task.abort();
    }
}

/// The client of a connection, which is open until this is dropped.
pub(crate) struct Caller {
    id: u64,
    pub(crate) peer: Peer,
    connections: Arc<Connections>,
    /// Whether the last token on this connection was right.
    pub(super) is_known: AtomicBool,
}

impl Caller {
    /// Notes an authorized request.
    pub(crate) fn mark_requested(&self) {
        self.change(|connection| connection.requested_at = Some(Instant::now()));
    }

    /// Keeps the connection open until the returned value is dropped.
    pub(crate) fn keep(&self) -> Kept<'_> {
        self.change(|connection| connection.is_busy = true);
        Kept(self)
    }

    fn change(&self, change: impl FnOnce(&mut Connection)) {
        let mut open = lock(&self.connections.open);
        open.iter_mut().find(|connection| connection.id == self.id).map(change);
    }
}

/// Marks a connection as busy.
pub(crate) struct Kept<'a>(&'a Caller);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.change(|connection| connection.is_busy = false);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        lock(&self.connections.open).retain(|connection| connection.id != self.id);
    }
}

impl ConnectionLimits {
    /// The connection that must be closed for a new one of `peer`, if any: one of its own, or of
    /// the address that holds most connections without an authorized request.
    fn one_too_many(&self, open: &[Connection], peer: Peer) -> Option<usize> {
        let each = if peer.0.is_loopback() { self.local } else { self.each };
        if held(open, peer) >= each {
            least(open, peer)
        } else if open.len() >= self.total {
            least_of_crowd(open)
        } else {
            None
        }
    }
}

fn held(open: &[Connection], peer: Peer) -> usize {
    open.iter().filter(|connection| connection.peer == peer).count()
}

/// A connection without an authorized request if there is one, of the address that holds most such
/// connections; else the least used of the address that holds most connections.
fn least_of_crowd(open: &[Connection]) -> Option<usize> {
    let idle = || {
        open.iter().filter(|connection| connection.requested_at.is_none() && !connection.is_busy)
    };
    let idle_of_peer = |peer: &Peer| idle().filter(|connection| connection.peer == *peer).count();
    let busiest_peer =
        idle().map(|connection| connection.peer).min_by_key(|peer| Reverse(idle_of_peer(peer)));
    let busiest_peer = busiest_peer.or_else(|| {
        let free = open.iter().filter(|connection| !connection.is_busy);
        free.map(|connection| connection.peer).max_by_key(|peer| held(open, *peer))
    });
    least(open, busiest_peer?)
}

/// The connection of an address without an authorized request, or with the oldest one; none while
/// all are busy.
fn least(open: &[Connection], peer: Peer) -> Option<usize> {
    let is_free = |connection: &Connection| connection.peer == peer && !connection.is_busy;
    let of_peer = open.iter().enumerate().filter(|(_, connection)| is_free(connection));
    of_peer
        .min_by_key(|(_, connection)| (connection.requested_at, connection.id))
        .map(|(index, _)| index)
}

/// The wrong tokens of an address.
struct Guesser {
    peer: Peer,
    /// When all of its guesses are available again.
    free: Instant,
    /// Hashes of its latest wrong tokens.
    known: [u64; KNOWN],
}

/// Addresses that sent wrong tokens, and must wait.
#[derive(Default)]
pub(super) struct Guesses {
    guessers: Mutex<Vec<Guesser>>,
    hash: RandomState,
}

impl Guesses {
    /// How long an address must wait before it may guess again, if at all.
    pub(super) fn wait(&self, peer: Peer, now: Instant) -> Option<Duration> {
        let guessers = lock(&self.guessers);
        let free = guessers.iter().find(|guesser| guesser.peer == peer)?.free;
        let wait = free.saturating_duration_since(now).saturating_sub(GUESS * (GUESSES - 1));
        (!wait.is_zero()).then_some(wait)
    }

    /// Records a wrong token from an address.
    pub(super) fn wrong(&self, peer: Peer, token: &str, now: Instant) {
        let token = self.hash.hash_one(token);
        let mut guessers = lock(&self.guessers);
        if let Some(guesser) = guessers.iter_mut().find(|guesser| guesser.peer == peer) {
            if !guesser.known.contains(&token) {
                guesser.known.rotate_right(1);
                guesser.known[0] = token;
                guesser.free = guesser.free.max(now) + GUESS;
            }
            return;
        }
        if guessers.len() >= GUESSERS {
            // Forgets the address that has least to wait.
            let least = guessers
                .iter()
                .enumerate()
                .min_by_key(|(_, guesser)| guesser.free)
                .map(|(index, _)| index);
            least.map(|index| guessers.swap_remove(index));
        }
        guessers.push(Guesser { peer, free: now + GUESS, known: [token; KNOWN] });
    }
}

#[cfg(test)]
mod tests {
    use super::{Connection, ConnectionLimits, GUESS, GUESSERS, GUESSES, Guesses, Peer};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    const CONNECTIONS: usize = 64;
    const CONNECTIONS_EACH: usize = 32;
    const LIMITS: ConnectionLimits =
        ConnectionLimits { total: CONNECTIONS, each: CONNECTIONS_EACH, local: 1 };

    fn peer(number: u32) -> Peer {
        Peer::from(IpAddr::from(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn groups_ipv6_addresses_by_network() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2:3"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }

    #[test]
    fn closes_a_connection_of_the_address_with_most() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(async {}).abort_handle();
        let mut open: Vec<Connection> = Vec::new();
        let mut add = |number: u32, requested_at: Option<Instant>| {
            let gone =
                LIMITS.one_too_many(&open, peer(number)).map(|index| open.swap_remove(index));
            let id = open
                .last()
                .map_or(0, |_| open.iter().map(|connection| connection.id).max().unwrap() + 1);
            let task = task.clone();
            open.push(Connection { id, peer: peer(number), requested_at, is_busy: false, task });
            gone.map(|gone| (gone.peer, gone.id))
        };
        // Its first connection has an authorized request, and outlives idle ones.
        assert_eq!(add(1, Some(Instant::now())), None);
        for _ in 1..CONNECTIONS_EACH {
            assert_eq!(add(1, None), None);
        }
        assert_eq!((add(1, None), add(1, None)), (Some((peer(1), 1)), Some((peer(1), 2))));
        for other in 0..CONNECTIONS - CONNECTIONS_EACH {
            assert_eq!(add(2 + other as u32, None), None, "{other}");
        }
        assert_eq!(add(1000, None), Some((peer(1), 3)));
    }

    #[test]
    fn keeps_a_viewers_connections_when_many_addresses_hold_one_each() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(async {}).abort_handle();
        let connection = |id: u64, number, requested_at| Connection {
            id,
            peer: peer(number),
            requested_at,
            is_busy: false,
            task: task.clone(),
        };
        let mut open: Vec<_> = (0..2).map(|id| connection(id, 1, Some(Instant::now()))).collect();
        open.extend((2..CONNECTIONS as u64).map(|id| connection(id, id as u32, None)));
        assert_eq!(LIMITS.one_too_many(&open, peer(1000)).map(|index| open[index].id), Some(2));
        open.iter_mut().filter(|connection| connection.id != 40).for_each(|it| it.is_busy = true);
        assert_eq!(LIMITS.one_too_many(&open, peer(1000)).map(|index| open[index].id), Some(40));
        open.iter_mut().for_each(|connection| connection.is_busy = true);
        assert_eq!(LIMITS.one_too_many(&open, peer(1000)), None);
    }

    #[test]
    fn limits_guesses_for_each_address() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for guess in 0..GUESSES {
            assert_eq!(guesses.wait(peer(1), now), None, "{guess}");
            guesses.wrong(peer(1), &guess.to_string(), now);
        }
        assert_eq!((guesses.wait(peer(1), now), guesses.wait(peer(2), now)), (Some(GUESS), None));
        assert_eq!(
            guesses.wait(peer(1), now + GUESS - Duration::from_secs(1)),
            Some(Duration::from_secs(1))
        );
        assert_eq!(guesses.wait(peer(1), now + GUESS), None);
        guesses.wrong(peer(1), "another", now + GUESS);
        assert_eq!(guesses.wait(peer(1), now + GUESS), Some(GUESS));
        // Simulates a page that was left open.
        for _ in 0..100 {
            guesses.wrong(peer(2), "old", now);
        }
        assert_eq!(guesses.wait(peer(2), now), None);
        // With more addresses than are remembered, those that must wait are kept.
        for number in 10..10 + 2 * GUESSERS as u32 {
            guesses.wrong(peer(number), "wrong", now);
        }
        assert!(guesses.wait(peer(1), now).is_some());
        assert_eq!(guesses.guessers.lock().unwrap().len(), GUESSERS);
    }
}

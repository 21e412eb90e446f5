//! Who calls: how many connections each address may hold, and how often it may guess a token.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::lock;

/// So many connections are held.
const CONNECTIONS: usize = 64;

/// So many of them are held for one address.
const CONNECTIONS_EACH: usize = 32;

/// So many addresses that guessed wrong are remembered.
const GUESSERS: usize = 256;

/// An address may guess wrong so often at once,
const GUESSES: u32 = 5;

/// and then once in so long.
const GUESS: Duration = Duration::from_secs(10);

/// So many wrong tokens of an address are known again: pages that were left open ask with theirs for ever, which is no guessing.
const KNOWN: usize = 4;

/// An address as it is counted: one of IPv4, or all of a network of IPv6, of which whoever has one has 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer(IpAddr);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// A connection that is open.
struct Connection {
    id: u64,
    peer: Peer,
    /// When it last asked for something that it may have.
    asked: Option<Instant>,
    task: AbortHandle,
}

/// The connections that are open. There is always room for a new one: an older one goes for it.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<Vec<Connection>>,
    count: AtomicU64,
}

impl Connections {
    /// Takes in a connection from `address`. `serve` has a task begin that serves it, and gives up the task's handle.
    pub(super) fn serve(self: &Arc<Self>, address: IpAddr, serve: impl FnOnce(Caller) -> AbortHandle) {
        let (id, peer) = (self.count.fetch_add(1, Ordering::Relaxed), Peer::from(address));
        let caller = Caller { id, peer, connections: Arc::clone(self), is_known: AtomicBool::new(false) };
        // The task begins when this has returned: there is one thread.
        let task = serve(caller);
        let mut open = lock(&self.open);
        let gone = one_too_many(&open, peer).map(|old| open.swap_remove(old));
        open.push(Connection { id, peer, asked: None, task });
        drop(open);
        end(gone);
    }

    /// Ends a connection, for want of room for another.
    pub(super) fn end_one(&self) {
        let mut open = lock(&self.open);
        let gone = crowd(&open).and_then(|crowd| least(&open, crowd)).map(|old| open.swap_remove(old));
        drop(open);
        end(gone);
    }
}

fn end(gone: Option<Connection>) {
    if let Some(gone) = gone {
        gone.task.abort();
    }
}

/// Whose connection it is. It is open until this is dropped.
pub(super) struct Caller {
    id: u64,
    pub(super) peer: Peer,
    connections: Arc<Connections>,
    /// Whether the last token that came this way was right.
    pub(super) is_known: AtomicBool,
}

impl Caller {
    /// Something was asked for that may be had.
    pub(super) fn asked(&self) {
        let mut open = lock(&self.connections.open);
        if let Some(connection) = open.iter_mut().find(|connection| connection.id == self.id) {
            connection.asked = Some(Instant::now());
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        lock(&self.connections.open).retain(|connection| connection.id != self.id);
    }
}

/// Which connection goes for another one of `peer`, if one has to: one of its own, or of the address that holds most.
fn one_too_many(open: &[Connection], peer: Peer) -> Option<usize> {
    if held(open, peer) >= CONNECTIONS_EACH {
        least(open, peer)
    } else if open.len() >= CONNECTIONS {
        least(open, crowd(open)?)
    } else {
        None
    }
}

fn held(open: &[Connection], peer: Peer) -> usize {
    open.iter().filter(|connection| connection.peer == peer).count()
}

/// The address that holds most connections.
fn crowd(open: &[Connection]) -> Option<Peer> {
    open.iter().map(|connection| connection.peer).max_by_key(|peer| held(open, *peer))
}

/// Of an address's connections, the one that never asked for what it may have, or did so longest ago.
fn least(open: &[Connection], peer: Peer) -> Option<usize> {
    let of_peer = open.iter().enumerate().filter(|(_, connection)| connection.peer == peer);
    of_peer.min_by_key(|(_, connection)| (connection.asked, connection.id)).map(|(index, _)| index)
}

/// What an address guessed.
struct Guesser {
    peer: Peer,
    /// When all that it guessed is made up for.
    free: Instant,
    /// Hashes of its latest wrong tokens.
    known: [u64; KNOWN],
}

/// Who guessed wrong, and so has to wait.
#[derive(Default)]
pub(super) struct Guesses {
    guessers: Mutex<Vec<Guesser>>,
    hash: RandomState,
}

impl Guesses {
    /// How long an address has to wait until it may guess again, if it has to.
    pub(super) fn wait(&self, peer: Peer, now: Instant) -> Option<Duration> {
        let guessers = lock(&self.guessers);
        let free = guessers.iter().find(|guesser| guesser.peer == peer)?.free;
        let wait = free.saturating_duration_since(now).saturating_sub(GUESS * (GUESSES - 1));
        (!wait.is_zero()).then_some(wait)
    }

    /// An address guessed wrong.
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
            // Whoever has least to make up for is forgotten.
            let least = guessers.iter().enumerate().min_by_key(|(_, guesser)| guesser.free).map(|(index, _)| index);
            least.map(|index| guessers.swap_remove(index));
        }
        guessers.push(Guesser { peer, free: now + GUESS, known: [token; KNOWN] });
    }
}

#[cfg(test)]
mod tests {
    use super::{CONNECTIONS, CONNECTIONS_EACH, Connection, GUESS, GUESSERS, GUESSES, Guesses, Peer, one_too_many};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    fn peer(number: u32) -> Peer {
        Peer::from(IpAddr::from(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn an_address_of_ipv6_stands_for_its_network() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2:3"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }

    #[test]
    fn who_holds_most_makes_room() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(async {}).abort_handle();
        let mut open: Vec<Connection> = Vec::new();
        let mut add = |number: u32, asked: Option<Instant>| {
            let gone = one_too_many(&open, peer(number)).map(|index| open.swap_remove(index));
            let id = open.last().map_or(0, |_| open.iter().map(|connection| connection.id).max().unwrap() + 1);
            open.push(Connection { id, peer: peer(number), asked, task: task.clone() });
            gone.map(|gone| (gone.peer, gone.id))
        };
        // Its first one is served, and outlives those that are idle.
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
    fn guessing_gets_slow_and_no_one_else_waits() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for guess in 0..GUESSES {
            assert_eq!(guesses.wait(peer(1), now), None, "{guess}");
            guesses.wrong(peer(1), &guess.to_string(), now);
        }
        assert_eq!((guesses.wait(peer(1), now), guesses.wait(peer(2), now)), (Some(GUESS), None));
        assert_eq!(guesses.wait(peer(1), now + GUESS - Duration::from_secs(1)), Some(Duration::from_secs(1)));
        assert_eq!(guesses.wait(peer(1), now + GUESS), None);
        guesses.wrong(peer(1), "another", now + GUESS);
        assert_eq!(guesses.wait(peer(1), now + GUESS), Some(GUESS));
        // A page that was left open.
        for _ in 0..100 {
            guesses.wrong(peer(2), "old", now);
        }
        assert_eq!(guesses.wait(peer(2), now), None);
        // There are more addresses than are remembered; those that have to wait still do.
        for number in 10..10 + 2 * GUESSERS as u32 {
            guesses.wrong(peer(number), "wrong", now);
        }
        assert!(guesses.wait(peer(1), now).is_some());
        assert_eq!(guesses.guessers.lock().unwrap().len(), GUESSERS);
    }
}

//! What the HTTP servers of the live view and of `eddy serve` share: connections and their limits,
//! slow clients, tokens, and the guards against pages of other sites.

mod address;
mod callers;
mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod guards;
mod socket;
mod token;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use address::parse_address;
pub(crate) use callers::{Caller, ConnectionLimits, Connections};
pub(crate) use connection::{Answer, Handler, Listener, Profile, Served, accept, listen_tcp};
pub(crate) use guards::{Gate, Refused, is_addressed_to, is_cross_origin, text};
pub use token::Token;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The shared data stays valid when a thread panics with the lock held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

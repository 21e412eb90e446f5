//! The log: one record for each request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Record {
    /// The number of the request since the start of the server.
    pub id: u64,
    /// The address of the client.
    pub client: String,
    /// The method and the path, without parameters.
    pub method: String,
    /// The path, without parameters.
    pub path: String,
    /// The status of the answer; 499 if the client left before it.
    pub status: u16,
    /// The model that ran it, if any.
    pub model: Option<String>,
    /// Bytes of the body of the request, and of the answer.
    pub received: u64,
    /// Bytes of the body of the answer.
    pub sent: u64,
    /// How long it waited for the model.
    pub waited: Duration,
    /// How long it ran.
    pub ran: Duration,
    /// From its head to its answer.
    pub total: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// What takes records.
pub type Log = Box<dyn Fn(&Record) + Send + Sync>;

/// The status in records of requests whose client left, as nginx has it.
pub(super) const CLIENT_LEFT: u16 = 499;

impl Record {
    /// The record as JSON. Names are stable; docs/serve.md lists them.
    pub fn to_json(&self) -> Value {
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        json!({
            "time": milliseconds(now) / 1e3, "id": self.id, "client": self.client,
            "method": self.method, "path": self.path, "status": self.status, "model": self.model,
            "received": self.received, "sent": self.sent,
            "waited_ms": milliseconds(self.waited), "ran_ms": milliseconds(self.ran),
            "total_ms": milliseconds(self.total), "error": self.error,
        })
    }

    /// The record as a line for people.
    pub fn to_text(&self) -> String {
        let Self { client, method, path, status, received, sent, .. } = self;
        let total = self.total.as_secs_f64();
        let mut text = format!("{client} {method} {path} {status}");
        if let Some(model) = &self.model {
            let (waited, ran) = (self.waited.as_secs_f64(), self.ran.as_secs_f64());
            text += &format!(", {model}, waited {waited:.3} s, ran {ran:.3} s");
        }
        text += &format!(", {received} bytes in, {sent} out, {total:.3} s");
        if let Some(error) = &self.error {
            text += &format!(": {error}");
        }
        text
    }
}

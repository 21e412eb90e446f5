//! JSON records of a run. The field names are stable.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Counters, Histogram};
use crate::video::{QualityLevel, StreamStatus};

/// The counters; `rate` is in frames per second.
pub fn of_counters(event: &str, counters: &Counters, rate: f64) -> Value {
    json!({
        "event": event, "read": counters.read, "written": counters.written,
        "dropped": counters.dropped,
        "corrupt": counters.corrupt, "reconnected": counters.reconnected, "late": counters.late,
        "seconds": counters.elapsed.as_secs_f64(), "rate": rate,
    })
}

/// The quality level.
pub fn of_quality(quality: &QualityLevel) -> Value {
    json!({
        "model": &*quality.model, "precision": quality.precision.name(), "steps": quality.steps,
        "scale": quality.scale.to_string(), "tiles_reused_longer": quality.reuse_tiles_longer,
    })
}

/// The status of the stream.
pub fn of_status(stream_status: &StreamStatus) -> Value {
    let mut record = of_quality(&stream_status.quality);
    let more = json!({
        "changes": stream_status.changes, "tiles_repeated": stream_status.repeated,
        "passed_through": stream_status.failed,
        "sigma": stream_status.sigma, "temporal": stream_status.temporal,
    });
    extend(&mut record, more);
    record
}

/// Quantiles of the latency from arrival to writing.
pub fn of_latency(latency: &Histogram) -> Value {
    let [p50, p95, p99] = latency.quantiles().map(milliseconds);
    json!({"latency_p50_ms": p50, "latency_p95_ms": p95, "latency_p99_ms": p99})
}

/// Milliseconds, the unit of durations in records.
pub fn milliseconds(duration: Duration) -> f64 {
    1000.0 * duration.as_secs_f64()
}

/// Adds the fields of another record.
pub fn extend(record: &mut Value, more: Value) {
    if let (Value::Object(record), Value::Object(more)) = (record, more) {
        record.extend(more);
    }
}

/// Frame rate over the last time window.
#[derive(Clone, Debug)]
pub struct Recent {
    window: Duration,
    began: Instant,
    before: (u64, Duration),
    rate: Option<f64>,
}

impl Recent {
    /// A rate over windows of this length.
    pub fn over(window: Duration) -> Self {
        Self { window, began: Instant::now(), before: (0, Duration::ZERO), rate: None }
    }

    /// The rate over the last complete window, or so far; and whether a window has just been
    /// completed.
    pub fn rate(&mut self, counters: &Counters) -> (f64, bool) {
        let (count, elapsed) = self.before;
        let seconds = counters.elapsed.saturating_sub(elapsed).as_secs_f64();
        let so_far = (counters.written - count) as f64 / seconds.max(1e-9);
        let is_complete = self.began.elapsed() >= self.window;
        if is_complete {
            self.rate = Some(so_far);
            (self.began, self.before) = (Instant::now(), (counters.written, counters.elapsed));
        }
        (self.rate.unwrap_or(so_far), is_complete)
    }
}

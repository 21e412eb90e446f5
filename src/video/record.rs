//! What is told of a run, for machines: names that stay.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Histogram, Quality, Tally, Treatment};

/// How far a run has come; `rate` is in pictures a second.
pub fn of_tally(event: &str, tally: &Tally, rate: f64) -> Value {
    json!({
        "event": event, "read": tally.read, "written": tally.written, "dropped": tally.dropped,
        "corrupt": tally.corrupt, "reconnected": tally.reconnected, "late": tally.late,
        "seconds": tally.elapsed.as_secs_f64(), "rate": rate,
    })
}

/// How much is done to pictures.
pub fn of_quality(quality: &Quality) -> Value {
    json!({
        "model": &*quality.model, "precision": quality.precision.name(), "steps": quality.steps,
        "scale": quality.scale.to_string(), "tiles_kept_longer": quality.thrifty,
    })
}

/// What is being done to pictures.
pub fn of_treatment(treatment: &Treatment) -> Value {
    let mut record = of_quality(&treatment.quality);
    let more = json!({
        "changes": treatment.changes, "tiles_repeated": treatment.repeated, "passed_on": treatment.failed,
        "sigma": treatment.sigma, "temporal": treatment.temporal,
    });
    extend(&mut record, more);
    record
}

/// From arrival to when pictures were written.
pub fn of_latency(latency: &Histogram) -> Value {
    let [p50, p95, p99] = latency.told().map(milliseconds);
    json!({"latency_p50_ms": p50, "latency_p95_ms": p95, "latency_p99_ms": p99})
}

/// As records have it.
pub fn milliseconds(duration: Duration) -> f64 {
    1000.0 * duration.as_secs_f64()
}

/// Adds what another record has.
pub fn extend(record: &mut Value, more: Value) {
    if let (Value::Object(record), Value::Object(more)) = (record, more) {
        record.extend(more);
    }
}

/// Pictures a second of late.
#[derive(Clone, Debug)]
pub struct Recent {
    window: Duration,
    began: Instant,
    before: (u64, Duration),
    rate: Option<f64>,
}

impl Recent {
    /// Over so long a time.
    pub fn over(window: Duration) -> Self {
        Self { window, began: Instant::now(), before: (0, Duration::ZERO), rate: None }
    }

    /// The rate over the last such time that is complete, or so far; and whether one has just been completed.
    pub fn rate(&mut self, tally: &Tally) -> (f64, bool) {
        let (count, elapsed) = self.before;
        let seconds = tally.elapsed.saturating_sub(elapsed).as_secs_f64();
        let so_far = (tally.written - count) as f64 / seconds.max(1e-9);
        let is_complete = self.began.elapsed() >= self.window;
        if is_complete {
            self.rate = Some(so_far);
            (self.began, self.before) = (Instant::now(), (tally.written, tally.elapsed));
        }
        (self.rate.unwrap_or(so_far), is_complete)
    }
}

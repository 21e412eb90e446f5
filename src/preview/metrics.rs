//! Metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::state::Metrics;
use crate::video::{Histogram, StreamStatus};

/// The metrics of a run. Names are stable; README lists them.
pub(super) fn text(metrics: &Metrics) -> String {
    let Metrics { counters, rate, stream_status, latency } = metrics;
    let StreamStatus { quality, changes, sigma, temporal, repeated, failed } = stream_status;
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(
            out,
            "# HELP eddy_{name} {help}\n# TYPE eddy_{name} {kind}\neddy_{name} {value}\n"
        );
    };
    let totals = [
        ("frames_read_total", "Frames that were read.", counters.read),
        ("frames_written_total", "Frames that were written.", counters.written),
        ("frames_dropped_total", "Frames that were dropped for newer ones.", counters.dropped),
        ("frames_corrupt_total", "Frames that were damaged.", counters.corrupt),
        ("frames_late_total", "Frames that were written after their deadline.", counters.late),
        (
            "frames_passed_through_total",
            "Frames for which the network gave invalid output, passed through unchanged.",
            *failed,
        ),
        (
            "tiles_repeated_total",
            "Tiles with invalid output, which were computed again.",
            *repeated,
        ),
        ("quality_changes_total", "Changes of quality to keep up with the frame rate.", *changes),
        ("reconnects_total", "Reconnections of the source.", counters.reconnected),
    ];
    for (name, help, value) in totals {
        metric(name, "counter", help, value as f64);
    }
    metric("rate", "gauge", "Frames written per second, over the last 2 seconds.", *rate);
    metric("steps", "gauge", "Evaluations of the network for each frame.", quality.steps as f64);
    metric(
        "scale",
        "gauge",
        "The scale at which frames are processed; 1 is full resolution.",
        quality.scale.factor(),
    );
    metric(
        "temporal",
        "gauge",
        "Whether previous frames are used.",
        f64::from(u8::from(*temporal)),
    );
    if let Some(sigma) = sigma {
        metric("sigma", "gauge", "The standard deviation of the noise, in 8-bit units.", *sigma);
    }
    metric(
        "uptime_seconds",
        "gauge",
        "Time since the first frame.",
        counters.elapsed.as_secs_f64(),
    );
    out += "# HELP eddy_latency_seconds Time from a frame's arrival until it was written.\n";
    out += "# TYPE eddy_latency_seconds summary\n";
    for (part, quantile) in Histogram::QUANTILES.into_iter().zip(latency.quantiles()) {
        let _ =
            writeln!(out, "eddy_latency_seconds{{quantile=\"{part}\"}} {}", quantile.as_secs_f64());
    }
    let _ = writeln!(out, "eddy_latency_seconds_sum {}", latency.total().as_secs_f64());
    let _ = writeln!(out, "eddy_latency_seconds_count {}", latency.count());
    out += "# HELP eddy_info What runs.\n# TYPE eddy_info gauge\n";
    let model = quality.model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let (version, precision) = (env!("CARGO_PKG_VERSION"), quality.precision);
    let _ = writeln!(
        out,
        "eddy_info{{version=\"{version}\",model=\"{model}\",precision=\"{precision}\"}} 1"
    );
    out
}

//! Metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

use super::state::Metrics;
use crate::video::{Histogram, StreamStatus};

/// The metrics of a run. Names are stable; docs/preview.md lists them.
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
            "Frames passed through unchanged because the network's output was invalid.",
            *failed,
        ),
        (
            "tiles_repeated_total",
            "Tiles whose output was invalid and that were computed again.",
            *repeated,
        ),
        ("quality_changes_total", "Changes of the quality to keep the frame rate.", *changes),
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
        "The working resolution as a fraction of the frame's.",
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
    out += "# HELP eddy_latency_seconds From a frame's arrival to when it was written.\n";
    out += "# TYPE eddy_latency_seconds summary\n";
    for (part, quantile) in Histogram::QUANTILES.into_iter().zip(latency.quantiles()) {
        let _ =
            writeln!(out, "eddy_latency_seconds{{quantile=\"{part}\"}} {}", quantile.as_secs_f64());
    }
    let _ = writeln!(out, "eddy_latency_seconds_sum {}", latency.total().as_secs_f64());
    let _ = writeln!(out, "eddy_latency_seconds_count {}", latency.count());
    out += "# HELP eddy_info Version, network and precision.\n# TYPE eddy_info gauge\n";
    let model = quality.model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let (version, precision) = (env!("CARGO_PKG_VERSION"), quality.precision);
    let _ = writeln!(
        out,
        "eddy_info{{version=\"{version}\",model=\"{model}\",precision=\"{precision}\"}} 1"
    );
    out
}

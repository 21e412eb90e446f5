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
        ("pictures_read_total", "Frames that came.", counters.read),
        ("pictures_written_total", "Frames that were written.", counters.written),
        ("pictures_dropped_total", "Frames that were dropped for newer ones.", counters.dropped),
        ("pictures_corrupt_total", "Frames that were damaged.", counters.corrupt),
        ("pictures_late_total", "Frames that were written after their deadline.", counters.late),
        (
            "pictures_passed_on_total",
            "Frames of which the network made none, passed on as they were.",
            *failed,
        ),
        (
            "tiles_repeated_total",
            "Tiles that came out as no frame and were computed again.",
            *repeated,
        ),
        ("quality_changes_total", "How often the treatment changed so as to keep up.", *changes),
        ("reconnects_total", "How often the source was gone and came back.", counters.reconnected),
    ];
    for (name, help, value) in totals {
        metric(name, "counter", help, value as f64);
    }
    metric("rate", "gauge", "Frames written per second, over the last 2 seconds.", *rate);
    metric("steps", "gauge", "Evaluations of the network for each frame.", quality.steps as f64);
    metric(
        "scale",
        "gauge",
        "The size at which frames are worked on, as a part of their own.",
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
    out += "# HELP eddy_info What runs.\n# TYPE eddy_info gauge\n";
    let model = quality.model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let (version, precision) = (env!("CARGO_PKG_VERSION"), quality.precision);
    let _ = writeln!(
        out,
        "eddy_info{{version=\"{version}\",model=\"{model}\",precision=\"{precision}\"}} 1"
    );
    out
}

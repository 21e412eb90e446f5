//! Figures as Prometheus reads them (its text format, version 0.0.4).

use std::fmt::Write;

use super::board::Figures;
use crate::video::{Histogram, Treatment};

/// The figures of a run. Names stay; README lists them.
pub(super) fn text(figures: &Figures) -> String {
    let Figures { tally, rate, treatment, latency } = figures;
    let Treatment { quality, changes, sigma, temporal, repeated, failed } = treatment;
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = write!(out, "# HELP eddy_{name} {help}\n# TYPE eddy_{name} {kind}\neddy_{name} {value}\n");
    };
    let totals = [
        ("pictures_read_total", "Pictures that came.", tally.read),
        ("pictures_written_total", "Pictures that were written.", tally.written),
        ("pictures_dropped_total", "Pictures that were dropped for newer ones.", tally.dropped),
        ("pictures_corrupt_total", "Pictures that were damaged.", tally.corrupt),
        ("pictures_late_total", "Pictures that were written after their deadline.", tally.late),
        ("pictures_passed_on_total", "Pictures of which the network made none, passed on as they were.", *failed),
        ("tiles_repeated_total", "Tiles that came out as no picture and were computed again.", *repeated),
        ("quality_changes_total", "How often the treatment changed so as to keep up.", *changes),
        ("reconnects_total", "How often the source was gone and came back.", tally.reconnected),
    ];
    for (name, help, value) in totals {
        metric(name, "counter", help, value as f64);
    }
    metric("rate", "gauge", "Pictures written a second, of late.", *rate);
    metric("steps", "gauge", "Evaluations of the network for each picture.", quality.steps as f64);
    metric(
        "scale",
        "gauge",
        "The size at which pictures are worked on, as a part of their own.",
        quality.scale.factor(),
    );
    metric("temporal", "gauge", "Whether pictures before are drawn on.", f64::from(u8::from(*temporal)));
    if let Some(sigma) = sigma {
        metric("sigma", "gauge", "The standard deviation of the noise, in 8-bit units.", *sigma);
    }
    metric("uptime_seconds", "gauge", "Time since the first picture.", tally.elapsed.as_secs_f64());
    out += "# HELP eddy_latency_seconds From a picture's arrival to when it was written.\n";
    out += "# TYPE eddy_latency_seconds summary\n";
    for (part, quantile) in Histogram::TOLD.into_iter().zip(latency.told()) {
        let _ = writeln!(out, "eddy_latency_seconds{{quantile=\"{part}\"}} {}", quantile.as_secs_f64());
    }
    let _ = writeln!(out, "eddy_latency_seconds_sum {}", latency.total().as_secs_f64());
    let _ = writeln!(out, "eddy_latency_seconds_count {}", latency.count());
    out += "# HELP eddy_info What runs.\n# TYPE eddy_info gauge\n";
    let model = quality.model.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let (version, precision) = (env!("CARGO_PKG_VERSION"), quality.precision);
    let _ = writeln!(out, "eddy_info{{version=\"{version}\",model=\"{model}\",precision=\"{precision}\"}} 1");
    out
}

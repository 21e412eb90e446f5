//! Metrics in the text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::record::Record;
use super::shared::Shared;
use crate::http::lock;
use crate::machine;
use crate::video::Histogram;

/// What is counted.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// By endpoint and status.
    requests: BTreeMap<(&'static str, u16), u64>,
    /// By model: how long requests waited and ran.
    models: BTreeMap<String, [Histogram; 2]>,
    received: u64,
    sent: u64,
}

impl Metrics {
    /// Adds a request that was answered.
    pub(super) fn add(&self, endpoint: &'static str, record: &Record) {
        let mut counts = lock(&self.0);
        *counts.requests.entry((endpoint, record.status)).or_default() += 1;
        counts.received += record.received;
        counts.sent += record.sent;
        // A name of a loaded model; there are few.
        if let Some(model) = record.model.as_ref().filter(|_| record.ran > Duration::ZERO) {
            let [waited, ran] = counts.models.entry(model.clone()).or_default();
            waited.add(record.waited);
            ran.add(record.ran);
        }
    }
}

/// The metrics of a server. Names are stable; docs/serve.md lists them.
pub(super) fn text(shared: &Shared) -> String {
    let mut page = Page::default();
    let counts = lock(&shared.metrics.0);
    page.family(
        "requests_total",
        "counter",
        "Requests that were answered; 499 are clients that left.",
    );
    for ((endpoint, status), count) in &counts.requests {
        let labels = format!("{{endpoint=\"{endpoint}\",status=\"{status}\"}}");
        page.value("requests_total", &labels, *count as f64);
    }
    for (name, help, of) in [
        ("waiting_seconds", "From a request's arrival to its start.", 0),
        ("running_seconds", "From a request's start to its result.", 1),
    ] {
        page.family(name, "summary", help);
        for (model, histograms) in &counts.models {
            page.summary(name, &label("model", model), &histograms[of]);
        }
    }
    let (received, sent) = (counts.received as f64, counts.sent as f64);
    drop(counts);
    page.one("received_bytes_total", "counter", "Bytes of bodies of requests.", received);
    page.one("sent_bytes_total", "counter", "Bytes of bodies of answers.", sent);
    page.family("requests_waiting", "gauge", "Requests that wait for a model.");
    for model in &shared.models {
        page.model("requests_waiting", &model.name, model.queue.counts().0 as f64);
    }
    page.family("requests_running", "gauge", "Requests that a model runs.");
    for model in &shared.models {
        page.model("requests_running", &model.name, model.queue.counts().1 as f64);
    }
    page.family("model_ready", "gauge", "Whether a model is loaded.");
    for model in &shared.models {
        page.model("model_ready", &model.name, f64::from(u8::from(model.is_ready())));
    }
    let active = shared.active.load(Ordering::Relaxed) as f64;
    page.one("requests_active", "gauge", "Requests that are being received or answered.", active);
    let connections = shared.connections.count() as f64;
    page.one("connections", "gauge", "Open connections.", connections);
    page.one(
        "body_bytes",
        "gauge",
        "Memory of bodies of requests and answers.",
        shared.memory.used() as f64,
    );
    page.one(
        "resident_bytes",
        "gauge",
        "Memory of the process.",
        machine::resident_memory() as f64,
    );
    page.one(
        "uptime_seconds",
        "gauge",
        "Time since the start.",
        shared.started.elapsed().as_secs_f64(),
    );
    page.family("info", "gauge", "What runs.");
    for model in &shared.models {
        let labels = format!(
            "{{version=\"{}\",model=\"{}\",precision=\"{}\",device=\"{}\"}}",
            env!("CARGO_PKG_VERSION"),
            escaped(&model.name),
            model.precision,
            escaped(&shared.device)
        );
        page.value("info", &labels, 1.0);
    }
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP eddy_{name} {help}\n# TYPE eddy_{name} {kind}\n");
    }

    fn value(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.0, "eddy_{name}{labels} {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.value(name, "", value);
    }

    fn model(&mut self, name: &str, model: &str, value: f64) {
        self.value(name, &format!("{{{}}}", label("model", model)), value);
    }

    fn summary(&mut self, name: &str, label: &str, histogram: &Histogram) {
        for (part, quantile) in Histogram::QUANTILES.into_iter().zip(histogram.quantiles()) {
            self.value(name, &format!("{{{label},quantile=\"{part}\"}}"), quantile.as_secs_f64());
        }
        self.value(
            &format!("{name}_sum"),
            &format!("{{{label}}}"),
            histogram.total().as_secs_f64(),
        );
        self.value(&format!("{name}_count"), &format!("{{{label}}}"), histogram.count() as f64);
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", escaped(value))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

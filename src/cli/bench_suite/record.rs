//! What a suite measured, as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use eddy::machine::{self, PowerMeter};
use eddy::model::Precision;
use serde::{Deserialize, Serialize};

use super::super::options::Size;

/// The version of the format, which changes with the meaning of its names.
const FORMAT: u32 = 1;

/// The record of a suite.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Record {
    /// The version of the format.
    suite: u32,
    /// Whether the suite ran to its end.
    pub(super) complete: bool,
    /// The command line.
    pub(super) command: String,
    pub(super) machine: Machine,
    /// The duration of each figure.
    pub(super) seconds: f64,
    /// The duration of the suite so far.
    pub(super) took_seconds: f64,
    pub(super) rows: Vec<Row>,
}

/// The machine and the software.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: String,
    pub(super) board: Option<String>,
    /// The number of threads that the CPU runs at the same time.
    pub(super) cores: usize,
    /// The memory that a process may use.
    pub(super) memory_bytes: u64,
    pub(super) governor: Option<String>,
    pub(super) max_mhz: Option<f64>,
    /// Threads that ran or waited for a core before the start.
    pub(super) load: f64,
    pub(super) temperature_sensor: Option<String>,
    pub(super) temperature_before_c: Option<f64>,
    pub(super) temperature_after_c: Option<f64>,
    /// What the energy is that of.
    pub(super) power_sensor: Option<String>,
    pub(super) eddy: String,
    /// The version of ONNX Runtime and the device, as the first measurement reports them.
    pub(super) onnxruntime: Option<String>,
    pub(super) device: Option<String>,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A run of the binary on a tiny image.
    Start,
    /// Whole frames of a network.
    Image,
    /// A video stream.
    Stream,
    /// Another program.
    Peer,
}

/// One row of a table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Row {
    pub(super) kind: Kind,
    /// The network, or the other program.
    pub(super) name: String,
    pub(super) precision: Option<Precision>,
    pub(super) width: usize,
    pub(super) height: usize,
    /// Why there are no figures, or what must be known of them.
    pub(super) note: Option<String>,
    /// Figures by name; null is what cannot be measured here.
    #[serde(flatten)]
    pub(super) figures: BTreeMap<String, Option<f64>>,
}

impl Row {
    pub(super) fn new(kind: Kind, name: &str, precision: Option<Precision>, size: Size) -> Self {
        let Size { width, height } = size;
        let (name, figures) = (name.to_owned(), BTreeMap::new());
        Self { kind, name, precision, width, height, note: None, figures }
    }

    pub(super) fn size(&self) -> Size {
        Size { width: self.width, height: self.height }
    }

    pub(super) fn get(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).copied().flatten()
    }

    pub(super) fn set(&mut self, figure: &str, value: Option<f64>) {
        self.figures.insert(figure.to_owned(), value);
    }

    /// Whether both are about the same.
    pub(super) fn matches(&self, other: &Self) -> bool {
        (self.kind, &self.name, self.precision, self.size())
            == (other.kind, &other.name, other.precision, other.size())
    }
}

/// A number of bytes as a figure.
pub(super) fn bytes(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64)
}

impl Record {
    /// A record of this machine without rows.
    pub(super) fn new(command: String, seconds: f64) -> Self {
        Self {
            suite: FORMAT,
            complete: false,
            command,
            machine: Machine::this(),
            seconds,
            took_seconds: 0.0,
            rows: Vec::new(),
        }
    }

    /// Reads the record of an earlier suite.
    ///
    /// # Errors
    /// When the file cannot be read or holds anything else.
    pub(super) fn read(path: &Path) -> eddy::Result<Self> {
        const EXPECTED: &str = "expected the file that `eddy bench --suite -o FILE.json` wrote";
        let text = std::fs::read_to_string(path)
            .map_err(|cause| eddy::Error::input_from(path, EXPECTED, cause))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|cause| {
            eddy::Error::input_from(path, format!("it is not JSON; {EXPECTED}"), cause)
        })?;
        let problem = match value.get("suite").and_then(serde_json::Value::as_u64) {
            None => format!("it is not the record of a suite; {EXPECTED}"),
            Some(format) if format != u64::from(FORMAT) => format!(
                "it is a record in format {format}, and this eddy reads format {FORMAT}; measure \
                 again with the eddy that is to be compared"
            ),
            Some(_) => {
                return serde_json::from_value(value).map_err(|cause| {
                    let problem = format!("the record is damaged; {EXPECTED}");
                    eddy::Error::input_from(path, problem, cause)
                });
            }
        };
        Err(eddy::Error::input(path, problem))
    }

    /// The row of that kind with that name and size.
    pub(super) fn find(&self, kind: Kind, name: &str, size: Size) -> Option<&Row> {
        self.rows.iter().find(|row| row.kind == kind && row.name == name && row.size() == size)
    }
}

impl Machine {
    fn this() -> Self {
        let temperature = machine::temperature();
        let power = PowerMeter::start();
        Self {
            cpu: machine::cpu_name(),
            board: machine::board(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: machine::total_memory(),
            governor: machine::governors(),
            max_mhz: machine::max_frequency(),
            load: machine::load(),
            temperature_before_c: temperature.as_ref().map(|it| it.celsius),
            temperature_after_c: None,
            temperature_sensor: temperature.map(|it| it.sensor),
            power_sensor: power.map(|power| power.source()),
            eddy: env!("CARGO_PKG_VERSION").to_owned(),
            onnxruntime: None,
            device: None,
        }
    }

    /// How this machine differs from another, in what decides its speed; none if it does not.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let name = |machine: &Self| {
            let Self { cpu, board, cores, .. } = machine;
            let board = board.as_ref().map_or_else(String::new, |board| format!(" ({board})"));
            format!("{cpu}{board} with {cores} threads")
        };
        let device = |machine: &Self| machine.device.clone().unwrap_or_default();
        let differs = |a: String, b: String| (a != b).then(|| format!("{a}, not {b}"));
        differs(name(other), name(self)).or_else(|| differs(device(other), device(self)))
    }
}

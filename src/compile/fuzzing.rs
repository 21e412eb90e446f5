//! Graphs that are taken apart.

use super::describe::described;
use super::source::Source;

/// A graph. What is taken apart has other names afterwards.
pub(crate) fn graph(bytes: &[u8]) {
    let _ = described(bytes);
    let Ok(mut source) = Source::read(bytes, "model") else { return };
    source.prefix("network/");
    let ports = source.inputs.iter().chain(&source.outputs);
    let mut names = ports.map(|port| port.name.as_str());
    assert!(names.all(|name| name.is_empty() || name.starts_with("network/")));
    let _ = source.rename(&["network/x"]);
}

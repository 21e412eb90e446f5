//! How many nodes of a graph each provider runs, according to ONNX Runtime's profile of a run.

use std::collections::{BTreeMap, BTreeSet};

/// Counts the nodes of a run by the name of their provider.
///
/// A profile is a JSON array of events. Events of nodes have the category `Node` and a name that
/// ends in `_kernel_time`.
pub(super) fn counted(profile: &[u8]) -> serde_json::Result<BTreeMap<String, usize>> {
    let events: Vec<serde_json::Value> = serde_json::from_slice(profile)?;
    let mut nodes = BTreeMap::<String, BTreeSet<&str>>::new();
    for event in &events {
        let name = event["name"].as_str().and_then(|name| name.strip_suffix("_kernel_time"));
        if let (Some("Node"), Some(name), Some(provider)) =
            (event["cat"].as_str(), name, event["args"]["provider"].as_str())
        {
            nodes.entry(provider.to_owned()).or_default().insert(name);
        }
    }
    Ok(nodes.into_iter().map(|(provider, nodes)| (provider, nodes.len())).collect())
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn counts_each_node_once() {
        let event = |name: &str, provider: &str| {
            format!(
                r#"{{"cat":"Node","name":"{name}_kernel_time","dur":3,"args":{{"provider":"{provider}","op_name":"Conv"}}}}"#
            )
        };
        let (cpu, cuda) = ("CPUExecutionProvider", "CUDAExecutionProvider");
        let events =
            [event("a", cuda), event("b", cuda), event("a", cuda), event("c", cpu)].join(",");
        let profile = format!(r#"[{{"cat":"Session","name":"model_run","args":{{}}}},{events}]"#);
        let nodes = counted(profile.as_bytes()).unwrap();
        assert_eq!(
            nodes.into_iter().collect::<Vec<_>>(),
            [(cpu.to_owned(), 1), (cuda.to_owned(), 2)]
        );
        assert!(counted(b"[{").is_err());
    }
}

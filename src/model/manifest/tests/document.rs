//! `docs/packages.md` names every key and value of a manifest and every range, and no other.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};

use super::read_and_write::good;
use crate::diffusion::Prediction;
use crate::diffusion::config::TRAIN_STEPS;
use crate::model::files::{LARGEST_RECORD, MAX_CONFIG_BYTES, MAX_GRAPH_BYTES};
use crate::model::manifest::{
    Check, DecoderSpec, Defaults, InputNames, Layout, Manifest, ModelFile, NoiseLevel, OutputNames,
    SigmaRange, State, Task,
};
use crate::model::{Precision, import};
use crate::network::{Axes, Colors, NoiseScale};

const DOCUMENT: &str = include_str!("../../../../docs/packages.md");

type Names = BTreeSet<String>;

/// The words of a text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names in the error of serde for an unknown one.
fn expected(error: &str) -> Names {
    assert!(error.starts_with("unknown"), "{error}");
    quoted(error).skip(1).map(str::to_owned).collect()
}

fn keys<T: DeserializeOwned>() -> Names {
    expected(toml::from_str::<T>("unknown = 1").err().unwrap().message())
}

fn values<T: DeserializeOwned>() -> Names {
    let unknown: StrDeserializer<'_, Error> = "unknown".into_deserializer();
    expected(&T::deserialize(unknown).err().unwrap().to_string())
}

/// A row of a table in the document.
struct Row {
    /// The words in backticks of its first cell.
    names: Vec<String>,
    cells: Vec<String>,
}

/// The rows of the tables with this first cell of their heads.
fn rows(head: &str) -> Vec<Row> {
    let cells = |line: &str| {
        let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
        Some(inner.split(" | ").map(str::to_owned).collect::<Vec<_>>())
    };
    let starts = |line: &&str| cells(line).is_some_and(|cells| cells[0] == head);
    let mut lines = DOCUMENT.lines();
    assert!(lines.find(starts).is_some(), "there is no table of {head}");
    assert!(!lines.clone().any(|line| starts(&line)), "there are two tables of {head}");
    let row = |cells: Vec<String>| {
        let names =
            quoted(&cells[0]).map(|name| name.trim_matches(['[', ']']).to_owned()).collect();
        Row { names, cells }
    };
    lines.skip(1).map_while(cells).map(row).collect()
}

fn names(rows: &[Row]) -> Names {
    let all: Vec<&String> = rows.iter().flat_map(|row| &row.names).collect();
    let names: Names = all.iter().map(|name| (*name).clone()).collect();
    assert_eq!(names.len(), all.len(), "{all:?}");
    names
}

/// The tables of a manifest with their keys, by the first cell of the document's table.
fn tables() -> Vec<(&'static str, &'static str, Names)> {
    vec![
        ("key", "", keys::<Manifest>()),
        ("key of `[sigma]`", "sigma.", keys::<SigmaRange>()),
        ("key of `[noise_level]`", "noise_level.", keys::<NoiseLevel>()),
        ("key of `[[states]]`", "states.", keys::<State>()),
        ("key of `[inputs]`", "inputs.", keys::<InputNames>()),
        ("key of `[outputs]`", "outputs.", keys::<OutputNames>()),
        ("key of `[defaults]`", "defaults.", keys::<Defaults>()),
        ("key of `[files.f32]`, `[files.f16]`, `[files.int8]`", "files.", keys::<ModelFile>()),
        ("key of `[check]`", "check.", keys::<Check>()),
        ("key of `[decoder]`", "decoder.", keys::<DecoderSpec>()),
    ]
}

#[test]
fn documents_every_key_and_no_other() {
    for (head, _, keys) in tables() {
        assert_eq!(names(&rows(head)), keys, "{head}");
    }
    let heads = DOCUMENT.lines().filter(|line| line.starts_with("| key")).count();
    assert_eq!(heads, tables().len());
}

#[test]
fn documents_every_value_and_no_other() {
    let choices = [
        ("task", values::<Task>()),
        ("prediction", values::<Prediction>()),
        ("layout", values::<Layout>()),
        ("axes", values::<Axes>()),
        ("colors", values::<Colors>()),
        ("files", values::<Precision>()),
    ];
    for row in rows("key") {
        let choice = choices.iter().find(|(key, _)| row.names == [*key]);
        let found: Names = quoted(&row.cells[1]).map(str::to_owned).collect();
        assert_eq!(
            found,
            choice.map_or_else(Names::new, |(_, values)| values.clone()),
            "{:?}",
            row.names
        );
    }
    let scale = rows("key of `[noise_level]`").pop().unwrap();
    let scales: Names = quoted(&scale.cells[1]).map(str::to_owned).collect();
    assert_eq!(scales, values::<NoiseScale>());
    assert_eq!(names(&rows("value of `prediction`")), values::<Prediction>());
    assert_eq!(names(&rows("value of `layout`")), values::<Layout>());
    let files: Names =
        rows("key").iter().flat_map(|row| quoted(&row.cells[2])).map(str::to_owned).collect();
    assert!(files.contains("[files.f32]"), "{files:?}");
    let spelled = |name: &String| format!("`[files.{name}]`");
    let head: Vec<String> = values::<Precision>().iter().map(spelled).collect();
    assert!(head.iter().all(|name| tables()[7].0.contains(name)), "{head:?}");
    let parsed = values::<Task>().iter().filter(|name| name.parse::<Task>().is_ok()).count();
    assert_eq!(parsed, Task::ALL.len());
}

#[test]
fn documents_every_range_and_no_other() {
    let mut ranges: BTreeMap<String, String> = good()
        .numbers()
        .into_iter()
        .map(|number| (number.key.to_owned(), format!("{} to {}", number.low, number.high)))
        .collect();
    let mut take = |key: &str| ranges.remove(key);
    let constants = take("constants").unwrap();
    assert_eq!(take("unconditional").as_ref(), Some(&constants));
    for (head, prefix, _) in tables() {
        for row in rows(head) {
            for name in &row.names {
                let value = row.cells[1].trim_start_matches("two, ");
                let value = value.trim_start_matches("one for all or each, ");
                let stated = value.contains(" to ").then_some(value);
                assert_eq!(take(&format!("{prefix}{name}")).as_deref(), stated, "{prefix}{name}");
            }
        }
    }
    let product = take("multiple_of times scale").unwrap();
    assert_eq!(product, "1 to 1024");
    assert!(DOCUMENT.contains("times `scale` it is at most 1024"));
    assert!(DOCUMENT.contains(&format!("a list of each value, {constants}")));
    let sigma_data = take("prediction.edm.sigma_data").unwrap();
    assert!(DOCUMENT.contains(&format!("`sigma_data` is {sigma_data}")));
    assert!(ranges.is_empty(), "not in the document: {ranges:?}");
}

#[test]
fn documents_the_file_limits() {
    let text = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    let (sides, steps) = (import::SIDES.end(), TRAIN_STEPS.end());
    for limit in [
        format!("files have at most {} MiB", MAX_CONFIG_BYTES >> 20),
        format!("recorded `.npy` files {} GiB", LARGEST_RECORD >> 30),
        format!("the weights beside them {} GiB", (MAX_GRAPH_BYTES + 1) >> 30),
        format!("`sample_size` is at most {sides}, `num_train_timesteps` at most {steps}"),
    ] {
        assert!(text.contains(&limit), "the document does not say {limit:?}");
    }
}

#[test]
fn examples_are_readable() {
    let examples: Vec<&str> = DOCUMENT.split("```toml\n").skip(1).collect();
    assert_eq!(examples.len(), 1);
    for example in examples {
        Manifest::parse(example.split("```").next().unwrap(), "example").unwrap();
    }
    for row in rows("value of `prediction`") {
        let Some(line) = quoted(&row.cells[1]).find(|text| text.starts_with("prediction = "))
        else {
            continue;
        };
        let table: toml::Table = toml::from_str(line).unwrap();
        let prediction: Prediction = table["prediction"].clone().try_into().unwrap();
        assert_eq!([prediction.name()], row.names[..]);
    }
}

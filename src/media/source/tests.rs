use super::{Format, Job, by_number, jobs};
use crate::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn folder(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }
    folder
}

fn outputs(jobs: &[Job], root: &Path) -> Vec<String> {
    jobs.iter()
        .map(|job| job.output.strip_prefix(root).unwrap().to_string_lossy().into_owned())
        .collect()
}

fn usage(result: crate::Result<Vec<Job>>) -> String {
    match result {
        Err(Error::Usage { problem }) => problem,
        other => panic!("no usage error but {other:?}"),
    }
}

#[test]
fn maps_one_file_to_one_file() {
    let root = folder(&["a.png"]);
    let (input, output) = (root.path().join("a.png"), root.path().join("b.JPEG"));
    let found = jobs(std::slice::from_ref(&input), &output, None).unwrap();
    assert_eq!(found, [Job { input: input.clone(), output: output.clone(), format: Format::Jpeg }]);
    let found =
        jobs(std::slice::from_ref(&input), &root.path().join("b"), Some(Format::WebP)).unwrap();
    assert_eq!(found[0].format, Format::WebP);
    assert!(
        usage(jobs(std::slice::from_ref(&input), &root.path().join("b"), None))
            .contains("has an unknown extension")
    );
}

#[test]
fn writes_one_file_into_an_existing_or_new_folder() {
    let root = folder(&["a.b.png", "there/x.txt"]);
    let input = [root.path().join("a.b.png")];
    assert_eq!(
        outputs(&jobs(&input, &root.path().join("there"), None).unwrap(), root.path()),
        ["there/a.b.png"]
    );
    let new = PathBuf::from(format!("{}/new/deep/", root.path().display()));
    let found = jobs(&input, &new, Some(Format::Tiff)).unwrap();
    assert_eq!(outputs(&found, root.path()), ["new/deep/a.b.tiff"]);
    assert!(new.is_dir());
}

#[test]
fn lists_a_folder_in_natural_order_without_sub_folders() {
    let root = folder(&[
        "in/10.png",
        "in/2.png",
        "in/b.JPG",
        "in/note.txt",
        "in/._b.jpg",
        "in/deep/c.png",
        "in/001.tif",
    ]);
    let found = jobs(&[root.path().join("in")], &root.path().join("out"), None).unwrap();
    assert_eq!(
        outputs(&found, root.path()),
        ["out/001.tif", "out/2.png", "out/10.png", "out/b.JPG"]
    );
    assert_eq!(found[3].format, Format::Jpeg);
}

#[test]
fn requires_a_folder_for_several_inputs() {
    let root = folder(&["a.png", "b.png", "c.png"]);
    let inputs = [root.path().join("a.png"), root.path().join("b.png")];
    assert!(usage(jobs(&inputs, &root.path().join("c.png"), None)).contains("name a folder"));
    assert!(usage(jobs(&inputs, &root.path().join("new.png"), None)).contains("name a folder"));
    assert!(
        usage(jobs(&[root.path().into()], &root.path().join("new.png"), None))
            .contains("name a folder")
    );
    let found = jobs(&inputs, &root.path().join("out"), Some(Format::Jpeg)).unwrap();
    assert_eq!(outputs(&found, root.path()), ["out/a.jpg", "out/b.jpg"]);
}

#[test]
fn rejects_equal_outputs_before_creating_anything() {
    let root = folder(&["a.png", "a.jpg", "one/x.png", "two/x.png"]);
    let out = root.path().join("out");
    let inputs = [root.path().join("a.png"), root.path().join("a.jpg")];
    assert!(usage(jobs(&inputs, &out, Some(Format::Png))).contains("both be written"));
    assert_eq!(jobs(&inputs, &root.path().join("apart"), None).unwrap().len(), 2);
    let inputs = [root.path().join("one"), root.path().join("two")];
    assert!(usage(jobs(&inputs, &out, None)).contains("both be written"));
    let twice = [root.path().join("a.png"), root.path().join("a.png")];
    assert!(usage(jobs(&twice, &out, None)).contains("both be written"));
    assert!(!out.exists());
}

#[test]
fn rejects_an_output_that_is_an_input() {
    let root = folder(&["a.png", "b.png"]);
    let (a, b) = (root.path().join("a.png"), root.path().join("b.png"));
    let roundabout = root.path().join("../").join(root.path().file_name().unwrap()).join("a.png");
    assert!(
        usage(jobs(std::slice::from_ref(&a), &roundabout, None))
            .contains("would replace the input")
    );
    assert!(usage(jobs(&[a, b], root.path(), None)).contains("would replace the input"));
    assert!(
        usage(jobs(&[root.path().into()], root.path(), None)).contains("would replace the input")
    );
}

#[test]
fn rejects_missing_inputs_and_streams() {
    let root = folder(&["empty/note.txt", "a.png"]);
    let out = root.path().join("out.png");
    let missing = jobs(&[root.path().join("none.png")], &out, None).unwrap_err();
    assert!(matches!(missing, Error::Input { .. }) && missing.to_string().contains("no such file"));
    let empty = jobs(&[root.path().join("empty")], &root.path().join("out"), None).unwrap_err();
    assert!(matches!(empty, Error::Input { .. }) && empty.to_string().contains("no image"));
    assert!(usage(jobs(&[PathBuf::from("-")], &out, None)).contains("stream"));
    assert!(usage(jobs(&[root.path().join("a.png")], Path::new("-"), None)).contains("stream"));
    assert!(usage(jobs(&[], &out, None)).contains("no input"));
}

#[test]
fn sorts_numbers_by_value() {
    let mut names =
        ["f10", "f2", "f1a", "f01", "f", "g", "f1", "f99999999999999999999999", "é2", "é10"];
    names.sort_by(|a, b| by_number(a, b).then_with(|| a.cmp(b)));
    assert_eq!(
        names,
        ["f", "f01", "f1", "f1a", "f2", "f10", "f99999999999999999999999", "g", "é2", "é10"]
    );
}

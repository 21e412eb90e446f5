//! An image of a text, by a pipeline in the layout of diffusers. The one of the tests has small
//! random networks, so its image shows nothing.
//!
//!     cargo run --release --example text_to_image -- sd-turbo/ "a lighthouse in a storm" image.png

#![allow(clippy::print_stdout, reason = "an example")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use eddy::Eddy;
use eddy::media::still::{self, Format, Options};
use eddy::stages::TextToImageRequest;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let made = tempfile::tempdir()?;
    let folder = arguments.next().map_or_else(|| tiny(made.path()), |folder| Ok(folder.into()))?;
    let prompt = arguments.next().unwrap_or_else(|| "a lighthouse in a storm".to_owned());

    let mut pipeline = Eddy::new()?.text_to_image(folder)?;
    let mut request = TextToImageRequest::new(prompt);
    request.steps = Some(4);
    let image = pipeline.run(&request, 7)?;
    println!("{}x{} pixels", image.width, image.height);

    // The networks are loaded by now.
    request.size = Some([64, 64]);
    assert_eq!(pipeline.run(&request, 7)?, pipeline.run(&request, 7)?);
    if let Some(path) = arguments.next() {
        still::write(&image, Path::new(&path), Format::Png, &Options::default())?;
    }
    Ok(())
}

/// The pipeline of the tests, whose files are stored once for several, in a folder of its own.
fn tiny(into: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pipelines/text");
    let text = fs::read_to_string(stored.join("files.json"))?;
    let files: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(&text)?;
    for (file, place) in files.get("sd15-euler").ok_or("the pipeline is missing")? {
        let path = into.join(file);
        fs::create_dir_all(path.parent().ok_or("it has no folder")?)?;
        fs::copy(stored.join("folders").join(place), path)?;
    }
    Ok(into.to_owned())
}

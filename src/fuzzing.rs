//! The borders at which input of strangers is parsed, each as a function of bytes: for the fuzzer in
//! `fuzz/`, and for the test that replays its corpora.
//!
//! A border neither panics nor hangs, and takes no more memory than [`MAX_MEMORY`] and a little.
//! What else holds of it is asserted. Networks are not run, nor is another program. Borders whose
//! parsers are private are beside these (`fuzzing.rs` of `media/still/`, `serve/`, ...).

use std::fmt::Display;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use ndarray::{Ix4, IxDyn};

use crate::array;
use crate::compile;
use crate::diffusion::{Prediction, Sampler, Schedule, plan};
use crate::http::lock;
use crate::machine;
use crate::media::still::{self, Format, Limits};
use crate::media::stream::{
    CameraFormat, FormatOverrides, Framing, Matrix, Output, PixelFormat, PlainSink, Rate,
    RawSource, ReadOutcome, Sink, Source, VideoFormat, VideoFrame, Y4mSource, ffmpeg, gstreamer,
};
use crate::media::{Image, source};
use crate::model::{self, Manifest, Precision};
use crate::network::DeviceChoice;
use crate::preview;
use crate::serve;
use crate::stages;
use crate::task::{Mask, NoiseProfile, SigmaChoice, Strength};
use crate::tensor::{FrameConverter, Range};

/// The memory that a border may take, in bytes. What is over is less than 64 MiB.
pub const MAX_MEMORY: u64 = 64 << 20;

/// A border: its name, which is that of its corpus, and what reads bytes there.
pub type Border = (&'static str, fn(&[u8]));

/// All borders but the command line, which is the binary's.
pub const BORDERS: &[Border] = &[
    ("png", image),
    ("jpeg", image),
    ("webp", image),
    ("tiff", image),
    ("bmp", image),
    ("qoi", image),
    ("exif", still::fuzzing::exif),
    ("heif", still::fuzzing::heif),
    ("mask", mask),
    ("y4m", y4m),
    ("raw", raw),
    ("container", ffmpeg::fuzzing::container),
    ("probe", ffmpeg::fuzzing::probe),
    ("caps", gstreamer::fuzzing::caps),
    ("npy", npy),
    ("manifest", manifest),
    ("profile", profile),
    ("scheduler", stages::fuzzing::scheduler),
    ("folder", stages::fuzzing::folder),
    ("pipeline", stages::fuzzing::pipeline),
    ("tokenizer", stages::fuzzing::tokenizer),
    ("prompt", stages::fuzzing::prompt),
    ("onnx", onnx),
    ("http", serve::fuzzing::http),
    ("infer", serve::fuzzing::infer),
    ("generations", serve::fuzzing::generations),
    ("query", serve::fuzzing::query),
    ("preview", preview::fuzzing::http),
    ("settings", settings),
];

/// The limits of an image at a border.
pub(crate) fn limits() -> Limits {
    let max_memory = machine::resident_memory().saturating_add(MAX_MEMORY);
    Limits { max_side: 1 << 14, max_bytes: 8 << 20, max_memory }
}

/// The input as text, or as much of it as is text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    }
}

fn decode(bytes: &[u8], limits: &Limits) -> crate::Result<Image> {
    still::decode(Path::new("image"), Cursor::new(bytes), limits)
}

/// An image file of any format. What is read can be written without loss, and turned.
fn image(bytes: &[u8]) {
    let Ok(image) = decode(bytes, &limits()) else { return };
    assert!(image.check().is_ok(), "{}x{} {}", image.width, image.height, image.samples.len());
    let written = still::encode_bytes(&image, Format::Png, &still::Options::default());
    let (png, _) = written.unwrap_or_else(unexpected);
    let again = decode(&png, &Limits::default()).unwrap_or_else(unexpected);
    assert_eq!(
        (again.width, again.height, again.channels),
        (image.width, image.height, image.channels)
    );
    assert!(again.samples == image.samples, "a PNG changes the samples");
    let upright = image.upright();
    assert!(upright.check().is_ok() && upright.samples.len() == again.samples.len());
}

/// Ends with an error that cannot be.
#[allow(clippy::panic, reason = "that is how a border says that it is broken")]
pub(crate) fn unexpected<T>(error: impl Display) -> T {
    panic!("{error}")
}

/// An image file as a mask, grown and feathered by the numbers in its last two bytes.
fn mask(bytes: &[u8]) {
    let [file @ .., grow, feather] = bytes else { return };
    // Larger ones differ in time alone.
    let Ok(image) = decode(file, &Limits { max_side: 64, ..limits() }) else { return };
    let hard = Mask::of(&image.upright());
    let is_empty = hard.is_empty();
    let soft = hard.grown((grow & 31).into()).feathered((feather & 31).into());
    assert_eq!(soft.is_empty(), is_empty);
}

/// A y4m stream. What is read is written, and read again as the same.
fn y4m(bytes: &[u8]) {
    let open = |bytes| Y4mSource::open(Path::new("y4m"), bytes, FormatOverrides::default());
    let Ok(mut source) = open(bytes) else { return };
    let Some((written, frames)) = rewritten(&mut source) else { return };
    let mut again = open(&written).unwrap_or_else(unexpected);
    let Some((twice, same)) = rewritten(&mut again) else { return };
    assert_eq!(frames, same, "frames are lost");
    assert!(written == twice, "{:?} became {:?}", text(&written), text(&twice));
}

/// Raw frames after a line with their width, height and format, and what is overridden.
fn raw(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, frames) = bytes.split_at(end);
    let mut words = text(line).split(' ');
    let mut side = || words.next()?.parse::<usize>().ok().filter(|side| *side > 0);
    let (Some(width), Some(height)) = (side(), side()) else { return };
    let Some(Ok(format)) = words.next().map(str::parse) else { return };
    let interpretation = FormatOverrides {
        rate: words.next().and_then(|word| word.parse().ok()),
        matrix: words.next().and_then(|word| word.parse().ok()),
        full_range: words.next().map(|word| word == "full"),
    };
    let mut video = VideoFormat::new(width, height, Rate::of(25), format);
    interpretation.apply(&mut video);
    let frames = frames.get(1..).unwrap_or_default();
    let Ok(mut source) = RawSource::new(Path::new("raw"), frames, video) else { return };
    if let Some((_, count)) = rewritten(&mut source) {
        assert_eq!(count as usize, frames.len() / source.video().bytes());
    }
}

/// Bytes that a sink writes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Output for Written {}

/// The frames of a source, written as y4m or as raw frames, and how many there are. None for large
/// frames, which differ in time alone.
fn rewritten(source: &mut dyn Source) -> Option<(Vec<u8>, u64)> {
    const MOST: usize = 1 << 16;
    let video = source.video().clone();
    if video.bytes() > MOST {
        return None;
    }
    let is_planar = matches!(video.format, PixelFormat::Planar { .. });
    let framing = if is_planar { Framing::Y4m } else { Framing::Raw };
    let written = Written::default();
    let sink = PlainSink::create(Path::new("sink"), written.clone(), framing, &video);
    let mut sink = sink.unwrap_or_else(unexpected);
    let mut converter = FrameConverter::new(&video, 3, Range::UNIT).ok();
    let mut planes = vec![0.0; 3 * video.width * video.height];
    let (mut frame, mut back, mut count) = (VideoFrame::default(), Vec::new(), 0);
    loop {
        match source.next(&mut frame) {
            Ok(ReadOutcome::Frame) => {}
            Ok(ReadOutcome::End) => break,
            // It says what is wrong, and ends then.
            Ok(ReadOutcome::Corrupt(problem)) => {
                assert!(!problem.is_empty());
                assert!(matches!(source.next(&mut frame), Ok(ReadOutcome::End)));
                break;
            }
            other => unexpected(format!("{other:?}")),
        }
        assert!(video.check(&frame).is_ok() && frame.index == count);
        count += 1;
        sink.write(&frame).unwrap_or_else(unexpected);
        if let Some(converter) = converter.as_mut().filter(|_| count < 4) {
            converter.read(&frame.bytes, &mut planes);
            converter.write(&planes, &mut back);
            assert_eq!(back.len(), frame.bytes.len());
        }
    }
    let bytes = std::mem::take(&mut *lock(&written.0));
    Some((bytes, count))
}

/// An array. What is read is written, and read again as the same.
fn npy(bytes: &[u8]) {
    let _ = array::decode::<Ix4>(Cursor::new(bytes));
    let Ok(array) = array::decode::<IxDyn>(Cursor::new(bytes)) else { return };
    let mut written = Vec::new();
    if ndarray_npy::WriteNpyExt::write_npy(&array, &mut written).is_ok() {
        let again = array::decode::<IxDyn>(Cursor::new(written));
        let again = again.unwrap_or_else(unexpected);
        assert_eq!(array.shape(), again.shape());
        assert!(array.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

/// A `model.toml`. What is read is written, and read again as the same.
fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(text(bytes), "model") else { return };
    if let Ok(written) = manifest.to_toml() {
        let again = Manifest::parse(&written, "model").unwrap_or_else(unexpected);
        assert_eq!(manifest, again);
    }
    let _ = (manifest.locality(), manifest.class_indices().map(|classes| classes.index(None)));
    if let Ok(schedule) = manifest.schedule_of() {
        plans(&schedule);
    }
}

/// Plans of every sampler on a schedule, none of which ends the process.
pub(crate) fn plans(schedule: &Schedule) {
    if matches!(schedule, Schedule::Discrete(schedule) if schedule.train_steps > 2000) {
        return;
    }
    for sampler in Sampler::ALL {
        for steps in [1, 4] {
            let _ = plan(schedule, sampler, steps, None);
        }
    }
}

/// A noise profile. What is read is written, and read again as the same.
fn profile(bytes: &[u8]) {
    let path = Path::new("profile.toml");
    let Ok(profile) = NoiseProfile::parse(text(bytes), path) else { return };
    let again = NoiseProfile::parse(&profile.to_toml(), path);
    assert_eq!(profile, again.unwrap_or_else(unexpected));
}

/// A graph, before ONNX Runtime reads it: the files that it names, its weights put inside, and what
/// `eddy compile` and `eddy info` read.
fn onnx(bytes: &[u8]) {
    let _ = model::external_files(bytes);
    compile::fuzzing::graph(bytes);
    model::fuzzing::graph(bytes);
}

/// The value of an option or a parameter, and two names of files in their order.
fn settings(bytes: &[u8]) {
    let text = text(bytes);
    round_trip::<PixelFormat>(text);
    round_trip::<Rate>(text);
    round_trip::<Matrix>(text);
    round_trip::<Sampler>(text);
    round_trip::<Prediction>(text);
    round_trip::<Precision>(text);
    let _ = text.parse::<CameraFormat>();
    let _ = text.parse::<DeviceChoice>();
    let _ = text.parse::<SigmaChoice>();
    let _ = text.parse::<Strength>();
    let _ = text.parse::<serve::Listen>();
    let _ = text.parse::<preview::Address>();
    let _ = text.parse::<Format>();
    let _ = source::result_name(Path::new(text));
    let mut names: Vec<PathBuf> = text.split(' ').map(PathBuf::from).collect();
    source::sort(&mut names);
    let sorted = names.clone();
    names.reverse();
    source::sort(&mut names);
    assert_eq!(names, sorted, "the order of names depends on where they stood");
}

/// Parses a value, and what it is shown as.
fn round_trip<T: FromStr + Display + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    assert!(shown.parse::<T>().is_ok_and(|again| again == value), "{text:?} is shown as {shown:?}");
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::BORDERS;

    /// Runs every file of a corpus; returns how many there are.
    fn replay(name: &str, run: fn(&[u8])) -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
        for file in &files {
            let (bytes, begun) = (std::fs::read(file).unwrap(), Instant::now());
            assert!(catch_unwind(|| run(&bytes)).is_ok(), "{} fails", file.display());
            assert!(begun.elapsed() < Duration::from_secs(10), "{} hangs", file.display());
        }
        files.len()
    }

    #[test]
    fn corpora_are_read_without_a_panic() {
        for (name, run) in BORDERS {
            assert!(replay(name, *run) > 0, "the corpus of {name} is empty");
        }
    }
}

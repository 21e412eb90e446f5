//! Round trips of images through files, rejected files and losses.

mod damage;
mod foreign;
mod kinds;
mod metadata;
mod round_trip;
mod saving;

use super::Format;
use super::encode::{Options, encode};
use super::limits::Limits;
use super::read::decode;
use super::warning::Warning;
use crate::media::{Image, Metadata, Samples};
use std::io::Cursor;
use std::path::Path;

/// A smooth image with different channels, so that swapped channels, rows or bytes are detected.
fn smooth(width: usize, height: usize, channels: usize, bits: u32) -> Image {
    let value = |at: usize| {
        let (pixel, channel) = (at / channels, at % channels);
        let (x, y) = (pixel % width, pixel / width);
        (4000 + x * 1211 + y * 733 + channel * 9001) as u16
    };
    let count = width * height * channels;
    let samples = match bits {
        8 => Samples::U8((0..count).map(|at| (value(at) >> 8) as u8).collect()),
        _ => Samples::U16((0..count).map(value).collect()),
    };
    Image { width, height, channels, samples, metadata: Metadata::default() }
}

fn encoded(image: &Image, format: Format) -> (Vec<u8>, Vec<Warning>) {
    let mut file = Cursor::new(Vec::new());
    let warnings = encode(image, format, &Options::default(), &mut file).unwrap();
    (file.into_inner(), warnings)
}

fn decoded(bytes: &[u8]) -> crate::Result<Image> {
    decode(Path::new("image"), Cursor::new(bytes), &Limits::default())
}

fn refusal(bytes: &[u8]) -> String {
    match decoded(bytes) {
        Err(error @ crate::Error::Input { .. }) => error.to_string(),
        Err(other) => panic!("refused with {other}"),
        Ok(image) => panic!("not refused but read with {} x {} pixels", image.width, image.height),
    }
}

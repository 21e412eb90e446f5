//! Images that ffmpeg decodes if it is installed: AVIF, HEIF and JPEG 2000.
//!
//! What ffmpeg would lose silently is checked first: transparency and multiple images are
//! rejected, the size is compared with the one in the file (versions before 7.1 return a single
//! tile of a tiled image), and the orientation is kept. EXIF blocks and ICC profiles are not kept.

use std::io::{Cursor, Read};
use std::path::Path;

use super::codec_error::{CodecError, Result};
use super::limits::Limits;
use super::orientation;
use super::read::decode_any;
use crate::machine;
use crate::media::stream::ffmpeg::program::{ffmpeg, output};
use crate::media::{Image, Metadata};

/// A format that ffmpeg decodes, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FfmpegFormat {
    Avif,
    Heif,
    Jpeg2000,
}

/// The properties of the images in a HEIF file, including AVIF (ISO/IEC 23008-12, section 6.5).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Properties {
    /// The largest size, `[width, height]`.
    size: [u32; 2],
    /// Counterclockwise quarter turns.
    turns: u8,
    /// Mirroring after the rotation: top and bottom exchanged (0), or left and right (1).
    mirror: Option<u8>,
    has_alpha: bool,
    /// Whether the file has an EXIF block or an ICC profile.
    has_metadata: bool,
}

impl FfmpegFormat {
    /// Detects the format from the first 12 bytes.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        if head.get(4..8) == Some(b"jP  ") || head.starts_with(b"\xff\x4f\xff\x51") {
            return Some(Self::Jpeg2000);
        }
        match head.get(4..12)? {
            b"ftypavif" | b"ftypavis" => Some(Self::Avif),
            b"ftypheic" | b"ftypheix" | b"ftyphevc" | b"ftypheim" | b"ftypheis" | b"ftypmif1"
            | b"ftypmsf1" => Some(Self::Heif),
            _ => None,
        }
    }

    /// Its name, and advice on another way to read it.
    pub(super) fn kind_and_advice(self) -> (&'static str, &'static str) {
        match self {
            Self::Avif => ("an AVIF", "save it anew, as `avifdec in.avif out.png` does"),
            Self::Heif => ("a HEIF", "save it anew, as `heif-convert in.heic out.png` does"),
            Self::Jpeg2000 => {
                ("a JPEG 2000", "save it anew, as `opj_decompress -i in.jp2 -o out.png` does")
            }
        }
    }

    /// Memory of ffmpeg and the intermediate PNG in addition to the samples, in bytes per pixel,
    /// measured on large images.
    fn working(self) -> u64 {
        match self {
            Self::Jpeg2000 => 24,
            Self::Avif | Self::Heif => 10,
        }
    }

    fn refuse(self, problem: &str) -> CodecError {
        let (kind, advice) = self.kind_and_advice();
        CodecError::new(format!("by its content it is {kind}, {problem}; {advice}"))
    }

    /// The properties of a file that begins so; an error for what ffmpeg does not read, and for an
    /// image that is too large.
    pub(super) fn examine(self, head: &[u8], limits: &Limits) -> Result<Properties> {
        let properties = match self {
            Self::Jpeg2000 => Properties { size: jpeg_2000_size(head), ..Properties::default() },
            Self::Avif | Self::Heif => Properties::of(head),
        };
        if head.get(8..12) == Some(b"avis") || head.get(8..12) == Some(b"msf1") {
            return Err(self.refuse("an animation, not a single image"));
        }
        if properties.has_alpha {
            return Err(self.refuse("and has transparency, which ffmpeg does not read"));
        }
        let [width, height] = properties.size;
        if width > 0 {
            let area = u64::from(width) * u64::from(height);
            limits.check(width, height, 3, self.working().saturating_mul(area))?;
        }
        Ok(properties)
    }

    /// Reads the file with ffmpeg.
    pub(super) fn read(self, path: &Path, limits: &Limits) -> Result<Image> {
        let head = std::fs::File::open(path).map(|file| file.take(HEAD)).and_then(|mut file| {
            let mut head = Vec::new();
            file.read_to_end(&mut head).map(|_| head)
        })?;
        let properties = self.examine(&head, limits)?;
        let [width, height] = properties.size;
        let png = decoded(path, self.working(), limits).map_err(|problem| self.refuse(&problem))?;
        let mut image = decode_any(&mut Cursor::new(png), limits)?;
        if width > 0 && [image.width, image.height] != [width as usize, height as usize] {
            let problem = format!(
                "of {width}x{height} pixels, of which this ffmpeg reads {}x{}",
                image.width, image.height
            );
            return Err(self.refuse(&problem));
        }
        // The color properties of the intermediate PNG do not apply.
        let exif = orientation::exif_of(properties.orientation());
        image.metadata =
            Metadata { exif, is_partial: properties.has_metadata, ..Metadata::default() };
        Ok(image)
    }
}

/// Length of the start of a file that is searched for properties, in bytes.
const HEAD: u64 = 1 << 20;

/// The image as a PNG; the error says what is wrong.
fn decoded(path: &Path, working: u64, limits: &Limits) -> std::result::Result<Vec<u8>, String> {
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    let mut command = ffmpeg("error");
    command.args(["-noautorotate", "-protocol_whitelist", "file,pipe"]);
    // Limits images whose file gives no size, or a wrong one.
    let budget = limits.max_memory.saturating_sub(machine::resident_memory()) / (3 + working);
    command
        .args(["-max_pixels", &(limits.max_bytes / 3).min(budget).max(1).to_string(), "-i"])
        .arg(name);
    command.args(["-frames:v", "1", "-vf", "scale=flags=accurate_rnd+full_chroma_int+bicubic"]);
    command.args(["-f", "image2pipe", "-c:v", "png", "-compression_level", "1", "-"]);
    let done = output(command).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "which ffmpeg decodes, and ffmpeg is not installed".to_owned()
        }
        _ => format!("which ffmpeg decodes, and ffmpeg cannot be started: {error}"),
    })?;
    if done.status.success() && !done.stdout.is_empty() {
        return Ok(done.stdout);
    }
    let output = String::from_utf8_lossy(&done.stderr);
    let last =
        output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing was decoded");
    let shown: String = last.chars().take(200).collect();
    Err(format!("which this ffmpeg cannot decode ({shown})"))
}

/// Width and height of a JPEG 2000 from the SIZ marker of its code stream (ISO/IEC 15444-1,
/// A.5.1); 0 if it is not found.
fn jpeg_2000_size(file: &[u8]) -> [u32; 2] {
    const SIZE: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];
    let at = file.windows(SIZE.len()).position(|bytes| bytes == SIZE);
    let Some(numbers) = at.and_then(|at| file.get(at + 8..at + 24)) else { return [0; 2] };
    let number = |at: usize| {
        u32::from_be_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]])
    };
    // Size of the reference grid without the image offset.
    [number(0).saturating_sub(number(8)), number(4).saturating_sub(number(12))]
}

impl Properties {
    fn of(file: &[u8]) -> Self {
        let mut found = Self::default();
        let meta = inside(file, b"meta").and_then(|body| body.get(4..));
        let Some(meta) = meta else { return found };
        found.has_metadata = meta.windows(4).any(|name| name == b"Exif");
        let container = inside(meta, b"iprp").and_then(|properties| inside(properties, b"ipco"));
        let Some(container) = container else { return found };
        for (kind, body) in boxes(container) {
            match (&kind, body) {
                (b"ispe", [_, _, _, _, size @ ..]) if size.len() >= 8 => {
                    let side = |at: usize| {
                        u32::from_be_bytes([size[at], size[at + 1], size[at + 2], size[at + 3]])
                    };
                    let size = [side(0), side(4)];
                    let area = |[width, height]: [u32; 2]| u64::from(width) * u64::from(height);
                    if area(size) > area(found.size) {
                        found.size = size;
                    }
                }
                (b"colr", kind) => {
                    found.has_metadata |= kind.starts_with(b"prof") || kind.starts_with(b"rICC")
                }
                (b"irot", [turns, ..]) => found.turns = turns & 3,
                (b"imir", [mirror, ..]) => found.mirror = Some(mirror & 1),
                (b"auxC", [_, _, _, _, kind @ ..]) => {
                    found.has_alpha |= kind
                        .starts_with(b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")
                        || kind.starts_with(b"urn:mpeg:hevc:2015:auxid:1\0");
                }
                _ => {}
            }
        }
        found
    }

    /// The EXIF orientation, from 1 to 8.
    pub(super) fn orientation(&self) -> u8 {
        const PLAIN: [u8; 4] = [1, 8, 3, 6];
        const TOP_AND_BOTTOM: [u8; 4] = [4, 5, 2, 7];
        const LEFT_AND_RIGHT: [u8; 4] = [2, 7, 4, 5];
        let by_turns = match self.mirror {
            None => PLAIN,
            Some(0) => TOP_AND_BOTTOM,
            Some(_) => LEFT_AND_RIGHT,
        };
        by_turns[usize::from(self.turns)]
    }
}

/// The consecutive complete boxes in `bytes`, each with its type and body (ISO/IEC 14496-12,
/// section 4.2).
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (head, _) = bytes.split_first_chunk::<8>()?;
        let kind = [head[4], head[5], head[6], head[7]];
        let size = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize {
            0 => bytes.len(),
            size => size,
        };
        let body = bytes.get(8..size)?;
        bytes = &bytes[size..];
        Some((kind, body))
    })
}

/// The body of the first box of that type.
fn inside<'a>(bytes: &'a [u8], target: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(kind, _)| kind == target).map(|(_, body)| body)
}

#[cfg(test)]
mod tests {
    use super::{Properties, boxes};

    fn one(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn parses_properties_from_boxes() {
        let size =
            |w: u32, h: u32| one(b"ispe", &[[0; 4], w.to_be_bytes(), h.to_be_bytes()].concat());
        let alpha = one(b"auxC", b"\0\0\0\0urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0");
        let profile = one(b"colr", b"prof...");
        let list = [profile, size(160, 120), size(4032, 3024), one(b"irot", &[3]), alpha].concat();
        let properties = one(b"iprp", &one(b"ipco", &list));
        let meta = one(b"meta", &[vec![0; 4], one(b"hdlr", b"pict"), properties].concat());
        let file = [one(b"ftyp", b"heic"), meta].concat();
        let found = Properties::of(&file);
        assert_eq!(
            found,
            Properties {
                size: [4032, 3024],
                turns: 3,
                mirror: None,
                has_alpha: true,
                has_metadata: true
            }
        );
        assert_eq!(found.orientation(), 6);
        // Truncation at any point leaves only complete boxes.
        for end in 0..file.len() {
            assert_eq!(Properties::of(&file[..end]), Properties::default(), "{end}");
        }
        assert_eq!(boxes(&one(b"free", b"")).count(), 1);
        assert_eq!(boxes(b"\0\0\0\x04free").count(), 0);
    }
}

//! YUV4MPEG2: a line of text, and then for each frame a line `FRAME` and its samples.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::format::{Chroma, PixelFormat};
use super::video::{CodePoint, Color, Matrix, Rate, Scan, Siting, TagSource, VideoFormat};
use super::{FormatOverrides, ReadOutcome, Source, VideoFrame, check_size};
use crate::error::{Error, Result};
use crate::setting::{PIXEL_FORMAT, STREAM_SIZE};

/// The first bytes of a stream.
pub(super) const MAGIC: &[u8] = b"YUV4MPEG2";

/// Maximum length of a header that is read.
const MAX_LINE: usize = 1024;

/// Maximum length of a header that is written; ffmpeg reads no longer ones.
const MAX_HEADER: usize = 96;

/// A y4m stream from any reader.
pub struct Y4mSource<R> {
    name: PathBuf,
    reader: BufReader<R>,
    video: VideoFormat,
    index: u64,
    ended: bool,
}

impl<R: Read + Send> Y4mSource<R> {
    /// Reads the header. `name` identifies the stream in messages.
    ///
    /// # Errors
    /// [`Error::Input`] for data that is not y4m, and for unsupported formats of it.
    pub fn open(name: &Path, reader: R, interpretation: FormatOverrides) -> Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 16, reader);
        let refuse = |problem: String| Error::input(name, problem);
        let line = match read_line(&mut reader) {
            Ok(Line::Whole(line)) if line.as_bytes().starts_with(MAGIC) => line,
            Ok(Line::End) => {
                return Err(refuse("the stream is empty; check what writes into it".into()));
            }
            Ok(_) => {
                return Err(refuse(format!(
                    "the stream does not begin with YUV4MPEG2; have its writer make y4m (ffmpeg: \
                     -f yuv4mpegpipe), or give {STREAM_SIZE} and {PIXEL_FORMAT} for raw frames"
                )));
            }
            Err(error) => return Err(Error::input_from(name, "its header cannot be read", error)),
        };
        let mut video = parse(&line).map_err(refuse)?;
        interpretation.apply(&mut video);
        check_size(name, &video)?;
        Ok(Self { name: name.into(), reader, video, index: 0, ended: false })
    }
}

impl<R> Y4mSource<R> {
    /// The format of all frames, which the caller may override.
    pub(super) fn video_mut(&mut self) -> &mut VideoFormat {
        &mut self.video
    }
}

impl<R: Read + Send> Source for Y4mSource<R> {
    fn video(&self) -> &VideoFormat {
        &self.video
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        if self.ended {
            return Ok(ReadOutcome::End);
        }
        let failed = |error| Error::input_from(&self.name, "the stream broke off", error);
        match read_line(&mut self.reader).map_err(failed)? {
            Line::End => {
                self.ended = true;
                return Ok(ReadOutcome::End);
            }
            Line::Whole(line) if line == "FRAME" || line.starts_with("FRAME ") => {
                frame.tags.clear();
                frame.tags.push_str(line.trim_end().trim_start_matches("FRAME"));
            }
            Line::Whole(_) | Line::Torn => {
                self.ended = true;
                return Ok(ReadOutcome::Corrupt(format!(
                    "where frame {} should begin there is no FRAME; the stream is damaged, and the \
                     rest of it is lost",
                    self.index + 1
                )));
            }
        }
        frame.bytes.resize(self.video.bytes(), 0);
        frame.index = self.index;
        frame.time = self.video.rate.time_of(self.index);
        self.index += 1;
        let got = fill(&mut self.reader, &mut frame.bytes).map_err(failed)?;
        if got < frame.bytes.len() {
            self.ended = true;
            return Ok(ReadOutcome::Corrupt(format!(
                "{} ends within frame {}: {got} of {} bytes are there",
                self.name.display(),
                self.index,
                frame.bytes.len()
            )));
        }
        Ok(ReadOutcome::Frame)
    }
}

/// Reads until `bytes` is full or the stream ends, and returns the number of bytes read.
pub(super) fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match reader.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

enum Line {
    Whole(String),
    /// Incomplete, too long, or not text.
    Torn,
    End,
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Line> {
    let mut line = Vec::new();
    reader.take(MAX_LINE as u64).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(Line::End),
        Some(b'\n') => Ok(String::from_utf8(line).map_or(Line::Torn, Line::Whole)),
        Some(_) => Ok(Line::Torn),
    }
}

/// Parses the header; the error says what is wrong with it.
fn parse(line: &str) -> std::result::Result<VideoFormat, String> {
    let (mut width, mut height, mut rate) = (None, None, Rate::of(25));
    let (mut colorspace, mut older) = (None, None);
    let (mut scan, mut aspect, mut full_range, mut described) =
        (Scan::Progressive, None, None, None);
    let mut tags = Vec::new();
    for tag in line.split(' ').skip(1).filter(|tag| !tag.is_empty()) {
        let Some((kind, value)) = tag.split_at_checked(1) else { continue };
        match kind {
            "W" => width = value.parse().ok(),
            "H" => height = value.parse().ok(),
            // 0:0 means an unknown rate.
            "F" => rate = value.parse().unwrap_or(rate),
            "C" => colorspace = Some(value.to_owned()),
            "I" => scan = scan_of(value)?,
            "A" => aspect = aspect_of(value),
            "X" if value.starts_with("COLORRANGE=") => full_range = Some(value.ends_with("=FULL")),
            "X" if value.starts_with("YSCSS=") => {
                older = Some(value["YSCSS=".len()..].to_lowercase())
            }
            "X" if value.starts_with("EDDY=") => {
                described = Some(value["EDDY=".len()..].to_owned())
            }
            _ => tags.push(tag.to_owned()),
        }
    }
    let (Some(width), Some(height)) = (width.filter(|w| *w > 0), height.filter(|h| *h > 0)) else {
        return Err(format!("its header has no width and height: {line}"));
    };
    // Older writers give the chroma format only in XYSCSS; a C parameter takes precedence.
    let colorspace = colorspace.or(older).unwrap_or_else(|| "420jpeg".to_owned());
    let (format, siting) = colorspace_of(&colorspace).ok_or_else(|| {
        format!(
            "its samples are {colorspace}; expected 420 (any siting), 422, 444 or mono, of 8 \
                 to 16 bits a sample"
        )
    })?;
    let mut video =
        VideoFormat { tags, scan, aspect, ..VideoFormat::new(width, height, rate, format) };
    video.color = Color { siting, full_range: full_range.unwrap_or(false), ..video.color };
    if let Some(described) = described {
        describe(&described, &mut video.color);
    }
    Ok(video)
}

fn scan_of(value: &str) -> std::result::Result<Scan, String> {
    match value {
        "p" | "?" | "" => Ok(Scan::Progressive),
        "t" => Ok(Scan::TopFirst),
        "b" => Ok(Scan::BottomFirst),
        "m" => Ok(Scan::Mixed),
        _ => Err(format!("its header declares the scan I{value}; expected Ip, It, Ib or Im")),
    }
}

/// Parses `10:11`; 0:0 means unknown.
fn aspect_of(value: &str) -> Option<[u32; 2]> {
    let (width, height) = value.split_once(':')?;
    let aspect = [width.parse().ok()?, height.parse().ok()?];
    (!aspect.contains(&0)).then_some(aspect)
}

/// Parses our own tag, since y4m has none: primaries, transfer characteristics and matrix as code
/// points of ITU-T H.273.
fn describe(value: &str, color: &mut Color) {
    let codes: Vec<u8> = value.split('-').filter_map(|code| code.parse().ok()).collect();
    let [primaries, transfer, matrix] = codes[..] else { return };
    (color.primaries, color.transfer) = (CodePoint(primaries), CodePoint(transfer));
    if let Some(matrix) = Matrix::of_code(matrix) {
        (color.matrix, color.matrix_source) = (matrix, TagSource::Source);
    }
}

/// The tag that [`describe`] parses; `None` where it would hold nothing.
fn description(video: &VideoFormat) -> Option<String> {
    let Color { matrix, primaries, transfer, .. } = video.color;
    let has_matrix = video.format.chroma().is_some() && !video.format.is_gray();
    let is_default = !has_matrix || matrix == Matrix::default_for(video.height);
    let is_plain =
        is_default && primaries == CodePoint::UNSPECIFIED && transfer == CodePoint::UNSPECIFIED;
    let matrix = if has_matrix { matrix.code() } else { CodePoint::UNSPECIFIED.0 };
    (!is_plain).then(|| format!(" XEDDY={}-{}-{matrix}", primaries.0, transfer.0))
}

/// Parses `420jpeg`, `422p10`, `mono12`, ...
fn colorspace_of(name: &str) -> Option<(PixelFormat, Siting)> {
    let (chroma, siting, rest) = [
        ("420jpeg", Chroma::C420, Siting::Center),
        ("420mpeg2", Chroma::C420, Siting::Left),
        ("420paldv", Chroma::C420, Siting::TopLeft),
        ("420", Chroma::C420, Siting::Center),
        ("422", Chroma::C422, Siting::Left),
        ("444", Chroma::C444, Siting::Left),
        ("mono", Chroma::Mono, Siting::Left),
    ]
    .into_iter()
    .find_map(|(prefix, chroma, siting)| Some((chroma, siting, name.strip_prefix(prefix)?)))?;
    // 4:2:0 with more than 8 bits has the siting of MPEG-2.
    let siting = if chroma == Chroma::C420 && !rest.is_empty() { Siting::Left } else { siting };
    let bits = match rest.strip_prefix('p').unwrap_or(rest) {
        "" => 8,
        bits => bits.parse().ok().filter(|bits| (9..=16).contains(bits))?,
    };
    Some((PixelFormat::planar(chroma, bits), siting))
}

fn colorspace(video: &VideoFormat) -> String {
    let bits = video.format.bits();
    let (name, deep) = match (video.format.chroma(), video.color.siting) {
        (Some(Chroma::Mono), _) => ("mono", ""),
        (Some(Chroma::C422), _) => ("422", "p"),
        (Some(Chroma::C444) | None, _) => ("444", "p"),
        (Some(Chroma::C420), _) if bits > 8 => ("420", "p"),
        (Some(Chroma::C420), Siting::Center) => ("420jpeg", ""),
        (Some(Chroma::C420), Siting::Left) => ("420mpeg2", ""),
        (Some(Chroma::C420), Siting::TopLeft) => ("420paldv", ""),
    };
    if bits > 8 { format!("{name}{deep}{bits}") } else { name.to_owned() }
}

/// The header of a stream: one line with its line end.
pub(super) fn header(video: &VideoFormat) -> String {
    let VideoFormat { width, height, rate, scan, aspect, tags, .. } = video;
    // Defaults are written out, since some readers assume others.
    let scan = match scan {
        Scan::Progressive => 'p',
        Scan::TopFirst => 't',
        Scan::BottomFirst => 'b',
        Scan::Mixed => 'm',
    };
    let mut line =
        format!("YUV4MPEG2 W{width} H{height} F{}:{} I{scan}", rate.frames, rate.seconds);
    if let Some([width, height]) = aspect {
        line += &format!(" A{width}:{height}");
    }
    for tag in tags {
        line += &format!(" {tag}");
    }
    let range = if video.color.full_range { "FULL" } else { "LIMITED" };
    line += &format!(" C{} XCOLORRANGE={range}", colorspace(video));
    // The tag is left out when ffmpeg would not read the longer header.
    line +=
        &description(video).filter(|more| line.len() + more.len() < MAX_HEADER).unwrap_or_default();
    line + "\n"
}

/// The y4m format that holds `format` without loss.
pub fn nearest(format: PixelFormat) -> PixelFormat {
    match format {
        PixelFormat::Planar { .. } => format,
        PixelFormat::Nv12 => PixelFormat::planar(Chroma::C420, 8),
        PixelFormat::Yuyv => PixelFormat::planar(Chroma::C422, 8),
        PixelFormat::Packed { bits, .. } => PixelFormat::planar(Chroma::C444, bits),
    }
}

#[cfg(test)]
mod tests {
    use super::{Y4mSource, header};
    use crate::media::stream::{
        CodePoint, FormatOverrides, Matrix, ReadOutcome, Siting, Source, TagSource, VideoFrame,
    };
    use std::path::Path;

    fn open(bytes: &[u8]) -> crate::Result<Y4mSource<&[u8]>> {
        Y4mSource::open(Path::new("test"), bytes, FormatOverrides::default())
    }

    #[test]
    fn round_trips_every_format() {
        let kinds = [
            "420jpeg", "420mpeg2", "420paldv", "422", "444", "mono", "420p10", "422p10", "444p12",
            "mono10", "mono16",
        ];
        for kind in kinds {
            for rest in ["F25:1 Ip C", "F30000:1001 It A10:11 XYSCSS=ANY C"] {
                let line = format!("YUV4MPEG2 W5 H3 {rest}{kind} XCOLORRANGE=FULL\n");
                let source = open(line.as_bytes()).unwrap();
                let written = header(source.video());
                let again = open(written.as_bytes()).unwrap();
                assert_eq!(source.video(), again.video(), "{line}");
                assert!(
                    source.video().color.full_range
                        && header(source.video()).contains(&format!(" C{kind} "))
                );
            }
        }
        let plain = open(b"YUV4MPEG2 W4 H4\n").unwrap();
        assert_eq!((plain.video().color.siting, plain.video().bytes()), (Siting::Center, 24));
    }

    #[test]
    fn rejects_invalid_headers_with_a_reason() {
        let long = [b"YUV4MPEG2 ".as_slice(), &[b'X'; 5000]].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"", "is empty"),
            (b"\x89PNG\r\n", "does not begin with YUV4MPEG2"),
            (b"YUV4MPEG2 W4 H4", "does not begin"),
            (&long, "does not begin"),
            (b"YUV4MPEG2 W4\n", "no width and height"),
            (b"YUV4MPEG2 W0 H4\n", "no width and height"),
            (b"YUV4MPEG2 W4 H4 C411\n", "its samples are 411"),
            (b"YUV4MPEG2 W60000 H60000 C444\n", "at most"),
            (b"YUV4MPEG2 W9999999999 H9999999999 C420\n", "at most 65535 a side"),
        ];
        for (bytes, words) in cases {
            let error = open(bytes).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn reads_xyscss_where_there_is_no_c() {
        for (tags, colorspace) in [
            ("XYSCSS=422", "422"),
            ("XYSCSS=420MPEG2", "420mpeg2"),
            ("XYSCSS=422P10", "422p10"),
            ("C444 XYSCSS=422", "444"),
        ] {
            let source = open_line(tags).unwrap();
            assert!(header(source.video()).contains(&format!(" C{colorspace} ")), "{tags}");
        }
        for tags in ["XYSCSS=411", "XYSCSS=UNKNOWN", "Ix"] {
            assert!(open_line(tags).is_err(), "{tags}");
        }
    }

    #[test]
    fn round_trips_color_properties_in_our_own_tag() {
        let mut video = open_line("C420mpeg2").unwrap().video().clone();
        assert!(!header(&video).contains("EDDY"));
        video.color.matrix = Matrix::Bt2020;
        (video.color.primaries, video.color.transfer) = (CodePoint(9), CodePoint(16));
        let written = header(&video);
        assert!(written.contains(" XEDDY=9-16-9\n") && written.len() <= 96, "{written}");
        let again = open(written.as_bytes()).unwrap().video().color;
        assert_eq!(
            again,
            crate::media::stream::Color { matrix_source: TagSource::Source, ..video.color }
        );
        // The tag is left out when the header would be too long for ffmpeg.
        video.tags = vec![format!("X{}", "a".repeat(30))];
        assert!(!header(&video).contains("EDDY"));
    }

    #[test]
    fn passes_frame_parameters_through() {
        let mut source = open(b"YUV4MPEG2 W2 H2 Cmono Im\nFRAME It1i\nabcdFRAME\nabcd").unwrap();
        let mut frame = VideoFrame::default();
        for tags in [" It1i", ""] {
            assert_eq!(source.next(&mut frame).unwrap(), ReadOutcome::Frame);
            assert_eq!(frame.tags, tags);
        }
    }

    fn open_line(tags: &str) -> crate::Result<Y4mSource<&'static [u8]>> {
        let line = format!("YUV4MPEG2 W4 H4 {tags}\n").into_bytes();
        open(Box::leak(line.into_boxed_slice()))
    }

    #[test]
    fn distinguishes_end_damage_and_truncation() {
        let stream =
            |rest: &[u8]| [b"YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcd".as_slice(), rest].concat();
        let outcome = |rest: &[u8]| {
            let bytes = stream(rest);
            let mut source = open(&bytes).unwrap();
            let mut frame = VideoFrame::default();
            assert_eq!(source.next(&mut frame).unwrap(), ReadOutcome::Frame);
            assert_eq!((frame.bytes.as_slice(), frame.index), (b"abcd".as_slice(), 0));
            let second = source.next(&mut frame).unwrap();
            (second, source.next(&mut frame).unwrap())
        };
        assert_eq!(outcome(b""), (ReadOutcome::End, ReadOutcome::End));
        let (cut, then) = outcome(b"FRAME Ip\nabc");
        assert!(
            matches!(&cut, ReadOutcome::Corrupt(why) if why.contains("frame 2: 3 of 4 bytes")),
            "{cut:?}"
        );
        assert_eq!(then, ReadOutcome::End);
        for damage in [b"FRAMES\nabcd".as_slice(), b"FRA", b"\n", b"abcdabcdabcd\n", &[0xff; 4000]]
        {
            let (damaged, then) = outcome(damage);
            assert!(
                matches!(&damaged, ReadOutcome::Corrupt(why) if why.contains("no FRAME")),
                "{damaged:?}"
            );
            assert_eq!(then, ReadOutcome::End);
        }
    }
}

//! Properties of a file's frames, from the tags of its container, as reported by ffprobe.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::program::output;
use crate::error::{Error, Result};
use crate::media::stream::{
    CodePoint, FormatOverrides, Matrix, Rate, Scan, Siting, TagSource, VideoFormat,
};
use crate::setting::MATRIX;

/// The answer of ffprobe about a file. Missing properties are `None`.
#[derive(Debug, Default)]
pub(super) struct Probe {
    stream: Value,
    /// Start time of the file in seconds: that of the first frame or sound.
    start: f64,
    /// Duration in seconds.
    lasts: Option<f64>,
    /// Whether the file declares the duration, rather than ffprobe estimating it.
    is_declared: bool,
    /// Whether the duration of the frames is their number.
    is_counted: bool,
    /// See [`is_uneven`](Self::is_uneven).
    is_uneven: bool,
}

/// ffprobe's names of containers that declare their duration; for others, ffprobe measures or
/// estimates it.
const DECLARE_DURATION: [&str; 8] = ["avi", "asf", "flv", "gif", "ivf", "matroska", "mov", "mxf"];

/// The part of a file that is examined for a variable frame rate, in ffprobe's syntax: one minute.
const EXAMINED_INTERVAL: &str = "%+60";

/// Whether frames with these presentation times have a variable rate: more than 1 in 100 is off by
/// over a quarter of a frame.
fn is_uneven(times: &[f64]) -> bool {
    let mut gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_by(f64::total_cmp);
    let Some(middle) = gaps.get(gaps.len() / 2).copied() else { return false };
    // Containers round times to milliseconds, some more coarsely.
    let is_off = |gap: &&f64| (**gap - middle).abs() > (0.25 * middle).max(0.003);
    100 * gaps.iter().filter(is_off).count() > gaps.len()
}

/// What a file holds beside frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Streams {
    /// How many streams of sound.
    pub(super) sound: usize,
    pub(super) subtitles: bool,
}

/// What a file holds beside frames, named as for ffmpeg; nothing on failure.
pub(super) fn streams(name: &Path) -> Streams {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "quiet", "-of", "csv=p=0", "-show_entries", "stream=codec_type", "-i"])
        .arg(name);
    let Ok(report) = output(command) else { return Streams::default() };
    let report = String::from_utf8_lossy(&report.stdout);
    let count =
        |kind: &str| report.lines().filter(|line| line.split(',').next() == Some(kind)).count();
    Streams { sound: count("audio"), subtitles: count("subtitle") > 0 }
}

impl Probe {
    /// Probes a file or URL, named as for ffmpeg; with `examined` also the times of its first
    /// frames. The result is empty on failure; ffmpeg gives better error messages.
    pub(super) fn of(name: &Path, examined: bool) -> Self {
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "quiet",
            "-of",
            "json",
            "-show_format",
            "-show_streams",
            "-select_streams",
            "V:0",
        ]);
        if examined {
            command.args(["-show_packets", "-read_intervals", EXAMINED_INTERVAL]);
        }
        command.arg("-i").arg(name);
        let report = output(command)
            .ok()
            .and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok());
        report.map_or_else(Self::default, Self::of_report)
    }

    /// Reads a report of ffprobe.
    pub(super) fn of_report(mut report: Value) -> Self {
        let start = seconds(&report["format"]["start_time"]).unwrap_or_default();
        let lasts = seconds(&report["format"]["duration"]);
        let kind = report["format"]["format_name"].as_str().unwrap_or_default();
        let is_declared = kind.split(',').any(|kind| DECLARE_DURATION.contains(&kind));
        let is_counted = kind == "mxf";
        let packets = report["packets"].as_array().map_or(&[][..], Vec::as_slice);
        let mut times: Vec<f64> =
            packets.iter().filter_map(|packet| seconds(&packet["pts_time"])).collect();
        times.sort_by(f64::total_cmp);
        let is_uneven = is_uneven(&times);
        let stream = report.pointer_mut("/streams/0").map(Value::take).unwrap_or_default();
        Self { stream, start, lasts, is_declared, is_counted, is_uneven }
    }

    /// Whether the frame rate of a file is variable, judged by its first frames, so that each must
    /// keep its time.
    pub(super) fn is_uneven(&self) -> bool {
        self.is_uneven
    }

    /// Whether all frames and sound end before the declared end of the file. Reads the whole file
    /// without decoding.
    pub(super) fn ends_early(&self, name: &Path) -> bool {
        let Some(lasts) = self.lasts.filter(|_| self.is_declared) else { return false };
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "quiet",
            "-of",
            "csv=p=0",
            "-show_entries",
            "packet=pts_time,dts_time,duration_time",
        ]);
        command.arg("-i").arg(name);
        let Ok(packets) = output(command) else { return false };
        let times = String::from_utf8_lossy(&packets.stdout);
        let ends = times.lines().filter_map(|line| {
            let mut times = line.split(',').map(|time| time.parse::<f64>().ok());
            let [shown, decoded, duration] = std::array::from_fn(|_| times.next().flatten());
            Some(shown.or(decoded)? + duration.unwrap_or_default())
        });
        let end = ends.fold(f64::NEG_INFINITY, f64::max);
        // Allows for padding of sound, rounding, and the unknown duration of the last frame.
        let tolerance = 0.3
            + 0.02 * lasts
            + 2.0 / self.rate("avg_frame_rate").map_or(25.0, Rate::per_second).max(1.0);
        packets.status.success() && end > f64::NEG_INFINITY && end - self.start + tolerance < lasts
    }

    /// How much later than the file its frames begin.
    pub(super) fn delay(&self) -> Duration {
        let late = seconds(&self.stream["start_time"]).map_or(0.0, |start| start - self.start);
        Duration::try_from_secs_f64(late).unwrap_or_default()
    }

    /// Whether the file has fewer packets of frames than it declares, which is known of MXF alone:
    /// its duration counts them. Reads the whole file without decoding.
    pub(super) fn lacks_packets(&self, name: &Path) -> bool {
        let Some(declared) = self.stream["duration_ts"].as_u64().filter(|_| self.is_counted) else {
            return false;
        };
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "quiet",
            "-of",
            "default=nw=1:nk=1",
            "-count_packets",
            "-select_streams",
            "V:0",
            "-show_entries",
            "stream=nb_read_packets",
        ]);
        command.arg("-i").arg(name);
        let report = output(command).ok().map(|output| output.stdout).unwrap_or_default();
        let count = String::from_utf8_lossy(&report).trim().parse::<u64>();
        count.is_ok_and(|count| count < declared)
    }

    fn text(&self, key: &str) -> &str {
        self.stream[key].as_str().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.stream[key].as_u64().and_then(|number| usize::try_from(number).ok())
    }

    /// The number of frames that the container declares, or that its duration takes.
    pub(super) fn frames(&self) -> Option<u64> {
        let by_time = || {
            let frames = self.lasts? * self.rate("avg_frame_rate")?.per_second();
            (frames >= 1.0).then_some(frames.round() as u64)
        };
        self.declared_frames().or_else(by_time)
    }

    /// The number of frames that the container declares itself, which includes those that it leaves
    /// out or repeats.
    pub(super) fn declared_frames(&self) -> Option<u64> {
        self.text("nb_frames").parse().ok().filter(|count| *count > 0)
    }

    fn rate(&self, key: &str) -> Option<Rate> {
        self.text(key).parse().ok()
    }

    /// The pixel format, as ffmpeg names it.
    fn format(&self) -> &str {
        self.text("pix_fmt")
    }

    /// Bits per sample, if the frames are RGB.
    pub(super) fn bits_of_rgb(&self) -> Option<u32> {
        let format = self.format();
        let is_rgb =
            ["rgb", "bgr", "gbr", "0rgb", "0bgr", "argb", "abgr", "x2rgb", "x2bgr", "pal8"];
        if !is_rgb.iter().any(|start| format.starts_with(start)) {
            return None;
        }
        let deep = format.starts_with("x2")
            || ["48", "64"].iter().any(|bits| format.contains(bits))
            || (format.starts_with("gbr") && format.contains(|c: char| c.is_ascii_digit()));
        Some(if deep { 16 } else { 8 })
    }

    /// Width and height of upright frames.
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        let [width, height] = [self.number("width")?, self.number("height")?];
        let quarters = self.stream["side_data_list"]
            .as_array()
            .and_then(|list| list.iter().find_map(|data| data["rotation"].as_f64()))
            .map_or(0, |degrees| (degrees / 90.0).round() as i64);
        Some(if quarters % 2 == 0 { [width, height] } else { [height, width] })
    }

    fn has_alpha(&self) -> bool {
        let format = self.format();
        let starts =
            ["yuva", "ya8", "ya16", "rgba", "bgra", "argb", "abgr", "gbrap", "ayuv", "vuya"];
        starts.iter().any(|start| format.starts_with(start))
            || self.stream["tags"].as_object().is_some_and(|tags| {
                tags.iter()
                    .any(|(key, value)| key.eq_ignore_ascii_case("alpha_mode") && value == "1")
            })
    }

    /// The frame rate: the average if it is variable.
    fn pace(&self) -> Option<Rate> {
        let (base, average) = (self.rate("r_frame_rate")?, self.rate("avg_frame_rate")?);
        // The average over few frames is not exact; that over fields may be half.
        let uneven = (base.per_second() / average.per_second() - 1.0).abs();
        Some(if uneven > 0.02 { average } else { base })
    }

    /// Applies the file's properties to `video`, which describes the frames from ffmpeg, and then
    /// the caller's overrides.
    ///
    /// # Errors
    /// [`Error::Input`] for color that cannot be converted to RGB, unless the caller gives its
    /// matrix.
    pub(super) fn describe(
        &self,
        name: &Path,
        known: FormatOverrides,
        video: &mut VideoFormat,
    ) -> Result<()> {
        let is_rgb = video.format.chroma().is_none();
        let color = &mut video.color;
        color.primaries = CodePoint::of_primaries(self.text("color_primaries"));
        color.transfer = CodePoint::of_transfer(self.text("color_transfer"));
        match self.text("color_space") {
            "" | "unknown" | "unspecified" | "reserved" | "gbr" => {}
            _ if is_rgb || video.format.is_gray() => {}
            space => match space.parse::<Matrix>() {
                Ok(matrix) => (color.matrix, color.matrix_source) = (matrix, TagSource::Source),
                Err(_) if known.matrix.is_some() => {}
                Err(_) => {
                    return Err(Error::input(
                        name,
                        format!(
                            "its color is {space}, which Eddy does not read; convert it first: \
                             ffmpeg -i {} -vf scale=out_color_matrix=bt709 -colorspace bt709 \
                             out.mkv, or say with {MATRIX} what to take it for",
                            name.display()
                        ),
                    ));
                }
            },
        }
        match self.text("chroma_location") {
            "left" => color.siting = Siting::Left,
            "center" => color.siting = Siting::Center,
            "topleft" => color.siting = Siting::TopLeft,
            _ => {}
        }
        video.scan = match self.text("field_order") {
            "tt" | "bt" => Scan::TopFirst,
            "bb" | "tb" => Scan::BottomFirst,
            _ => video.scan,
        };
        let aspect = self.text("sample_aspect_ratio").split_once(':');
        let aspect =
            aspect.and_then(|(width, height)| Some([width.parse().ok()?, height.parse().ok()?]));
        video.aspect = video.aspect.or(aspect.filter(|aspect| !aspect.contains(&0)));
        video.alpha = self.has_alpha();
        video.delay = self.delay();
        video.rate = self.pace().unwrap_or(video.rate);
        known.apply(video);
        Ok(())
    }
}

fn seconds(value: &Value) -> Option<f64> {
    value.as_str().and_then(|text| text.parse().ok()).filter(|seconds: &f64| seconds.is_finite())
}

#[cfg(test)]
mod tests {
    use super::is_uneven;

    #[test]
    fn tolerates_rounding_and_rare_gaps_in_a_constant_rate() {
        let even = |rate: f64| {
            (0..200).map(|i| (1000.0 * f64::from(i) / rate).round() / 1000.0).collect::<Vec<_>>()
        };
        for rate in [5.0, 23.976, 29.97, 60.0, 120.0] {
            assert!(!is_uneven(&even(rate)), "{rate}");
        }
        let mut gap = even(25.0);
        gap[100..].iter_mut().for_each(|time| *time += 0.04);
        assert!(!is_uneven(&gap) && !is_uneven(&[]) && !is_uneven(&[1.0]));
        let slower: Vec<f64> = (0..100)
            .map(|i| f64::from(i) / 25.0)
            .chain((20..60).map(|i| f64::from(i) / 5.0))
            .collect();
        assert!(is_uneven(&slower));
    }
}

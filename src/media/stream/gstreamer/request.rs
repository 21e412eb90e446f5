//! The pipeline that a source names.

use std::path::Path;

use super::caps::GSTREAMER_FORMATS;
use crate::error::{Error, Result};
use crate::media::stream::Rate;

/// The name of the element whose format is that of the frames.
pub(super) const FRAMES: &str = "eddy-frames";

/// The line between two frames, which `multipartmux` begins with two dashes.
pub(super) const BOUNDARY: &str = "eddy";

/// What a source requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// `gst:PIPELINE`: a pipeline as for `gst-launch-1.0`, without a sink.
    Pipeline(&'a str),
    /// `csi://N`: a camera of a Jetson, counted from 0.
    Argus(&'a str),
    /// `libcamera://0`, or `libcamera://NAME`: a camera of libcamera, the first or that of this
    /// name.
    Libcamera(&'a str),
}

impl<'a> Request<'a> {
    /// The request in the name of a source; `None` if it names something else.
    pub(super) fn of(name: &'a Path) -> Option<Self> {
        let name = name.to_str()?;
        None.or_else(|| name.strip_prefix("gst:").map(Self::Pipeline))
            .or_else(|| name.strip_prefix("csi://").map(Self::Argus))
            .or_else(|| name.strip_prefix("libcamera://").map(Self::Libcamera))
    }

    /// The arguments of `gst-launch-1.0`: a pipeline that writes the frames to its descriptor 0,
    /// each behind a header with its length. `size` and `rate` are requested where given, `rate` of
    /// cameras only.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid camera, and for a quote that is not closed.
    pub(super) fn arguments(
        self,
        size: Option<[usize; 2]>,
        rate: Option<Rate>,
    ) -> Result<Vec<String>> {
        let size = size
            .map_or_else(String::new, |[width, height]| format!(",width={width},height={height}"));
        let rate = rate.map_or_else(String::new, |Rate { frames, seconds }| {
            format!(",framerate={frames}/{seconds}")
        });
        let source = match self {
            Self::Pipeline(pipeline) if pipeline.trim().is_empty() => {
                return Err(Error::usage(
                    "gst: names no pipeline; expected one without a sink, such as \
                     gst:\"v4l2src ! video/x-raw,format=NV12\"",
                ));
            }
            Self::Pipeline(pipeline) => {
                let mut source = arguments_of(pipeline)?;
                if !size.is_empty() {
                    // Two bare caps in a row are no pipeline.
                    let caps = format!("caps=video/x-raw{size}");
                    source.extend(["!".to_owned(), "capsfilter".to_owned(), caps]);
                }
                source
            }
            Self::Argus(number) => {
                if number.parse::<u8>().is_err() {
                    return Err(Error::usage(format!(
                        "csi://{number} names no camera; expected its number, such as csi://0"
                    )));
                }
                let memory = format!("video/x-raw(memory:NVMM),format=NV12{size}{rate}");
                let sensor = format!("sensor-id={number}");
                let ends = ["!", "nvvidconv", "!", "video/x-raw,format=NV12"];
                ["nvarguscamerasrc", &sensor, "!", &memory]
                    .into_iter()
                    .chain(ends)
                    .map(str::to_owned)
                    .collect()
            }
            Self::Libcamera(camera) => {
                let mut source = vec!["libcamerasrc".to_owned()];
                match camera {
                    "" | "0" => {}
                    number if number.parse::<u32>().is_ok() => {
                        return Err(Error::usage(format!(
                            "libcamera://{number}: only the first camera has a number, 0; expected \
                             the name of another, as `cam --list` prints it, such as \
                             libcamera:///base/soc/i2c0mux/i2c@1/imx219@10"
                        )));
                    }
                    name => source.push(format!("camera-name={}", quoted(name))),
                }
                source.extend(["!".to_owned(), format!("video/x-raw{size}{rate}")]);
                source
            }
        };
        let formats: Vec<&str> = GSTREAMER_FORMATS.iter().map(|(name, _)| *name).collect();
        let caps = format!("caps=video/x-raw,format={{{}}}", formats.join(","));
        let boundary = format!("boundary={BOUNDARY}");
        let name = format!("name={FRAMES}");
        // The pad is described when its format is known, by -v; messages are on stderr.
        let ends = ["!", "videoconvert", "!", "capsfilter", &name, &caps];
        let sink = ["!", "multipartmux", &boundary, "!", "fdsink", "fd=0"];
        let more = ends.into_iter().chain(sink).map(str::to_owned);
        Ok(["-v".to_owned()].into_iter().chain(source).chain(more).collect())
    }
}

/// A value in quotes, as `gst-launch-1.0` reads it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The arguments of `gst-launch-1.0` for a pipeline that is written as in a shell, with quotes and
/// backslashes.
fn arguments_of(pipeline: &str) -> Result<Vec<String>> {
    let words = shlex::split(pipeline).ok_or_else(|| {
        Error::usage(format!(
            "gst:{pipeline}: a quote is not closed, or nothing follows a backslash"
        ))
    })?;
    Ok(words.into_iter().map(|word| with_quotes(&word).unwrap_or(word)).collect())
}

/// The setting of a property or of caps whose value takes quotes. `gst-launch-1.0` reads others as
/// they are.
fn with_quotes(word: &str) -> Option<String> {
    let (key, value) = word.split_once('=')?;
    let is_key = key.chars().all(|c| c.is_ascii_alphanumeric() || "-_:".contains(c));
    let takes_quotes = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\');
    (is_key && (value.is_empty() || value.contains(takes_quotes)))
        .then(|| format!("{key}={}", quoted(value)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Request, arguments_of};
    use crate::media::stream::Rate;

    fn pipeline(name: &str) -> String {
        let request = Request::of(Path::new(name)).unwrap();
        let arguments = request.arguments(Some([640, 480]), Some(Rate::of(15))).unwrap();
        let text = arguments[1..].join(" ");
        text.split(" ! videoconvert").next().unwrap().to_owned()
    }

    #[test]
    fn makes_a_pipeline_of_each_name() {
        for (name, expected) in [
            (
                "gst:videotestsrc ! identity",
                "videotestsrc ! identity ! capsfilter caps=video/x-raw,width=640,height=480",
            ),
            (
                "csi://1",
                "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=640,\
                 height=480,framerate=15/1 ! nvvidconv ! video/x-raw,format=NV12",
            ),
            ("libcamera://0", "libcamerasrc ! video/x-raw,width=640,height=480,framerate=15/1"),
            (
                "libcamera:///base/i2c@1/imx219@10",
                "libcamerasrc camera-name=\"/base/i2c@1/imx219@10\" ! \
                 video/x-raw,width=640,height=480,framerate=15/1",
            ),
        ] {
            assert_eq!(pipeline(name), expected);
        }
        for name in ["gst:", "csi://", "csi://front", "libcamera://1"] {
            let request = Request::of(Path::new(name)).unwrap();
            assert!(request.arguments(None, None).is_err(), "{name}");
        }
        for name in ["gst", "gst/", "rtsp://camera", "/dev/video0", "csi:0"] {
            assert_eq!(Request::of(Path::new(name)), None);
        }
    }

    #[test]
    fn reads_quotes_like_a_shell() {
        let name =
            r#"location="/a b" caps='x, "y"=1' text=it\'s a=\\ "c d" b= ! video/x-raw, w=1 "#;
        assert_eq!(
            arguments_of(name).unwrap(),
            [
                r#"location="/a b""#,
                r#"caps="x, \"y\"=1""#,
                r#"text="it's""#,
                r#"a="\\""#,
                "c d",
                r#"b="""#,
                "!",
                "video/x-raw,",
                "w=1"
            ]
        );
        for name in ["a \"b", "it's", "a \\"] {
            assert!(arguments_of(name).is_err(), "{name}");
        }
    }
}

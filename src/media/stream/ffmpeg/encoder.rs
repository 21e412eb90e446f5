//! The settings of encoders.

use std::path::Path;

use super::kind;
use crate::media::stream::{Chroma, Rate, VideoFormat};

/// Interval at which encoded data is written so that it can be read, in milliseconds of the video.
const PART_MS: u32 = 1000;

/// Frames per second from which on the default encoders' own lookahead is short enough.
const SHORT_LOOKAHEAD_RATE: f64 = 25.0;

/// The default encoder of frames that are sent to a server.
const LIVE_ENCODER: [(&str, &str); 4] = [
    ("-c:v", "libx264"),
    ("-preset", "veryfast"),
    ("-tune", "zerolatency"),
    ("-pix_fmt", "yuv420p"),
];

/// Seconds between the frames of a server's stream that are complete in themselves.
const KEY_FRAME_SECONDS: f64 = 2.0;

/// How many seconds of frames the default encoders may hold back at lower rates.
const MAX_ENCODER_DELAY: f64 = 2.0;

/// Encoder settings. `None` uses ffmpeg's default for the container, except for [`Encoder::CRF`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoder {
    /// The encoder's name in ffmpeg, such as `libx265`.
    pub codec: Option<String>,
    /// The constant quality (CRF) on the encoder's own scale: smaller is better.
    pub crf: Option<f64>,
    /// Bit rate in ffmpeg's syntax: `4M`.
    pub bitrate: Option<String>,
    /// Further options of the encoder, by name.
    pub options: Vec<(String, String)>,
}

impl Encoder {
    /// Default quality of MP4, MOV and Matroska: visually almost lossless.
    pub const CRF: f64 = 18.0;

    /// Whether the options say that sound is not encoded.
    pub(super) fn copies_sound(&self) -> bool {
        self.options.iter().any(|(key, value)| {
            ["c:a", "codec:a", "acodec"].contains(&key.as_str()) && value == "copy"
        })
    }

    /// The ffmpeg arguments for a file of that name and frames of format `video`.
    pub(super) fn arguments(&self, path: &Path, video: &VideoFormat) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |key: &str, value: String| arguments.extend([key.to_owned(), value]);
        let kind = kind(path).unwrap_or_default();
        let is_default = self.codec.is_none() && ["mp4", "mkv"].contains(&kind.as_str());
        if let Some(codec) = &self.codec {
            add("-c:v", codec.clone());
        }
        match self.quality() {
            Some((key, value)) => add(key, value),
            None if is_default => add("-crf", Self::CRF.to_string()),
            None => {}
        }
        if self.codec.is_none() {
            lookahead(&kind, video.rate).into_iter().for_each(|(key, value)| add(key, value));
        }
        let is_odd = video.width % 2 == 1 || video.height % 2 == 1;
        if is_default
            && is_odd
            && matches!(video.format.chroma(), Some(Chroma::C420 | Chroma::C422))
        {
            // 4:2:0 encoders require even sizes.
            add("-pix_fmt", if video.format.bits() > 8 { "yuv444p10le" } else { "yuv444p" }.into());
        }
        for (key, value) in &self.options {
            add(&format!("-{key}"), value.clone());
        }
        if kind == "mp4" {
            // Keeps the file readable up to what was written, even after a crash.
            add("-movflags", "+frag_keyframe+delay_moov+default_base_moof".into());
        }
        match kind.as_str() {
            "mp4" => add("-frag_duration", PART_MS.to_string() + "000"),
            "mkv" | "webm" => add("-cluster_time_limit", PART_MS.to_string()),
            _ => {}
        }
        add("-flush_packets", "1".into());
        arguments
    }

    /// The requested quality or bit rate, as an ffmpeg argument.
    fn quality(&self) -> Option<(&'static str, String)> {
        let crf = self.crf.map(|crf| ("-crf", crf.to_string()));
        crf.or_else(|| Some(("-b:v", self.bitrate.clone()?)))
    }

    /// The ffmpeg arguments for frames of format `video` that are sent to a server: by default
    /// H.264 that every reader decodes, of which no frame is held back.
    pub(super) fn arguments_of_server(&self, video: &VideoFormat) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |key: &str, value: String| arguments.extend([key.to_owned(), value]);
        match &self.codec {
            Some(codec) => add("-c:v", codec.clone()),
            None => {
                for (key, value) in LIVE_ENCODER {
                    add(key, value.into());
                }
                // Readers that come later wait for a frame that is complete in itself.
                let frames = (video.rate.per_second() * KEY_FRAME_SECONDS).ceil().max(1.0);
                add("-g", frames.to_string());
                if video.width % 2 == 1 || video.height % 2 == 1 {
                    add("-vf", "crop=floor(iw/2)*2:floor(ih/2)*2".into());
                }
            }
        }
        if let Some((key, value)) = self.quality() {
            add(key, value);
        }
        for (key, value) in &self.options {
            add(&format!("-{key}"), value.clone());
        }
        add("-flush_packets", "1".into());
        arguments
    }
}

/// The options of the default encoders, which otherwise hold back up to 50 frames: below
/// [`SHORT_LOOKAHEAD_RATE`] no more than come in [`MAX_ENCODER_DELAY`] seconds.
fn lookahead(kind: &str, rate: Rate) -> Vec<(&'static str, String)> {
    let rate = rate.per_second();
    if rate >= SHORT_LOOKAHEAD_RATE {
        return Vec::new();
    }
    let frames = (rate * MAX_ENCODER_DELAY) as u32;
    match kind {
        "mp4" | "mkv" => {
            // Half for the decision on B-frames and what follows it, half for the lookahead.
            let b_frames = (frames / 8).min(3);
            let analyzed = (frames / 2).saturating_sub(b_frames).min(40);
            // Threads for slices, and not each for a frame.
            vec![
                ("-bf", b_frames.to_string()),
                ("-rc-lookahead", analyzed.to_string()),
                ("-thread_type", "slice".into()),
            ]
        }
        "webm" => vec![("-lag-in-frames", (frames / 2).min(25).to_string())],
        _ => Vec::new(),
    }
}

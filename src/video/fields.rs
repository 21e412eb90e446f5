//! Processes the fields of interlaced frames separately. A field is every other row, captured at
//! its own time.

use std::ops::ControlFlow;
use std::time::Duration;

use super::{FrameProcessor, SettingsUpdate, StreamStatus};
use crate::error::{Error, Result};
use crate::media::stream::{Chroma, Scan, VideoFormat, VideoFrame};

/// Processes the fields of each frame one by one and interleaves the results.
pub struct Fields<R> {
    inner: R,
    video: VideoFormat,
    result: VideoFormat,
    field: VideoFrame,
    done: VideoFrame,
}

/// The format of the fields of such frames: half as high, and progressive.
///
/// # Errors
/// [`Error::Usage`] when the fields would not have whole rows of chroma.
pub fn field_of(video: &VideoFormat) -> Result<VideoFormat> {
    let multiple = if video.format.chroma() == Some(Chroma::C420) { 4 } else { 2 };
    if !video.height.is_multiple_of(multiple) {
        return Err(Error::usage(format!(
            "the frames are interlaced and have {} rows; expected a multiple of {multiple}, so \
             that both fields are alike; cut them to size, or make them progressive (ffmpeg -vf \
             bwdif)",
            video.height
        )));
    }
    Ok(VideoFormat { height: video.height / 2, scan: Scan::Progressive, ..video.clone() })
}

impl<R: FrameProcessor> Fields<R> {
    /// `inner` processes fields in the format of [`field_of`]. Frames have format `video`, and
    /// results have format `result`, which has the same size.
    pub fn new(inner: R, video: &VideoFormat, result: &VideoFormat) -> Self {
        let (field, done) = (VideoFrame::default(), VideoFrame::default());
        Self { inner, video: video.clone(), result: result.clone(), field, done }
    }

    /// The processor of the fields.
    pub fn inner(&self) -> &R {
        &self.inner
    }
}

/// Calls `copy` with the position of each row of a field, in the frame and in the field.
fn rows(
    video: &VideoFormat,
    parity: usize,
    mut copy: impl FnMut(std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let VideoFormat { format, width, height, .. } = *video;
    let of_field = format.byte_planes(width, height / 2);
    for ([start, length, count], [own, ..]) in
        format.byte_planes(width, height).into_iter().zip(of_field)
    {
        for row in 0..count / 2 {
            let (from, to) = (start + (2 * row + parity) * length, own + row * length);
            copy(from..from + length, to..to + length);
        }
    }
}

impl<R: FrameProcessor> FrameProcessor for Fields<R> {
    fn process(
        &mut self,
        input: &VideoFrame,
        output: &mut VideoFrame,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        let Self { inner, video, result, field, done } = self;
        output.bytes.resize(result.bytes(), 0);
        for parity in [0, 1] {
            field.bytes.resize(video.format.bytes(video.width, video.height / 2), 0);
            rows(video, parity, |from, to| field.bytes[to].copy_from_slice(&input.bytes[from]));
            inner.process(field, done, watch)?;
            rows(result, parity, |to, from| output.bytes[to].copy_from_slice(&done.bytes[from]));
        }
        Ok(())
    }

    fn stream_status(&self) -> StreamStatus {
        self.inner.stream_status()
    }

    fn set_budget(&mut self, budget: Duration) {
        self.inner.set_budget(budget / 2);
    }

    fn apply_settings(&mut self, settings: &SettingsUpdate) -> Result<()> {
        // The previous field has other rows, so previous frames are not used.
        self.inner.apply_settings(&SettingsUpdate { temporal: None, ..settings.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, field_of};
    use crate::media::stream::{Rate, Scan, VideoFormat, VideoFrame};
    use crate::model::Precision;
    use crate::video::{FrameProcessor, QualityLevel, Scale, SettingsUpdate, StreamStatus};
    use std::ops::ControlFlow;
    use std::sync::Arc;
    use std::time::Duration;

    /// Adds to each field the number of fields before it.
    struct Counts(u8, Vec<usize>);

    impl FrameProcessor for Counts {
        fn process(
            &mut self,
            input: &VideoFrame,
            output: &mut VideoFrame,
            _: &mut dyn FnMut() -> ControlFlow<()>,
        ) -> crate::Result<()> {
            self.1.push(input.bytes.len());
            output.bytes = input.bytes.iter().map(|byte| byte + self.0).collect();
            self.0 += 1;
            Ok(())
        }

        fn stream_status(&self) -> StreamStatus {
            let (model, precision) = (Arc::from("none"), Precision::F32);
            let quality = QualityLevel {
                model,
                precision,
                steps: 1,
                reuse_tiles_longer: false,
                scale: Scale::FULL,
            };
            StreamStatus {
                quality,
                changes: 0,
                sigma: None,
                temporal: false,
                repeated: 0,
                failed: 0,
            }
        }

        fn set_budget(&mut self, _: Duration) {}

        fn apply_settings(&mut self, _: &SettingsUpdate) -> crate::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn processes_fields_separately_and_interleaves_them() {
        for (name, height) in [
            ("yuv420p", 8),
            ("nv12", 8),
            ("yuyv422", 6),
            ("rgb24", 2),
            ("gray10le", 4),
            ("yuv422p", 2),
        ] {
            let mut video = VideoFormat::new(6, height, Rate::of(25), name.parse().unwrap());
            video.scan = Scan::TopFirst;
            let field = field_of(&video).unwrap();
            assert_eq!((field.height, field.scan), (height / 2, Scan::Progressive));
            let mut fields = Fields::new(Counts(0, Vec::new()), &video, &video);
            let input = VideoFrame {
                bytes: (0..video.bytes()).map(|i| (i % 200) as u8).collect(),
                ..VideoFrame::default()
            };
            let mut output = VideoFrame::default();
            fields.process(&input, &mut output, &mut || ControlFlow::Continue(())).unwrap();
            assert_eq!(fields.inner().1, [field.bytes(); 2], "{name}");
            let changed =
                output.bytes.iter().zip(&input.bytes).map(|(after, before)| after - before);
            let (kept, raised) = changed.fold((0, 0), |(kept, raised), change| match change {
                0 => (kept + 1, raised),
                1 => (kept, raised + 1),
                _ => panic!("{name}: a byte was changed by {change}"),
            });
            assert_eq!(kept, raised, "{name}");
            // Rows alternate between fields.
            let row = video.format.planes(6, height)[0].stride * video.format.bytes_per_sample();
            assert!(
                output.bytes[0] == input.bytes[0] && output.bytes[row] == input.bytes[row] + 1,
                "{name}"
            );
        }
        let mut odd = VideoFormat::new(6, 6, Rate::of(25), "yuv420p".parse().unwrap());
        odd.scan = Scan::BottomFirst;
        assert!(field_of(&odd).unwrap_err().to_string().contains("multiple of 4"));
    }
}

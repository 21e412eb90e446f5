//! How much memory a stream takes beside the network's: what tiles have to leave room for.

use super::pipeline::PipelineOptions;
use super::planes::Planes;
use crate::tensor::FrameConverter;

const SAMPLE: usize = size_of::<f32>();

/// Bytes of frames on their way, each of which takes so many.
pub(super) fn of_frames(bytes: usize) -> usize {
    (PipelineOptions::default().waiting + 2) * bytes
}

/// Bytes of frames on their way, and of what turns them into planes and back.
pub(super) fn of_converters(reader: &FrameConverter, writer: &FrameConverter) -> usize {
    let each = |frames: &FrameConverter| of_frames(frames.video().bytes()) + frames.bytes();
    each(reader) + each(writer)
}

/// Bytes of a frame that is worked on: its planes and its maps of sigma. What is packed for the network is as large again.
pub(super) fn of_work(planes: &Planes) -> usize {
    let packed = if planes.groups().len() > 1 { planes.samples() } else { 0 };
    (planes.samples() + planes.map_samples() + packed) * SAMPLE
}

/// Bytes of what is known from the frames before: the fused frame, a plane to move others by, and two pyramids of
/// 1 + 1/4 + ... planes with a smooth plane each.
pub(super) fn of_past(planes: &Planes) -> usize {
    (planes.samples() + 6 * planes.first().area()) * SAMPLE
}

/// Bytes of the last result, of such planes.
pub(super) fn of_last(planes: &Planes) -> usize {
    planes.samples() * SAMPLE
}

//! Memory that a stream takes besides the network; tiles get the rest.

use super::PipelineOptions;
use crate::tensor::FrameConverter;
use crate::video::Planes;

const SAMPLE: usize = size_of::<f32>();

/// Bytes of the frames in the queues, for frames of `bytes` each.
pub(in crate::video) fn of_frames(bytes: usize) -> usize {
    (PipelineOptions::default().waiting + 2) * bytes
}

/// Bytes of the frames in the queues and of the converters to planes and back.
pub(in crate::video) fn of_converters(reader: &FrameConverter, writer: &FrameConverter) -> usize {
    let each = |frames: &FrameConverter| of_frames(frames.video().bytes()) + frames.bytes();
    each(reader) + each(writer)
}

/// Bytes of a frame in process: its planes and maps of sigma. Input packed for the network takes
/// the planes' size again.
pub(in crate::video) fn of_work(planes: &Planes) -> usize {
    let packed = if planes.groups().len() > 1 { planes.samples() } else { 0 };
    (planes.samples() + planes.map_samples() + packed) * SAMPLE
}

/// Bytes of one of the frames that are processed at the same time: as it was read, its planes in
/// process and unchanged, and its maps of sigma, in two forms.
pub(in crate::video) fn of_lane_frame(bytes: usize, planes: &Planes) -> usize {
    bytes + of_work(planes) + (planes.samples() + planes.map_samples()) * SAMPLE
}

/// Bytes of the temporal state: the fused frame, a plane of work space for motion, and two
/// pyramids of 1 + 1/4 + ... planes with a smoothed plane each.
pub(in crate::video) fn of_temporal_state(planes: &Planes) -> usize {
    (planes.samples() + 6 * planes.first().area()) * SAMPLE
}

/// Bytes of the last result with such planes.
pub(in crate::video) fn of_last(planes: &Planes) -> usize {
    planes.samples() * SAMPLE
}

//! How much memory a stream takes beside the network's: what tiles have to leave room for.

use super::pipeline::Flow;
use crate::tensor::Pictures;

/// A plane of such pictures, in bytes.
fn plane([width, height]: [usize; 2]) -> usize {
    width * height * size_of::<f32>()
}

/// Bytes of pictures on their way, and of what turns them into planes and back.
pub(super) fn of_pictures(reader: &Pictures, writer: &Pictures) -> usize {
    let each = |pictures: &Pictures| (Flow::default().waiting + 2) * pictures.video().bytes() + pictures.bytes();
    each(reader) + each(writer)
}

/// Bytes of a picture that is worked on: its planes and its map of sigma.
pub(super) fn of_work(channels: usize, size: [usize; 2]) -> usize {
    (channels + 1) * plane(size)
}

/// Bytes of what is known from the pictures before: the fused picture, a plane to move others by, and two pyramids of
/// 1 + 1/4 + ... planes with a smooth plane each.
pub(super) fn of_past(channels: usize, size: [usize; 2]) -> usize {
    (channels + 6) * plane(size)
}

/// Bytes of the last result, of the size that is worked at.
pub(super) fn of_last(channels: usize, size: [usize; 2]) -> usize {
    channels * plane(size)
}

//! What GStreamer says of frames.

use crate::fuzzing::text;
use crate::media::stream::VideoFormat;

/// The caps of a pipeline, and the planes of its frames.
pub(crate) fn caps(bytes: &[u8]) {
    let Ok(video) = VideoFormat::of_gstreamer_caps(text(bytes)) else { return };
    let (planes, whole) = video.gstreamer_planes();
    let packed = video.format.byte_planes(video.width, video.height);
    for ([start, stride], [_, row, rows]) in planes.into_iter().zip(packed) {
        assert!(stride >= row && start + stride * (rows - 1) + row <= whole);
    }
}

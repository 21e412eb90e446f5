//! Copies frames between GStreamer's buffers and Eddy's frames, row by row. Strides and offsets are
//! those of the buffer (`GstVideoMeta`), or else the default ones.

use eddy::media::stream::{VideoFormat, VideoFrame};
use gst_video::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo, VideoMeta};

/// Copies a buffer of format `info`, which is `video`, into `frame`.
pub(crate) fn read(
    buffer: &gst::BufferRef,
    info: &VideoInfo,
    video: &VideoFormat,
    frame: &mut VideoFrame,
) -> Result<(), String> {
    check_layout(buffer, video)?;
    let mapped = VideoFrameRef::from_buffer_ref_readable(buffer, info)
        .map_err(|_| cannot_map("read", buffer, video))?;
    frame.bytes.resize(video.bytes(), 0);
    for (plane, [to, row, rows]) in (0..).zip(video.format.byte_planes(video.width, video.height)) {
        let from = mapped.plane_data(plane).map_err(|error| error.to_string())?;
        let stride = stride(mapped.plane_stride().get(plane as usize), row)?;
        let to = frame.bytes[to..to + row * rows].chunks_exact_mut(row);
        for (to, from) in to.zip(from.chunks(stride)) {
            to.copy_from_slice(from.get(..row).ok_or_else(|| cannot_map("read", buffer, video))?);
        }
    }
    Ok(())
}

/// Copies `bytes`, a frame of format `video`, into a buffer of format `info`, which is the same.
pub(crate) fn write(
    bytes: &[u8],
    video: &VideoFormat,
    info: &VideoInfo,
    buffer: &mut gst::BufferRef,
) -> Result<(), String> {
    if bytes.len() != video.bytes() {
        return Err(format!("a result has {} bytes; expected {}", bytes.len(), video.bytes()));
    }
    check_layout(buffer, video)?;
    let problem = cannot_map("write", buffer, video);
    let Ok(mut mapped) = VideoFrameRef::from_buffer_ref_writable(buffer, info) else {
        return Err(problem);
    };
    for (plane, [from, row, rows]) in (0..).zip(video.format.byte_planes(video.width, video.height))
    {
        let stride = stride(mapped.plane_stride().get(plane as usize), row)?;
        let to = mapped.plane_data_mut(plane).map_err(|error| error.to_string())?;
        let from = bytes[from..from + row * rows].chunks_exact(row);
        for (from, to) in from.zip(to.chunks_mut(stride)) {
            to.get_mut(..row).ok_or_else(|| problem.clone())?.copy_from_slice(from);
        }
    }
    Ok(())
}

/// Checks that all rows lie within the buffer, which GStreamer does not when it maps a frame whose
/// layout the buffer declares.
fn check_layout(buffer: &gst::BufferRef, video: &VideoFormat) -> Result<(), String> {
    let Some(meta) = buffer.meta::<VideoMeta>() else { return Ok(()) };
    let planes = video.format.byte_planes(video.width, video.height);
    for (plane, [_, row, rows]) in planes.into_iter().enumerate() {
        let stride = stride(meta.stride().get(plane), row)?;
        let start = meta.offset().get(plane).copied().unwrap_or_default();
        let end = stride.checked_mul(rows - 1).and_then(|at| at.checked_add(row + start));
        if end.is_none_or(|end| end > buffer.size()) {
            return Err(format!(
                "the rows of plane {plane} begin at byte {start} of a buffer and are {stride} \
                 bytes apart, and it has {} bytes; expected a buffer that holds {}x{} {}",
                buffer.size(),
                video.width,
                video.height,
                video.format
            ));
        }
    }
    Ok(())
}

/// The distance between rows of at least `row` bytes. Frames that are stored from the bottom up
/// have a negative one.
fn stride(found: Option<&i32>, row: usize) -> Result<usize, String> {
    let stride = found.copied().unwrap_or_default();
    usize::try_from(stride).ok().filter(|stride| *stride >= row).ok_or_else(|| {
        format!("the rows of a buffer are {stride} bytes apart; expected at least {row}")
    })
}

fn cannot_map(what: &str, buffer: &gst::BufferRef, video: &VideoFormat) -> String {
    format!(
        "a buffer of {} bytes cannot be mapped to {what} a frame of {}x{} {}",
        buffer.size(),
        video.width,
        video.height,
        video.format
    )
}

//! Raw frames in Matroska, each with a presentation time, which y4m does not support, for a
//! program that reads from a pipe.
//!
//! This is the necessary subset of RFC 9559: one track of uncompressed video, and a cluster for
//! each frame.

use super::format::{Chroma, PixelFormat};
use super::video::{Scan, Siting, VideoFormat};

/// The size of an element of unknown length.
const UNKNOWN: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/// The header of a stream; `None` for an unsupported format. Times are in milliseconds.
pub(super) fn header(video: &VideoFormat) -> Option<Vec<u8>> {
    let name = fourcc(video.format)?;
    let interlaced = if video.scan.has_fields() { 1 } else { 2 };
    let field_order = match video.scan {
        Scan::TopFirst => 1,
        Scan::BottomFirst => 6,
        Scan::Progressive | Scan::Mixed => 0,
    };
    let color = &video.color;
    let mut colors = number(0x55b9, if color.full_range { 2 } else { 1 });
    if video.format.chroma() == Some(Chroma::C420) {
        let [across, down] = match color.siting {
            Siting::Left => [1, 2],
            Siting::Center => [2, 2],
            Siting::TopLeft => [1, 1],
        };
        colors.extend([number(0x55b7, across), number(0x55b8, down)].concat());
    }
    let mut frame = [
        number(0xb0, video.width as u64),
        number(0xba, video.height as u64),
        number(0x9a, interlaced),
        number(0x9d, field_order),
        element(0x2e_b524, &name),
        element(0x55b0, &colors),
    ]
    .concat();
    if let Some([width, height]) = video.aspect.filter(|[width, height]| *width > 0 && *height > 0)
    {
        // Display size, which follows from the pixel aspect ratio.
        frame.extend(number(0x54b0, u64::from(width) * video.width as u64));
        frame.extend(number(0x54ba, u64::from(height) * video.height as u64));
        frame.extend(number(0x54b2, 3));
    }
    let frame_time = (1e9 / video.rate.per_second().max(1e-6)).round() as u64;
    let track = [
        number(0xd7, 1),
        number(0x73c5, 1),
        number(0x83, 1),
        number(0x9c, 0),
        number(0x23_e383, frame_time.max(1)),
        element(0x86, b"V_UNCOMPRESSED"),
        element(0xe0, &frame),
    ]
    .concat();
    let about =
        [number(0x2a_d7b1, 1_000_000), element(0x4d80, b"eddy"), element(0x5741, b"eddy")].concat();
    let kind = [element(0x4282, b"matroska"), number(0x4287, 4), number(0x4285, 2)].concat();
    let mut header = element(0x1a45_dfa3, &kind);
    header.extend([0x18, 0x53, 0x80, 0x67]);
    header.extend(UNKNOWN);
    header.extend(element(0x1549_a966, &about));
    header.extend(element(0x1654_ae6b, &element(0xae, &track)));
    Some(header)
}

/// The header of a frame of `bytes` bytes with that presentation time.
pub(super) fn frame(milliseconds: u64, bytes: usize) -> Vec<u8> {
    let time = number(0xe7, milliseconds);
    // Track number, time 0 relative to the cluster, and the keyframe flag.
    let block_head = [0x81, 0, 0, 0x80];
    let block = [vec![0xa3], size(block_head.len() + bytes)].concat();
    let mut head = vec![0x1f, 0x43, 0xb6, 0x75];
    head.extend(size(time.len() + block.len() + block_head.len() + bytes));
    head.extend(time);
    head.extend(block);
    head.extend(block_head);
    head
}

/// ffmpeg's FourCC for this planar format.
fn fourcc(format: PixelFormat) -> Option<[u8; 4]> {
    let PixelFormat::Planar { chroma, bits } = format else { return None };
    Some(match (chroma, bits as u8) {
        (Chroma::Mono, 8) => *b"Y800",
        (Chroma::C420, 8) => *b"I420",
        (Chroma::C422, 8) => *b"Y42B",
        (Chroma::C444, 8) => *b"444P",
        (Chroma::Mono, bits) => [b'Y', b'1', 0, bits],
        (Chroma::C420, bits) => [b'Y', b'3', 11, bits],
        (Chroma::C422, bits) => [b'Y', b'3', 10, bits],
        (Chroma::C444, bits) => [b'Y', b'3', 0, bits],
    })
}

fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    bytes.extend(size(body.len()));
    bytes.extend(body);
    bytes
}

fn number(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

/// An element size in eight bytes.
fn size(bytes: usize) -> Vec<u8> {
    (bytes as u64 | 1 << 56).to_be_bytes().to_vec()
}

//! Requests to the live view.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::handler::RequestHandler;
use super::state::SharedState;
use crate::http::fuzzing::answers;
use crate::media::stream::{PixelFormat, Rate, VideoFormat};

/// What a client sends on one connection.
pub(crate) fn http(bytes: &[u8]) {
    // That waits for a frame, and there is none.
    if bytes.windows(5).any(|bytes| bytes == b"/pair") {
        return;
    }
    let video = VideoFormat::new(16, 16, Rate::of(25), PixelFormat::I420);
    let state = Arc::new(SharedState::new(video.clone(), video));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8070));
    answers(Arc::new(RequestHandler::new(state, None, address, true)), bytes);
}

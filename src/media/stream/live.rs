//! Treats piped input as live.

use std::path::Path;

use super::{ReadOutcome, Source, VideoFormat, VideoFrame};
use crate::error::Result;

/// A source that is live although it does not look so, such as a pipe from a program that reads a
/// camera: frames arrive as they are captured, and are lost when not read in time.
pub struct LiveSource(pub Box<dyn Source>);

impl Source for LiveSource {
    fn video(&self) -> &VideoFormat {
        self.0.video()
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        self.0.next(frame)
    }

    fn is_live(&self) -> bool {
        true
    }

    fn restarts(&self) -> bool {
        self.0.restarts()
    }

    fn is_uneven(&self) -> bool {
        self.0.is_uneven()
    }

    fn container(&self) -> Option<&Path> {
        self.0.container()
    }
}

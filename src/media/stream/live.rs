//! A pipe at whose other end somebody takes frames.

use std::path::Path;

use super::{ReadOutcome, Source, VideoFormat, VideoFrame};
use crate::error::Result;

/// A source whose frames come when they are taken, and are lost when nobody takes them, though it does not look like it: the
/// pipe of another program that reads a camera.
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

    fn is_uneven(&self) -> bool {
        self.0.is_uneven()
    }

    fn container(&self) -> Option<&Path> {
        self.0.container()
    }
}

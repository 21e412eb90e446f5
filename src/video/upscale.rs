//! Enlarging the pictures of a stream, in memory that is taken once.

use std::ops::ControlFlow;

use ndarray::Array4;

use super::Restore;
use crate::error::Result;
use crate::frame::stream::{Picture, Video};
use crate::task::{Small, Upscaler};
use crate::tensor::Pictures;
use crate::tile::TilePlan;

/// Enlarges the pictures of a stream.
pub struct StreamUpscaler<'a> {
    upscaler: Upscaler<'a>,
    reader: Pictures,
    writer: Pictures,
    tiles: TilePlan,
    small: Small,
    x: Array4<f32>,
}

impl<'a> Upscaler<'a> {
    /// What pictures are like that come of pictures as `video` describes them.
    pub fn enlarged(&self, video: &Video) -> Video {
        let scale = self.manifest.scale;
        let (width, height) = (scale * video.width, scale * video.height);
        // What it meant it goes on meaning, although a large picture that says nothing would mean something else.
        Video { width, height, ..video.clone() }
    }

    /// For the pictures of a stream that are as `video` describes them; results are as `result` does, which is
    /// [`enlarged`](Self::enlarged) but for the kind of samples.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when they do not fit the memory that may be used, or have colour that the network
    /// does not.
    pub fn on_stream(self, video: &Video, result: &Video) -> Result<StreamUpscaler<'a>> {
        let (channels, scale) = (self.manifest.channels, self.manifest.scale);
        let (width, height) = (video.width, video.height);
        let reader = Pictures::new(video, channels, self.range)?;
        let writer = Pictures::new(result, channels, self.range)?;
        let tiles = self.tiles([width, height], true, 0)?;
        let small = Small::of_planes(vec![0.0; channels * width * height], [width, height], self.range, scale);
        let x = Array4::zeros(small.enlarged_shape());
        Ok(StreamUpscaler { upscaler: self, reader, writer, tiles, small, x })
    }
}

impl StreamUpscaler<'_> {
    /// How many times larger results are, along each axis.
    pub fn scale(&self) -> usize {
        self.upscaler.manifest.scale
    }

    /// Evaluations of the network for each picture.
    pub fn steps(&self) -> usize {
        self.upscaler.steps()
    }

    /// How large pictures are cut.
    pub fn tiles(&self) -> &TilePlan {
        &self.tiles
    }
}

impl Restore for StreamUpscaler<'_> {
    fn restore(
        &mut self,
        input: &Picture,
        output: &mut Picture,
        watch: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<()> {
        self.reader.read(&input.bytes, self.small.planes_mut());
        self.upscaler.run(&self.small, &mut self.x, &self.tiles, &mut |_| watch())?;
        self.writer.write(self.x.as_slice().unwrap_or_default(), &mut output.bytes);
        Ok(())
    }
}

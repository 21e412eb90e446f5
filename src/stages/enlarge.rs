//! Enlarges images of any size by a pipeline whose sides have to be multiples of a number.

use std::ops::ControlFlow;

use super::{NoiseSequence, TextToImage, TextToImageReport, TextToImageRequest};
use crate::diffusion::Progress;
use crate::error::{Error, Result};
use crate::media::{Image, Samples};
use crate::task::enlarged;
use crate::tensor::mirror;

impl TextToImage {
    /// Enlarges `image` by the pipeline's factor, [`PipelineSpec::upscale_factor`]. A side that is
    /// no multiple of what the network halves it by is padded by mirroring, and the result is
    /// cropped. The colors of a gray image become RGB; alpha is enlarged bicubically.
    ///
    /// # Errors
    /// [`Error::Usage`] when the pipeline does not enlarge, and as for
    /// [`sample`](TextToImage::sample) and [`decode`](TextToImage::decode).
    ///
    /// [`PipelineSpec::upscale_factor`]: super::PipelineSpec::upscale_factor
    pub fn enlarge(
        &mut self,
        image: &Image,
        request: &TextToImageRequest<'_>,
        draws: &mut NoiseSequence,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Image, TextToImageReport)> {
        image.check()?;
        let factor = self.spec().upscale_factor().ok_or_else(|| {
            let name = &self.spec().name;
            Error::usage(format!("{name} does not enlarge images; it generates them"))
        })?;
        let multiple = self.spec().stages.iter().map(|stage| stage.multiple_of).max().unwrap_or(1);
        let start = padded(&image.visible(), multiple);
        let request = TextToImageRequest { start: Some(&start), ..request.clone() };
        let (sample, mut report) = self.sample(&request, draws, watch)?;
        let large = self.decode_image(sample, watch)?;
        let [width, height] = [factor * image.width, factor * image.height];
        let mut cut = with_alpha(&large, [width, height], image.alpha().is_some());
        if let Some(alpha) = image.alpha() {
            cut.set_alpha(&enlarged(&alpha, factor)?);
        }
        cut.metadata = image.metadata.clone();
        if image.color_channels() == 1 {
            // A gray ICC profile does not describe RGB.
            cut.metadata.icc = None;
        }
        report.size = [width, height];
        Ok((cut, report))
    }
}

/// The image padded by mirroring to multiples of `multiple`, in 8 bits.
fn padded(image: &Image, multiple: usize) -> Image {
    let [width, height] = [image.width, image.height].map(|side| side.next_multiple_of(multiple));
    if [width, height] == [image.width, image.height] {
        return image.clone();
    }
    let mut large = image.black(width, height);
    let channels = image.channels;
    let source = |i: usize| {
        let (y, x, channel) = (i / channels / width, i / channels % width, i % channels);
        let y = mirror(y.cast_signed(), image.height);
        (y * image.width + mirror(x.cast_signed(), image.width)) * channels + channel
    };
    match (&mut large.samples, &image.samples) {
        (Samples::U8(to), Samples::U8(from)) => {
            to.iter_mut().enumerate().for_each(|(i, to)| *to = from[source(i)]);
        }
        (Samples::U16(to), Samples::U16(from)) => {
            to.iter_mut().enumerate().for_each(|(i, to)| *to = from[source(i)]);
        }
        _ => {}
    }
    large
}

/// The corner of an RGB image of this size, with a channel for alpha if requested.
fn with_alpha(large: &Image, [width, height]: [usize; 2], has_alpha: bool) -> Image {
    let channels = if has_alpha { 4 } else { 3 };
    let Samples::U8(from) = &large.samples else { return large.clone() };
    let pixels = (0..height).flat_map(|y| from[3 * y * large.width..][..3 * width].chunks_exact(3));
    let samples = pixels.flat_map(|pixel| {
        let alpha = has_alpha.then_some(u8::MAX);
        pixel.iter().copied().chain(alpha)
    });
    let samples = Samples::U8(samples.collect());
    Image { width, height, channels, samples, metadata: large.metadata.clone() }
}

#[cfg(test)]
mod tests {
    use super::{padded, with_alpha};
    use crate::media::{Image, Samples};

    #[test]
    fn sides_are_continued_by_their_mirror_image_and_cut_again() {
        let samples: Vec<u8> = (0..3 * 3 * 2).collect();
        let image = Image::new(3, 2, 3, Samples::U8(samples)).unwrap();
        let large = padded(&image, 4);
        assert_eq!((large.width, large.height), (4, 4));
        let Samples::U8(samples) = &large.samples else { panic!("8 bits were expected") };
        // The fourth column is the second one, and so is the third row the first one.
        assert_eq!(samples[9..12], samples[3..6], "{samples:?}");
        assert_eq!(samples[24..36], samples[..12], "{samples:?}");
        assert_eq!(with_alpha(&large, [3, 2], false), image);
        let rgba = with_alpha(&large, [3, 2], true);
        assert_eq!((rgba.channels, rgba.samples.len()), (4, 24));
    }
}

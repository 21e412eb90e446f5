//! Generates digits without text, led by a guidance of one's own: toward images whose left half is
//! dark.
//!
//!     cargo run --release --example custom_guidance

#![allow(clippy::print_stdout)]

use eddy::Eddy;
use eddy::diffusion::StepContext;
use eddy::media::Samples;
use eddy::ndarray::{Array4, s};
use eddy::task::GenerateRequest;

fn main() -> eddy::Result<()> {
    let mut generator = Eddy::new()?.generator("digits-ddpm")?;
    generator.options().steps = Some(10);
    // Every prediction of the clean image, in the network's range of -1 to 1, is darkened on the
    // left before it is used.
    let mut dark_left = |_step: &StepContext<'_>, x0: &mut Array4<f32>| {
        let half = x0.dim().3 / 2;
        x0.slice_mut(s![.., .., .., ..half]).mapv_inplace(|value| value.min(-0.9));
        Ok(())
    };
    let request =
        GenerateRequest { seeds: vec![1, 2], guides: vec![&mut dark_left], ..Default::default() };
    let images = generator.run(None, request)?;
    for (i, image) in images.iter().enumerate() {
        let Samples::U8(samples) = &image.samples else {
            unreachable!("generated images have 8 bits a sample")
        };
        let row = image.width * image.channels;
        let left = samples.chunks(row).flat_map(|row| &row[..row.len() / 2]).copied().max();
        println!("image {i}: {}x{}, brightest on the left {left:?}", image.width, image.height);
        assert!(left < Some(60), "guidance had no effect");
    }
    Ok(())
}

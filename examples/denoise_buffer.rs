//! Takes the noise out of an image that lies in memory.
//!
//!     cargo run --release --example denoise_buffer

#![allow(clippy::print_stdout)]

use eddy::Eddy;
use eddy::media::{Image, Samples};

fn main() -> eddy::Result<()> {
    // A ramp with noise, as a camera's driver may hand it over: 8 bits a sample, RGB, row by row.
    let (width, height) = (160, 120);
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as f32 / 255.0 - 0.5
    };
    let clean: Vec<u8> = (0..3 * width * height).map(|i| 60 + (i / 3 % width) as u8 / 2).collect();
    let noisy =
        clean.iter().map(|&value| (f32::from(value) + 60.0 * noise()).round() as u8).collect();
    let mut image = Image::new(width, height, 3, Samples::U8(noisy))?;

    let eddy = Eddy::new()?;
    let report = eddy.denoiser("denoise-fast")?.run(&mut image)?;

    let Samples::U8(denoised) = &image.samples else { unreachable!("an image keeps its depth") };
    let error: f32 =
        denoised.iter().zip(&clean).map(|(a, b)| (f32::from(*a) - f32::from(*b)).powi(2)).sum();
    let rms = (error / clean.len() as f32).sqrt();
    println!("took out noise of sigma {:.1}; {rms:.1} is left of 17.3", report.sigma);
    assert!(rms < 5.0, "the image is not clean");
    Ok(())
}

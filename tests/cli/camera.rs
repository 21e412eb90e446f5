//! Camera frames with default options: 4:2:0 with noise, JPEG with noise, and clean images.

use eddy::diffusion::{NoiseAt, NoiseSource, Philox};
use eddy::media::still::{self, Options};
use eddy::media::{Format, Image, Metadata, Samples};

use crate::common::eddy;
use crate::common::images::{encoded, psnr, read};
use crate::common::place::{Place, data};

const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// A part of the photograph, clean and with white noise in RGB.
fn pair(sigma: f32, seed: u64) -> [Image; 2] {
    let photograph = read(&data("chelsea.png"));
    let Samples::U8(samples) = &photograph.samples else { panic!("the photograph has 8 bits") };
    let rows = (20..20 + HEIGHT).map(|y| &samples[(y * photograph.width + 60) * 3..][..3 * WIDTH]);
    let clean: Vec<u8> = rows.flatten().copied().collect();
    let mut noisy = clean.clone();
    let mut noise = vec![0.0; 3 * WIDTH];
    for (y, row) in noisy.chunks_exact_mut(3 * WIDTH).enumerate() {
        Philox::new(seed).fill(
            NoiseAt { step: 0, batch: 0, channel: 0, y: y as u32 },
            0,
            &mut noise,
        );
        row.iter_mut()
            .zip(&noise)
            .for_each(|(v, z)| *v = (f32::from(*v) + sigma * z).round().clamp(0.0, 255.0) as u8);
    }
    let frame = |samples| Image {
        width: WIDTH,
        height: HEIGHT,
        channels: 3,
        samples: Samples::U8(samples),
        metadata: Metadata::default(),
    };
    [clean, noisy].map(frame)
}

/// An I420 frame by ITU-R BT.601 in limited range, with chroma averaged over 2x2.
fn i420(frame: &Image) -> Vec<u8> {
    let Samples::U8(samples) = &frame.samples else { panic!("8 bits") };
    let at =
        |x: usize, y: usize| [0, 1, 2].map(|c| f32::from(samples[(y * WIDTH + x) * 3 + c]) / 255.0);
    let luma = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let mut bytes: Vec<u8> = (0..WIDTH * HEIGHT)
        .map(|i| (219.0 * luma(at(i % WIDTH, i / WIDTH)) + 16.0).round() as u8)
        .collect();
    for (channel, scale) in [(2, 0.5 / 0.886), (0, 0.5 / 0.701)] {
        for y in (0..HEIGHT).step_by(2) {
            for x in (0..WIDTH).step_by(2) {
                let four = [at(x, y), at(x + 1, y), at(x, y + 1), at(x + 1, y + 1)];
                let mean =
                    four.map(|rgb| (rgb[channel] - luma(rgb)) * scale).iter().sum::<f32>() / 4.0;
                bytes.push((224.0 * mean + 128.0).round() as u8);
            }
        }
    }
    bytes
}

fn y4m(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip C420jpeg\n").into_bytes();
    for frame in frames {
        stream.extend(b"FRAME\n");
        stream.extend(frame);
    }
    stream
}

/// PSNR of the last frame of a y4m stream of equal format, over all samples.
fn psnr_of_last(stream: &[u8], clean: &[u8]) -> f64 {
    let last = &stream[stream.len() - clean.len()..];
    let squares =
        last.iter().zip(clean).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
    10.0 * (255.0 * 255.0 * clean.len() as f64 / squares).log10()
}

#[test]
fn previous_frames_improve_420_video() {
    let sigma = 20.0;
    let place = Place::new();
    let clean = i420(&pair(0.0, 0)[0]);
    let frames: Vec<_> = (0..10).map(|seed| i420(&pair(sigma, seed)[1])).collect();
    place.file("noisy.y4m", y4m(&frames));
    let before = psnr_of_last(&y4m(&frames), &clean);
    let denoised = |arguments: &str| {
        let record = eddy("denoise noisy.y4m -o out.y4m --json")
            .args(arguments)
            .within(&place)
            .succeeds()
            .json();
        (psnr_of_last(&place.bytes("out.y4m"), &clean), record)
    };
    let (single, record) = denoised("");
    assert_eq!(record["model"], "camera", "{record}");
    // White noise of RGB, converted to luma and to chroma at half resolution.
    let (luma, chroma) =
        (record["sigma"].as_f64().unwrap(), record["sigma_chroma"].as_f64().unwrap());
    assert!((luma / (0.6685 * sigma as f64) - 1.0).abs() < 0.2, "{record}");
    assert!((chroma / (0.32 * sigma as f64) - 1.0).abs() < 0.3, "{record}");
    let (rgb, _) = denoised("-m denoise-fast");
    let (fused, record) = denoised("--temporal");
    assert!(single > before + 5.0 && single > rgb, "{before} became {single}, {rgb} in RGB");
    assert!(fused > single + 2.0, "{single} became {fused}");
    assert!(record["tiles_computed"].as_f64().unwrap() < 0.9, "{record}");
}

#[test]
fn clean_images_and_frames_are_bit_identical() {
    let [clean, _] = pair(0.0, 0);
    let place = Place::with("clean.png", &clean);
    place.file("clean.y4m", y4m(&[i420(&clean), i420(&clean), i420(&clean)]));
    eddy("denoise clean.png -o out.png").within(&place).succeeds().says("clean, left as it is");
    assert_eq!(place.image("out.png").samples, clean.samples);
    eddy("denoise clean.y4m -o out.y4m").within(&place).succeeds();
    assert!(psnr_of_last(&place.bytes("out.y4m"), &i420(&clean)) > 60.0);
}

#[test]
fn jpeg_noise_selects_the_model() {
    let [clean, noisy] = pair(20.0, 3);
    let place = Place::with("clean.png", &clean);
    let options = Options { jpeg_quality: 80 };
    // The noise of luma alone, as where chroma is smoothed, and that of independent colors.
    let mut smoothed = noisy.clone();
    if let (Samples::U8(smoothed), Samples::U8(clean)) = (&mut smoothed.samples, &clean.samples) {
        for (pixel, clean) in smoothed.chunks_exact_mut(3).zip(clean.chunks_exact(3)) {
            let noise = i16::from(pixel[1]) - i16::from(clean[1]);
            let noisy = |value: u8| (i16::from(value) + noise).clamp(0, 255) as u8;
            pixel.iter_mut().zip(clean).for_each(|(out, value)| *out = noisy(*value));
        }
    }
    for (image, said) in
        [(&smoothed, "camera for camera noise"), (&noisy, "denoise-fast for white noise")]
    {
        still::write(image, &place.path("noisy.jpg"), Format::Jpeg, &options).unwrap();
        eddy("denoise noisy.jpg -o out.png").within(&place).succeeds().says(said);
        let [before, after] = ["noisy.jpg", "out.png"].map(|name| psnr(&place.image(name), &clean));
        assert!(after > before + 3.0, "{before} became {after}: {said}");
    }
}

#[test]
fn strength_blends_with_the_input() {
    let [_, noisy] = pair(20.0, 3);
    let place = Place::with("noisy.png", &noisy);
    let at = |strength: &str| {
        eddy("denoise noisy.png -o out.png --strength").arg(strength).within(&place).succeeds();
        place.image("out.png")
    };
    assert_eq!(at("0").samples, noisy.samples);
    let [half, all] =
        ["0.5", "1"].map(|strength| 255.0 / 10_f64.powf(psnr(&at(strength), &noisy) / 20.0));
    assert!((half / all - 0.5).abs() < 0.03, "{half} of {all}");
    eddy("denoise noisy.png -o out.png --strength 1.5")
        .within(&place)
        .fails(2)
        .says("from 0 (nothing) to 1 (all)");
}

/// Two fields with different scenes: each is denoised separately.
#[test]
fn denoises_interlaced_frames_by_field() {
    let place = Place::new();
    let field = |level: u8, seed: u64| {
        let mut noise = vec![0.0; WIDTH * HEIGHT / 2];
        Philox::new(seed).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut noise);
        noise
            .iter()
            .map(|z| (f32::from(level) + 10.0 * z).round().clamp(0.0, 255.0) as u8)
            .collect::<Vec<_>>()
    };
    let fields = [field(60, 1), field(190, 2)];
    let mut frame = Vec::new();
    for y in 0..HEIGHT {
        frame.extend(&fields[y % 2][y / 2 * WIDTH..][..WIDTH]);
    }
    frame.extend(vec![128; WIDTH * HEIGHT / 2]);
    let mut stream = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 It C420jpeg\n").into_bytes();
    stream.extend(b"FRAME\n");
    stream.extend(&frame);
    place.file("fields.y4m", &stream);
    eddy("denoise fields.y4m -o out.y4m --sigma 12,0").within(&place).succeeds();
    let out = place.bytes("out.y4m");
    assert!(
        out.starts_with(b"YUV4MPEG2") && out.windows(4).any(|word| word == b" It "),
        "the header says fields"
    );
    let luma = &out[out.len() - frame.len()..][..WIDTH * HEIGHT];
    for (parity, level) in [(0, 60.0), (1, 190.0)] {
        let rows = luma.chunks_exact(WIDTH).skip(parity).step_by(2).flatten();
        let squares = rows.map(|value| (f64::from(*value) - level).powi(2)).sum::<f64>();
        let rest = (squares / (WIDTH * HEIGHT / 2) as f64).sqrt();
        assert!(rest < 3.0, "of noise of 10, {rest} is left in field {parity}");
    }
    eddy("upscale fields.y4m -o large.y4m -s 2").within(&place).fails(2).says("bwdif");
}

/// Black and colored strokes on white, as on a screen.
#[test]
fn images_of_text_are_bit_identical() {
    let mut samples = vec![255; 3 * WIDTH * HEIGHT];
    for (i, pixel) in samples.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % WIDTH, i / WIDTH);
        let is_stroke = y % 24 < 14 && (x * 7 + y / 24 * 13) % 11 < 4 && (x / 5 + y) % 3 > 0;
        if is_stroke {
            pixel.copy_from_slice(if y > HEIGHT / 2 { &[20, 40, 160] } else { &[0, 0, 0] });
        }
    }
    let samples = Samples::U8(samples);
    let page =
        Image { width: WIDTH, height: HEIGHT, channels: 3, samples, metadata: Metadata::default() };
    let place = Place::with("page.png", &page);
    eddy("denoise page.png -o out.png").within(&place).succeeds();
    assert_eq!(place.image("out.png").samples, page.samples);
}

#[test]
fn raw_frames_need_a_size_and_reconnect_waits_for_a_camera() {
    let place = Place::new();
    place.file("r.nv12", [0; 600]);
    eddy("denoise r.nv12 -o out.y4m")
        .within(&place)
        .fails(2)
        .says("--size 640x480 --pixel-format nv12");
    let started = std::time::Instant::now();
    eddy("denoise /dev/video98 -o out.y4m --reconnect 0.7")
        .within(&place)
        .fails(3)
        .says("/dev/video98");
    assert!(started.elapsed().as_secs_f64() >= 0.7);
}

/// The profile of images is for red, green and blue; the noise of 4:2:0 video is derived from it.
#[test]
fn a_profile_of_images_applies_to_420_video() {
    let place = Place::new();
    for seed in 0..3 {
        place.file(&format!("still/{seed}.png"), encoded(&pair(12.0, seed)[1], "png"));
    }
    eddy("profile still -o noise.toml").within(&place).succeeds();
    place.file("noisy.y4m", y4m(&[i420(&pair(12.0, 7)[1])]));
    let record = eddy("denoise noisy.y4m -o out.y4m --noise-profile noise.toml --json")
        .within(&place)
        .succeeds()
        .json();
    assert_eq!(record["model"], "camera", "{record}");
    let (luma, chroma) =
        (record["sigma"].as_f64().unwrap(), record["sigma_chroma"].as_f64().unwrap());
    assert!(
        (luma / (0.6685 * 12.0) - 1.0).abs() < 0.1 && (chroma / (0.32 * 12.0) - 1.0).abs() < 0.1,
        "{record}"
    );
}

/// Frames with a luma noise variance of 0.01 times luma above black, and equally for chroma, in
/// 8-bit units.
fn by_the_light(clean: &[u8], seed: u64) -> Vec<u8> {
    let mut noise = vec![0.0; clean.len()];
    Philox::new(seed).fill(NoiseAt { step: 0, batch: 0, channel: 0, y: 0 }, 0, &mut noise);
    let area = WIDTH * HEIGHT;
    let signal = |i: usize| match i.checked_sub(area) {
        None => f32::from(clean[i]),
        Some(i) => {
            f32::from(clean[2 * (i % (area / 4) / (WIDTH / 2)) * WIDTH + 2 * (i % (WIDTH / 2))])
        }
    };
    let sigma = |i: usize| (219.0 * 0.01 * (signal(i) - 16.0).max(0.0)).sqrt();
    let noisy =
        clean.iter().zip(&noise).enumerate().map(|(i, (v, z))| f32::from(*v) + sigma(i) * z);
    noisy.map(|v| v.round().clamp(16.0, 240.0) as u8).collect()
}

#[test]
fn profiles_luma_and_chroma_of_video() {
    let clean = i420(&pair(0.0, 0)[0]);
    let place = Place::new();
    place
        .file("still.y4m", y4m(&(0..8).map(|seed| by_the_light(&clean, seed)).collect::<Vec<_>>()));
    let record = eddy("profile still.y4m -o camera.toml --json").within(&place).succeeds().json();
    assert_eq!(
        (record["color_model"].as_str(), record["frames"].as_u64()),
        (Some("yuv"), Some(8)),
        "{record}"
    );
    for (i, channel) in record["channels"].as_array().unwrap().iter().enumerate() {
        // Chroma of limited range has 224 steps, luma 219.
        let expected = if i == 0 { 0.01 } else { 0.01 * (219.0_f64 / 224.0).powi(2) };
        let a = channel["a"].as_f64().unwrap();
        assert!((a / expected - 1.0).abs() < 0.1, "channel {i}: {record}");
        assert!(channel["b"].as_f64().unwrap() < 3e-4, "channel {i}: {record}");
    }
    place.file("noisy.y4m", y4m(&[by_the_light(&clean, 99)]));
    let denoised = |arguments: &str| {
        let record = eddy("denoise noisy.y4m -o out.y4m --json")
            .args(arguments)
            .within(&place)
            .succeeds()
            .json();
        assert_eq!(record["model"], "camera", "{record}");
        psnr_of_last(&place.bytes("out.y4m"), &clean)
    };
    let (auto, told) = (denoised(""), denoised("--noise-profile camera.toml"));
    assert!(told > auto, "{auto} by the estimate, {told} by the profile");
    // The camera model also uses the profile for RGB images; networks for red, green and blue
    // cannot use it.
    place.file("noisy.png", encoded(&pair(12.0, 1)[1], "png"));
    let record = eddy("denoise noisy.png -o out.png --noise-profile camera.toml --json")
        .within(&place)
        .succeeds()
        .json();
    assert_eq!(record["model"], "camera", "{record}");
    for source in ["noisy.png -o o.png", "noisy.y4m -o o.y4m"] {
        let arguments = format!("denoise {source} -m denoise-fast --noise-profile camera.toml");
        eddy(&arguments).within(&place).fails(2).says("leave out -m");
    }
    place.file("one.y4m", y4m(&[clean]));
    eddy("profile one.y4m -o one.toml").within(&place).fails(3).says("two or more");
}

use super::{Range, Rect, mirror, read_planes, read_region, write_planes, write_region};
use crate::media::{Image, Metadata, Samples};

const RANGES: [Range; 2] = [Range::UNIT, Range::SIGNED];

fn image(width: usize, height: usize, channels: usize, samples: Samples) -> Image {
    Image { width, height, channels, samples, metadata: Metadata::default() }
}

/// Pseudo-random samples that are equal on all platforms.
fn noise(count: usize, seed: u32) -> impl Iterator<Item = u16> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u16
    })
    .take(count)
}

fn noisy_u8(width: usize, height: usize, channels: usize) -> Image {
    let samples = noise(width * height * channels, (width * 31 + height * 7 + channels) as u32);
    image(width, height, channels, Samples::U8(samples.map(|value| value as u8).collect()))
}

fn noisy_u16(width: usize, height: usize, channels: usize) -> Image {
    let samples = noise(width * height * channels, (width * 13 + height * 5 + channels) as u32);
    image(width, height, channels, Samples::U16(samples.collect()))
}

fn sample(image: &Image, x: usize, y: usize, channel: usize) -> f64 {
    let at = (y * image.width + x) * image.channels + channel;
    match &image.samples {
        Samples::U8(samples) => f64::from(samples[at]) / 255.0,
        Samples::U16(samples) => f64::from(samples[at]) / 65535.0,
    }
}

fn negated(image: &Image) -> Image {
    let samples = match &image.samples {
        Samples::U8(samples) => Samples::U8(samples.iter().map(|value| !value).collect()),
        Samples::U16(samples) => Samples::U16(samples.iter().map(|value| !value).collect()),
    };
    Image { samples, ..image.clone() }
}

#[test]
fn round_trips_every_sample() {
    let bytes = image(256, 1, 1, Samples::U8((0..=u8::MAX).collect()));
    let words = image(256, 256, 1, Samples::U16((0..=u16::MAX).collect()));
    let ranges = [
        Range::UNIT,
        Range::SIGNED,
        Range::new(0.0, 255.0).unwrap(),
        Range::new(-1.5, 3.25).unwrap(),
    ];
    for range in ranges {
        for original in [&bytes, &words] {
            let mut planes = vec![f32::NAN; original.width * original.height];
            read_planes(original, range, &mut planes).unwrap();
            assert_eq!(planes.first(), Some(&range.lo()));
            assert!((planes.last().unwrap() - range.hi()).abs() <= 1e-6 * range.hi().abs());
            let mut back = negated(original);
            assert_eq!(write_planes(&planes, range, &mut back).unwrap(), 0);
            assert_eq!(&back, original, "{range:?}");
        }
    }
}

#[test]
fn round_trips_odd_sizes_and_all_channels_and_keeps_alpha() {
    for range in RANGES {
        for (width, height) in [(1, 1), (1, 7), (5, 3), (17, 1), (257, 2), (300, 5)] {
            for channels in 1..=4 {
                for original in
                    [noisy_u8(width, height, channels), noisy_u16(width, height, channels)]
                {
                    let mut planes = vec![f32::NAN; 3 * width * height];
                    read_planes(&original, range, &mut planes).unwrap();
                    let mut back = negated(&original);
                    assert_eq!(write_planes(&planes, range, &mut back).unwrap(), 0);
                    for y in 0..height {
                        for x in 0..width {
                            for channel in 0..channels {
                                let alpha = original.has_alpha() && channel == channels - 1;
                                let expected = sample(&original, x, y, channel);
                                let expected = if alpha { 1.0 - expected } else { expected };
                                let found = sample(&back, x, y, channel);
                                assert!(
                                    (found - expected).abs() < 1e-9,
                                    "{width}x{height}x{channels} at {x},{y}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn mirrors_as_numpy_does() {
    // numpy.pad(numpy.arange(4), 7, "reflect")
    let expected = [1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2];
    let found: Vec<usize> = (-7..11).map(|at| mirror(at, 4)).collect();
    assert_eq!(found, expected);
    assert_eq!((mirror(-3, 1), mirror(9, 1), mirror(-1, 2), mirror(2, 2)), (0, 0, 1, 0));
}

/// Reflects at both ends one step at a time.
fn naive_mirror(at: isize, size: isize) -> usize {
    let mut at = at;
    while at < 0 || at >= size {
        if size == 1 {
            return 0;
        }
        at = if at < 0 { -at } else { 2 * (size - 1) - at };
    }
    at as usize
}

#[test]
fn reads_regions_beyond_the_edges_like_a_naive_version() {
    let rects = [
        (0, 0, 5, 4),
        (-3, -2, 9, 9),
        (-20, -17, 50, 40),
        (3, 2, 1, 1),
        (40, -30, 6, 3),
        (-9, 1, 4, 2),
    ];
    for (width, height) in [(5, 4), (1, 3), (7, 1), (2, 2)] {
        for channels in 1..=4 {
            for original in [noisy_u8(width, height, channels), noisy_u16(width, height, channels)]
            {
                for (x0, y0, rect_width, rect_height) in rects {
                    let rect = Rect { x0, y0, width: rect_width, height: rect_height };
                    let area = rect_width * rect_height;
                    let mut planes = vec![f32::NAN; 3 * area];
                    read_region(&original, Range::SIGNED, rect, &mut planes).unwrap();
                    for (at, found) in planes.iter().enumerate() {
                        let (plane, row, column) =
                            (at / area, at % area / rect_width, at % rect_width);
                        let x = naive_mirror(x0 + column as isize, width as isize);
                        let y = naive_mirror(y0 + row as isize, height as isize);
                        let channel = if channels >= 3 { plane } else { 0 };
                        let expected = 2.0 * sample(&original, x, y, channel) - 1.0;
                        assert!(
                            (f64::from(*found) - expected).abs() < 1e-6,
                            "{rect:?} of {width}x{height}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn writes_regions_only_inside_the_image() {
    let rects = [
        (0, 0, 5, 4),
        (-3, -2, 9, 9),
        (-20, -17, 50, 40),
        (3, 2, 1, 1),
        (4, 3, 6, 3),
        (40, -30, 6, 3),
    ];
    for channels in 1..=4 {
        let original = noisy_u8(5, 4, channels);
        for (x0, y0, width, height) in rects {
            let planes: Vec<f32> =
                (0..3 * width * height).map(|at| (at % 256) as f32 / 255.0).collect();
            let mut found = original.clone();
            write_region(&planes, Range::UNIT, &mut found, Rect { x0, y0, width, height }).unwrap();
            for y in 0..4 {
                for x in 0..5 {
                    let (column, row) = (x as isize - x0, y as isize - y0);
                    let covered = (0..width as isize).contains(&column)
                        && (0..height as isize).contains(&row);
                    for channel in 0..channels {
                        let alpha = original.has_alpha() && channel == channels - 1;
                        let value = |plane: usize| {
                            f64::from(
                                planes[plane * width * height
                                    + row as usize * width
                                    + column as usize],
                            )
                        };
                        let expected = match (covered && !alpha, channels >= 3) {
                            (false, _) => sample(&original, x, y, channel),
                            (true, true) => value(channel),
                            (true, false) => (value(0) + value(1) + value(2)) / 3.0,
                        };
                        assert!(
                            (sample(&found, x, y, channel) - expected).abs() <= 0.500_1 / 255.0
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn rounds_clamps_and_counts_non_finite_values() {
    let values = [0.49, 0.5, 1.49, 254.5, 300.0, -7.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let range = Range::new(0.0, 255.0).unwrap();
    let mut bytes = image(9, 1, 1, Samples::U8(vec![9; 9]));
    assert_eq!(write_planes(&values, range, &mut bytes).unwrap(), 3);
    assert_eq!(bytes.samples, Samples::U8(vec![0, 0, 1, 254, 255, 0, 0, 255, 0]));

    let mut color = image(3, 1, 3, Samples::U16(vec![9; 9]));
    let range = Range::new(0.0, 65535.0).unwrap();
    assert_eq!(write_planes(&values, range, &mut color).unwrap(), 3);
    assert_eq!(color.samples, Samples::U16(vec![0, 254, 0, 0, 300, 65535, 1, 0, 0]));
}

#[test]
fn rejects_color_for_one_plane() {
    let mut color = noisy_u8(3, 2, 4);
    let mut plane = [0.0; 6];
    assert!(
        read_planes(&color, Range::UNIT, &mut plane)
            .unwrap_err()
            .to_string()
            .contains("three color channels")
    );
    assert!(write_planes(&plane, Range::UNIT, &mut color).is_err());
}

#[test]
fn reads_gray_into_one_plane() {
    for channels in [1, 2] {
        let original = noisy_u16(4, 3, channels);
        let mut plane = [f32::NAN; 12];
        read_planes(&original, Range::SIGNED, &mut plane).unwrap();
        let mut back = original.clone();
        if let Samples::U16(samples) = &mut back.samples {
            samples.iter_mut().step_by(channels).for_each(|value| *value = !*value);
        }
        write_planes(&plane, Range::SIGNED, &mut back).unwrap();
        assert_eq!(back, original);
    }
}

#[test]
fn rejects_a_range_that_does_not_increase() {
    assert!(Range::new(1.0, 0.0).is_err());
    assert!(Range::new(0.0, 0.0).is_err());
    assert!(Range::new(f32::NAN, 1.0).is_err());
    assert!(Range::new(0.0, f32::INFINITY).is_err());
}

//! Target rates and latency targets.

use crate::common::eddy;
use crate::common::images::noisy;
use crate::common::place::Place;

/// A folder of `count` noisy images.
fn place(width: usize, height: usize, count: usize) -> Place {
    let image = noisy(width, height, 3, 8);
    (0..count).fold(Place::new(), |place, i| place.and(&format!("in/{i:02}.png"), &image))
}

#[test]
fn does_not_exceed_the_target_rate() {
    let place = place(48, 32, 12);
    let record = eddy("denoise in -o out.y4m --fps 20 --json").within(&place).succeeds().summary();
    // 0.55 seconds lie between the first and the last frame.
    assert!(record["seconds"].as_f64().unwrap() >= 0.55, "{record}");
    assert_eq!((record["written"].as_u64(), record["fps"].as_f64()), (Some(12), Some(20.0)));
    // All frames of a file are kept, at its own rate.
    assert!(place.bytes("out.y4m").starts_with(b"YUV4MPEG2 W48 H32 F25:1 "));
}

#[test]
fn reports_reduced_quality() {
    let place = place(640, 480, 12);
    // No CPU takes only a millisecond.
    let outcome = eddy("denoise in -o out.y4m --fps 1000").within(&place).succeeds();
    outcome.says("1000 requested; ").says(" of the size (");
    let record =
        eddy("denoise in -o out.y4m --deadline-ms 1 --json").within(&place).succeeds().summary();
    let qualities = record["qualities"].as_array().unwrap();
    assert_eq!(qualities.iter().map(|of| of["frames"].as_u64().unwrap()).sum::<u64>(), 12);
    assert!(qualities.iter().all(|of| of["scale"] != "1"), "{record}");
    assert_eq!((record["late"].as_u64(), record["deadline_ms"].as_f64()), (Some(12), Some(1.0)));
}

#[test]
fn chooses_the_better_model_if_it_keeps_up() {
    let place = place(48, 32, 2);
    let model = |options: &str| {
        let record = eddy(&format!("denoise in -o out.y4m --json {options}"))
            .within(&place)
            .succeeds()
            .summary();
        assert_eq!(
            record["qualities"].as_array().map(Vec::len),
            (!options.is_empty()).then_some(1),
            "{record}"
        );
        (record["model"].as_str().unwrap().to_owned(), record["steps"].as_u64().unwrap())
    };
    assert_eq!(model(""), ("denoise-fast".to_owned(), 1));
    assert_eq!(model("--fps 1"), ("denoise".to_owned(), 1));
    assert_eq!(model("--fps 1 --steps 3"), ("denoise".to_owned(), 3));
    assert_eq!(model("--fps 1 -m denoise-fast"), ("denoise-fast".to_owned(), 1));
}

#[test]
fn upscaling_reduces_steps() {
    let place = place(320, 240, 4);
    let record = eddy("upscale in -o out.y4m -s 2 --steps 4 --fps 1000 --json")
        .within(&place)
        .succeeds()
        .summary();
    let taken: Vec<_> =
        record["qualities"].as_array().unwrap().iter().map(|of| of["steps"].as_u64()).collect();
    assert_eq!(taken, [Some(4), Some(1)]);
}

#[test]
fn rejects_invalid_rates() {
    let place = place(16, 16, 1);
    for options in ["--fps 0", "--fps -3", "--fps often", "--deadline-ms 0", "--deadline-ms 1.5"] {
        eddy(&format!("denoise in -o out.y4m {options}")).within(&place).fails(2);
    }
    place.holds_only(&["in"]);
}

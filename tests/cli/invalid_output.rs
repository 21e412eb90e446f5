//! Invalid output of networks.

use eddy::media::{Image, Samples};

use crate::common::eddy;
use crate::common::images::{distance, noisy};
use crate::common::place::{MANIFEST, Place, data, sha256};

/// The package `m`: one network as its f32 file and another as its int8 file.
fn place(f32: &str, int8: &str) -> Place {
    let place = Place::with("a.png", &noisy(64, 48, 3, 8));
    let mut manifest = MANIFEST.split("[files").next().unwrap().to_owned();
    for (precision, name) in [("f32", f32), ("int8", int8)] {
        let bytes = std::fs::read(data("models").join(format!("{name}.onnx"))).unwrap();
        place.file(&format!("m/{precision}.onnx"), &bytes);
        manifest += &format!(
            "[files.{precision}]\npath = \"{precision}.onnx\"\nsha256 = \"{}\"\n",
            sha256(&bytes)
        );
    }
    place.file("m/model.toml", manifest);
    place
}

fn flat(level: u8) -> Image {
    let mut image = noisy(64, 48, 3, 8);
    let Samples::U8(samples) = &mut image.samples else { panic!("it has 8 bits") };
    samples.iter_mut().enumerate().for_each(|(i, sample)| *sample = level + (i % 7) as u8);
    image
}

#[test]
fn repeats_invalid_tiles_in_f32() {
    for (broken, tiles, options) in
        [("nan", 1, ""), ("nan", 12, "-t 16 --tile-overlap 0"), ("nan", 2, "--steps 2")]
    {
        let place = place("darker", broken);
        let arguments =
            format!("denoise a.png -o b.png -m m --sigma 51 --precision int8 {options}");
        let record = eddy(&format!("{arguments} --json")).within(&place).succeeds().json();
        assert_eq!(record["tiles_repeated"].as_u64(), Some(tiles), "{record}");
        let darker = distance(&place.image("a.png"), &place.image("b.png"));
        assert!(darker > 20.0, "{darker}");
        eddy(&arguments).within(&place).succeeds().says("repeated in f32");
    }
}

#[test]
fn black_output_is_invalid() {
    let place = place("darker", "black").and("bright.png", &flat(200)).and("dark.png", &flat(40));
    let repeated = |name: &str| {
        let arguments =
            format!("denoise {name}.png -o b.png -m m --sigma 5 --precision int8 --json");
        eddy(&arguments).within(&place).succeeds().json()["tiles_repeated"].as_u64()
    };
    assert_eq!((repeated("bright"), repeated("dark")), (Some(1), Some(0)));
    assert!(distance(&place.image("bright.png"), &place.image("dark.png")) > 100.0);
}

#[test]
fn one_failed_frame_does_not_end_a_stream() {
    let levels = [40, 200, 41].into_iter().enumerate();
    let place = levels.fold(place("black", "nan"), |place, (i, level)| {
        place.and(&format!("in/{i}.png"), &flat(level))
    });
    for options in ["", "--temporal", "--temporal --fps 5"] {
        let arguments = format!("denoise in -o out.raw -m m --sigma 5 {options}");
        let record = eddy(&format!("{arguments} --json")).within(&place).succeeds().summary();
        assert_eq!(
            (record["written"].as_u64(), record["passed_through"].as_u64()),
            (Some(3), Some(1)),
            "{record}"
        );
        let Samples::U8(passed) = flat(200).samples else { panic!("it has 8 bits") };
        assert!(place.bytes("out.raw").chunks_exact(passed.len()).nth(1) == Some(&passed));
        eddy(&arguments)
            .within(&place)
            .succeeds()
            .says("1 passed through unchanged")
            .says("and the frame passed through unchanged");
    }
    // A network whose first frame is already invalid fails.
    eddy("denoise in/1.png in/0.png -o out.y4m -m m --sigma 5")
        .within(&place)
        .fails(1)
        .says("all over, for an image");
    eddy("denoise in/1.png -o b.png -m m --sigma 5")
        .within(&place)
        .fails(1)
        .says("step 1 gave 0.000 all over");
}

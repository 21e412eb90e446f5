//! Which files of a folder are read, and how the others are reported.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::common::images::noisy;
use crate::common::place::Place;
use crate::common::{BINARY, eddy};

#[test]
fn reports_unsupported_images_and_ignores_other_files() {
    let place = Place::with("in/a.png", &noisy(16, 12, 3, 8));
    place.file("in/b.heic", b"\0\0\0\x20ftypheic\0\0\0\0mif1heic");
    place.file("in/c.GIF", b"GIF89a\x01\0\x01\0\0\0\0;");
    for name in ["in/notes.txt", "in/a.xmp", "in/list.json", "in/.hidden.heic"] {
        place.file(name, "nothing to see");
    }
    eddy("denoise in -o out")
        .within(&place)
        .fails(3)
        .says("in/b.heic: by its content it is a HEIF")
        .says("heif-convert")
        .says("in/c.GIF: by its content it is a GIF")
        .says("2 of 3 images failed");
    assert_eq!(place.names("out"), ["a.png"]);
    for name in ["in/b.heic", "in/c.GIF"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    eddy("denoise in -o out -q").within(&place).succeeds().says_nothing();
}

#[test]
fn reads_subfolders_if_requested() {
    let image = noisy(16, 12, 3, 8);
    let place = Place::with("in/a.png", &image)
        .and("in/deep/a.png", &image)
        .and("in/deep/er/b.jpg", &image);
    place.file("in/.thumbnails/a.png", "hidden");
    place.file("in/text/notes.txt", "none here");
    symlink("..", place.path("in/deep/up")).unwrap();
    eddy("denoise in -o out")
        .within(&place)
        .succeeds()
        .says("left out: the folder in/deep and 1 more; --recursive");
    assert_eq!(place.names("out"), ["a.png"]);
    // Results inside the input folder are not read.
    for _ in 0..2 {
        eddy("denoise in -o in/out --recursive --sigma 9").within(&place).succeeds();
        assert_eq!(place.names("in/out"), ["a.png", "deep"]);
        assert_eq!(place.names("in/out/deep"), ["a.png", "er"]);
        assert_eq!(place.names("in/out/deep/er"), ["b.jpg"]);
    }
    eddy("denoise in/a.png -o one.png -r").within(&place).succeeds();
    eddy("denoise in -o out.y4m -r").within(&place).fails(2).says("leave --recursive out");
    eddy("denoise in -o in -r").within(&place).fails(2).says("would replace the input");
    eddy("denoise in/text -o out -r").within(&place).fails(3).says("holds no image");
}

#[test]
fn writes_through_dangling_links() {
    let place = Place::with("a.png", &noisy(16, 12, 3, 8));
    place.folder("elsewhere");
    symlink("elsewhere/b.png", place.path("second.png")).unwrap();
    symlink("second.png", place.path("link.png")).unwrap();
    eddy("denoise a.png -o link.png").within(&place).succeeds();
    assert_eq!(place.names("elsewhere"), ["b.png"]);
    assert!(place.path("link.png").is_symlink() && place.path("second.png").is_symlink());
    symlink("gone/b.png", place.path("lost.png")).unwrap();
    eddy("denoise a.png -o lost.png")
        .within(&place)
        .fails(1)
        .says("does not exist; create it first");
    symlink("round.png", place.path("round.png")).unwrap();
    eddy("denoise a.png -o round.png").within(&place).fails(1).says("round.png");
    // Stream outputs behave alike.
    symlink("elsewhere/s.y4m", place.path("s.y4m")).unwrap();
    eddy("denoise a.png -o s.y4m").within(&place).succeeds();
    assert_eq!(place.names("elsewhere"), ["b.png", "s.y4m"]);
}

/// The output for these bytes on standard input.
fn piped(place: &Place, input: &str, arguments: &str) -> (Vec<u8>, String) {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("cat {input} | {BINARY} {arguments}")])
        .current_dir(place.path(""));
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {words}");
    (output.stdout, words)
}

#[test]
fn reads_and_writes_an_image_through_pipes() {
    let image = noisy(40, 30, 3, 8);
    let place = Place::with("a.png", &image).and("a.bmp", &image).and("b.png", &image);
    eddy("denoise a.png -o expected.png").within(&place).succeeds();
    eddy("denoise a.png b.png -o expected.y4m --sigma 9").within(&place).succeeds();
    let expected = place.image("expected.png");
    for (input, options) in [("a.png", ""), ("a.bmp", "-f png"), ("a.png", "--json")] {
        let (bytes, words) = piped(&place, input, &format!("denoise - -o - {options}"));
        place.file("out.png", bytes);
        assert_eq!(place.image("out.png"), expected, "{input} {options}");
        assert!(words.contains("sigma"), "{words}");
    }
    // Also from a file.
    for (arguments, start) in
        [("a.png -o -", &b"\x89PNG"[..]), ("a.bmp -o -", b"BM"), ("a.bmp -o - -f png", b"\x89PNG")]
    {
        let (bytes, _) = piped(&place, "a.png", &format!("denoise {arguments}"));
        assert!(bytes.starts_with(start), "{arguments}");
        place.file("out.png", bytes);
        assert_eq!(place.image("out.png").samples, expected.samples, "{arguments}");
    }
    for arguments in ["a.png -o - -f y4m", "a.png b.png -o -"] {
        let (bytes, _) = piped(&place, "a.png", &format!("denoise {arguments} --sigma 9"));
        assert!(bytes.starts_with(b"YUV4MPEG2"), "{arguments}");
    }
    let (bytes, _) = piped(&place, "a.bmp", "upscale - -o -");
    assert!(bytes.starts_with(b"BM"));
    let (bytes, _) = piped(&place, "a.png", "denoise - -o named.png");
    assert!(bytes.is_empty() && place.image("named.png") == expected);
    // A stream stays a stream.
    eddy("denoise expected.y4m -o twice.y4m --sigma 9").within(&place).succeeds();
    let (bytes, _) = piped(&place, "expected.y4m", "denoise - -o - --sigma 9");
    assert!(bytes == place.bytes("twice.y4m"));
}

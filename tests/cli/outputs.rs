//! Impossible outputs: the exit code, a message that says what to do, and nothing left behind.

use std::process::Command;

use crate::common::images::{encoded, noisy};
use crate::common::place::{Place, npy};
use crate::common::{BINARY, Eddy, eddy, skip, unshare};

fn place() -> Place {
    Place::with("a.png", &noisy(40, 30, 3, 8))
}

#[test]
fn rejects_an_unknown_extension() {
    let place = place();
    for name in ["out", "out.abc", "out.png.part"] {
        eddy("denoise a.png -o")
            .arg(name)
            .within(&place)
            .fails(2)
            .says(name)
            .says("has an unknown extension; end it in .png");
    }
    eddy("denoise a.png -o out.gif")
        .within(&place)
        .fails(2)
        .says("Eddy does not write this image format; choose PNG");
    place.holds_only(&["a.png"]);
}

#[test]
fn rejects_several_images_into_one_file() {
    let place = place().and("b.png", &noisy(8, 8, 3, 8));
    eddy("denoise a.png b.png -o out.png")
        .within(&place)
        .fails(2)
        .says("cannot go into the one file");
    place.holds_only(&["a.png", "b.png"]);
}

#[test]
fn rejects_replacing_an_input_or_another_result() {
    let place = place();
    place.file("deep/a.png", place.bytes("a.png"));
    let before = place.bytes("a.png");
    eddy("denoise a.png -o a.png").within(&place).fails(2).says("would replace the input");
    eddy("denoise a.png -o .").within(&place).fails(2).says("would replace the input");
    eddy("denoise a.png deep/a.png -o out")
        .within(&place)
        .fails(2)
        .says("would both be written to");
    assert!(place.bytes("a.png") == before);
    place.holds_only(&["a.png", "deep"]);
}

#[test]
fn rejects_a_stream_into_an_image_or_onto_itself() {
    let place = place();
    eddy("denoise a.png a.png -o - -f png").within(&place).fails(2).says("a stream is many frames");
    place.file("in.y4m", "YUV4MPEG2 W1 H1 Cmono\nFRAME\na");
    let mut command = eddy("denoise - -o out.png").within(&place).command();
    let stream = std::fs::File::open(place.path("in.y4m")).unwrap();
    let output = command.stdin(stream).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a stream is many frames"));
    eddy("denoise - -o out.png").within(&place).fails(3).says("standard input: it is empty");
    eddy("denoise in.y4m -o ./in.y4m").within(&place).fails(2).says("would replace the input");
    eddy("denoise . -o ./ -f y4m").within(&place).fails(2);
    place.holds_only(&["a.png", "in.y4m"]);
}

#[test]
fn rejects_a_missing_output_folder() {
    let place = place();
    eddy("denoise a.png -o none/out.png")
        .within(&place)
        .fails(1)
        .says("the folder none does not exist; create it");
    place.holds_only(&["a.png"]);
}

#[test]
fn rejects_replacing_any_file_that_is_read() {
    let place = place()
        .and("k.png", &noisy(5, 5, 3, 8))
        .and("mask.png", &noisy(40, 30, 3, 8))
        .and("in/000001.png", &noisy(40, 30, 3, 8));
    place.file("x.npy", npy([1, 3, 8, 8], &[0.5; 192]));
    place.file("a.y4m", "YUV4MPEG2 W2 H2 F5:1 Ip Cmono\nFRAME\nabcd");
    place.file("v.mkv", "a film");
    place.file("large.png", encoded(&noisy(200, 200, 3, 8), "png"));
    eddy("profile large.png -o p.toml").within(&place).succeeds();
    let all = place.names("");
    let kept = |name: &str| place.bytes(name);
    let before: Vec<_> = all.iter().filter(|name| *name != "in").map(|name| kept(name)).collect();
    for arguments in [
        "inpaint a.png --mask mask.png -o mask.png --steps 1 --samples 1",
        "deblur a.png --kernel k.png -o k.png --steps 1 --samples 1",
        "generate -m prior --from mask.png --strength 0.3 --steps 2 --size 64x64 -o mask.png",
        "generate -m prior --from in/000001.png --seed 1 --steps 2 --size 64x64 -o in/",
        "sample denoise-fast --input x.npy -o x.npy --sampler ddim --steps 2",
        "denoise a.png --noise-profile p.toml -o p.toml -f png",
        "denoise in/000001.png a.png -o in/ --fps 5",
        "profile a.y4m -o a.y4m",
    ] {
        eddy(arguments).within(&place).fails(2).says("would replace the input");
    }
    for (arguments, name) in [
        ("denoise - -o a.png --sigma 5", "a.png"),
        ("upscale - -o a.png -s 2", "a.png"),
        ("denoise - -o a.y4m --sigma 5", "a.y4m"),
        ("denoise - -o a.y4m --sigma 5 --size 2x2 --pixel-format gray", "a.y4m"),
    ] {
        let mut command = eddy(arguments).within(&place).command();
        let run = command.stdin(std::fs::File::open(place.path(name)).unwrap()).output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.code() == Some(2) && said.contains("would replace the input -"),
            "{arguments}: {said}"
        );
    }
    assert!(all.iter().filter(|name| *name != "in").map(|name| kept(name)).eq(before));
    assert_eq!(place.names(""), all);
}

#[test]
fn rejects_output_below_a_file_or_in_a_system_folder() {
    let place = place();
    place.file("file", "in the way");
    eddy("denoise a.png -o file/out.png").within(&place).fails(1).says("file/out.png");
    eddy("denoise a.png -o file/out/").within(&place).fails(1).says("file/out/");
    eddy("denoise a.png -o /proc/out.png").within(&place).fails(1).says("/proc");
    eddy("denoise a.png -o /dev/full -f png")
        .within(&place)
        .fails(1)
        .says("it is a device or a pipe, not a file");
    place.folder("folder.png/x");
    eddy("denoise a.png -o folder.png/x -f png").within(&place).succeeds();
    assert_eq!(place.names("folder.png/x"), ["a.png"]);
    place.holds_only(&["a.png", "file", "folder.png"]);
}

#[test]
fn rejects_formats_without_alpha() {
    let place = Place::with("a.png", &noisy(10, 10, 4, 8));
    eddy("denoise a.png -o out.jpg")
        .within(&place)
        .fails(1)
        .says("out.jpg")
        .says("cannot store the image's transparency");
    place.holds_only(&["a.png"]);
}

#[test]
fn reports_a_full_file_system() {
    let Some(mut command) = unshare("-m") else {
        return skip("a full disk: no file system can be mounted here");
    };
    let place = Place::with("a.png", &noisy(400, 300, 3, 16));
    place.folder("full");
    // Mounted for this process only, so that it disappears with it.
    command.args([
        "sh",
        "-c",
        "mount -t tmpfs -o size=64k none full && \"$@\"; code=$?; ls -A full; exit $code",
        "sh",
    ]);
    command.arg(BINARY);
    let outcome = Eddy::new(command, "denoise a.png -o full/out.png").within(&place).fails(1);
    outcome.says("full/out.png").says("the disk is full; free some space").prints_nothing();
}

#[test]
fn reports_a_read_only_file_system() {
    let Some(mut command) = unshare("-m") else {
        return skip("a read-only disk: none can be mounted here");
    };
    let place = place();
    place.folder("fixed");
    command.args(["sh", "-c", "mount -t tmpfs -o ro none fixed && \"$@\"", "sh"]).arg(BINARY);
    let outcome = Eddy::new(command, "denoise a.png -o fixed/out.png").within(&place).fails(1);
    outcome.says("the folder fixed cannot be written to").prints_nothing();
}

#[test]
fn accepts_a_closed_standard_output() {
    let place = place();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" | true", "sh"]).arg(BINARY);
    Eddy::new(command, "denoise a.png -o out.png --json").within(&place).succeeds().says_nothing();
    assert_eq!(place.image("out.png").width, 40);
}

#[test]
fn reports_a_full_standard_output() {
    let place = place();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$@\" > /dev/full", "sh"]).arg(BINARY);
    Eddy::new(command, "denoise a.png -o out.png --json")
        .within(&place)
        .fails(1)
        .says("cannot write standard output: the disk is full");
}

#[test]
fn rejects_writing_to_a_closed_standard_output() {
    let place = place();
    place.file(
        "a.y4m",
        b"YUV4MPEG2 W16 H16 Cmono\nFRAME\n".iter().copied().chain([0; 256]).collect::<Vec<u8>>(),
    );
    for source in ["a.png", "a.y4m"] {
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\" >&-", "sh"]).arg(BINARY);
        Eddy::new(command, &format!("denoise {source} -o -"))
            .within(&place)
            .fails(1)
            .says("cannot write standard output: it is closed");
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\" > /dev/null", "sh"]).arg(BINARY);
        Eddy::new(command, &format!("denoise {source} -o -")).within(&place).succeeds();
    }
}

#[test]
fn accepts_trailing_data_after_a_qoi_and_rejects_a_truncated_one() {
    let place = place();
    eddy("denoise a.png -o a.qoi").within(&place).succeeds();
    let whole = place.bytes("a.qoi");
    place.file("long.qoi", [whole.as_slice(), b"and more"].concat());
    eddy("denoise long.qoi -o b.png").within(&place).succeeds();
    place.file("cut.qoi", &whole[..whole.len() - 20]);
    eddy("denoise cut.qoi -o c.png").within(&place).fails(3).says("cut off");
}

/// A source may name any existing file.
#[test]
fn rejects_replacing_any_file_that_a_source_could_name() {
    let place = place();
    place.file("v.mkv", "a film");
    place.file("frames/000001.png", "a frame");
    place.file("outer.ffconcat", "ffconcat version 1.0\nfile inner.ffconcat\n");
    place.file("inner.ffconcat", "ffconcat version 1.0\nfile v.mkv # the film\n");
    place.file("odd.ffconcat", b"ffconcat version 1.0\n# \x01\nFILE 'v'.'mkv'\n");
    place.file("master.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nl.m3u8\n");
    place.file("l.mpd", "<?xml version=\"1.0\"?>\n<MPD/>\n");
    place.file("l.sdp", "v=0\nm=video 5004 RTP/AVP 96\n");
    let url = format!("file://{}", place.path("v.mkv").display());
    let part = format!("subfile,,start,0,end,0,,:{url}");
    let all = place.names("");
    for source in [
        "outer.ffconcat",
        "odd.ffconcat",
        "master.m3u8",
        "l.mpd",
        "l.sdp",
        &url,
        &part,
        "CONCAT:file://v.mkv",
    ] {
        for output in ["v.mkv", "frames/ --fps 5", "inner.ffconcat -f y4m"] {
            let run = eddy(&format!("denoise {source} -o {output}")).within(&place).fails(2);
            run.says(source).says("already exists; choose a new name");
        }
        eddy(&format!("profile {source} -o v.mkv")).within(&place).fails(2).says("already exists");
    }
    assert_eq!(place.bytes("v.mkv"), b"a film");
    assert_eq!(place.names(""), all);
    // A new file is not read.
    eddy("denoise outer.ffconcat -o new.mkv").within(&place).fails(3);
    eddy("denoise http://127.0.0.1:9/x -o v.mkv").within(&place).fails(3);
}

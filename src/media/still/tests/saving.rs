use super::super::codec_error::CodecError;
use super::super::save::save;
use super::super::{check, read, write};
use super::{Format, Limits, Options, smooth};
use crate::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn problem<T: std::fmt::Debug>(result: crate::Result<T>) -> String {
    match result {
        Err(error @ Error::Output { .. }) => error.to_string(),
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn writes_and_replaces_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    for width in [5, 9] {
        let image = smooth(width, 4, 3, 8);
        assert_eq!(write(&image, &path, Format::Png, &Options::default()).unwrap(), []);
        assert_eq!(read(&path, &Limits::default()).unwrap(), image);
    }
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn keeps_the_existing_file_on_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let full = |file: &mut io::BufWriter<&mut fs::File>| {
        file.write_all(&[7; 200_000])?;
        Err::<(), _>(CodecError::from(io::Error::from(io::ErrorKind::StorageFull)))
    };
    assert!(problem(save(&path, full)).contains("the disk is full"));
    assert_eq!(names(folder.path()), [""; 0]);
    fs::write(&path, b"before").unwrap();
    problem(save(&path, full));
    let transparent = smooth(4, 4, 4, 8);
    assert!(problem(check(&transparent, &path, Format::Jpeg)).contains("transparency"));
    assert!(
        problem(write(&transparent, &path, Format::Jpeg, &Options::default()))
            .contains("transparency")
    );
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(names(folder.path()), ["a.png"]);
}

#[test]
fn rejects_invalid_places() {
    let folder = tempfile::tempdir().unwrap();
    let image = smooth(4, 4, 1, 8);
    let try_at = |path: &Path| problem(write(&image, path, Format::Png, &Options::default()));
    assert!(try_at(&folder.path().join("none/a.png")).contains("does not exist; create it first"));
    assert!(try_at(folder.path()).contains("it is a folder"));
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(try_at(&folder.path().join("file/a.png")).contains("cannot write"));
}

#[cfg(unix)]
mod unix {
    use super::{Format, Options, fs, names, problem, smooth, write};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    #[test]
    fn sets_ordinary_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let (ordinary, path) = (folder.path().join("ordinary"), folder.path().join("a.bmp"));
        fs::write(&ordinary, b"").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        write(&smooth(4, 4, 1, 8), &path, Format::Bmp, &Options::default()).unwrap();
        assert_eq!(mode(&path), mode(&ordinary));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&smooth(4, 4, 1, 8), &path, Format::Bmp, &Options::default()).unwrap();
        assert_eq!(mode(&path), 0o640);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let refused = problem(write(&smooth(4, 4, 1, 8), &path, Format::Bmp, &Options::default()));
        assert!(refused.contains("write-protected"));
    }

    #[test]
    fn follows_links_and_keeps_devices() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("real")).unwrap();
        let (real, link) = (folder.path().join("real/a.png"), folder.path().join("link.png"));
        fs::write(&real, b"before").unwrap();
        symlink(&real, &link).unwrap();
        write(&smooth(4, 4, 1, 8), &link, Format::Png, &Options::default()).unwrap();
        assert!(link.is_symlink());
        assert!(fs::read(&real).unwrap().starts_with(b"\x89PNG"));
        assert_eq!(names(folder.path()), ["link.png", "real"]);
        let device = Path::new("/dev/null");
        assert!(
            problem(write(&smooth(4, 4, 1, 8), device, Format::Png, &Options::default()))
                .contains("device")
        );
    }
}

//! Tensors as `.npy` files, for `eddy sample` and recorded inputs and outputs.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use ndarray::{Array, Dimension};
use ndarray_npy::npy::header::Header;
use ndarray_npy::{ReadNpyError, ReadNpyExt, WriteNpyExt};

use crate::error::{Error, Result};
use crate::media;
use crate::media::still::{check_place, save};

/// Reads an array of float32 or float64 with the dimensions of `D`. It must not be empty, and all
/// values must be finite.
///
/// # Errors
/// [`Error::Input`] when the file is missing, truncated, not `.npy`, of another type or number of
/// dimensions, empty, or has values that are not finite in f32.
pub fn read<D: Dimension>(path: &Path) -> Result<Array<f32, D>> {
    let file = media::open(path)?;
    let array: Array<f32, D> = decode(BufReader::new(file))
        .map_err(|cause| Error::input_from(path, expected::<D>(), cause))?;
    if array.is_empty() {
        let problem = format!(
            "its shape is {:?}, which holds no values; expected every axis to be 1 or more",
            array.shape()
        );
        return Err(Error::input(path, problem));
    }
    match array.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(array),
        count => {
            let problem = format!(
                "{count} of its {} values are not finite in float32; expected numbers",
                array.len()
            );
            Err(Error::input(path, problem))
        }
    }
}

/// Like [`read`], from any seekable reader.
pub(crate) fn decode<D: Dimension>(
    mut reader: impl Read + Seek,
) -> Result<Array<f32, D>, ReadNpyError> {
    refuse_more_than_there_is(&mut reader)?;
    let array = match Array::<f32, D>::read_npy(&mut reader) {
        Err(ReadNpyError::WrongDescriptor(_)) => {
            reader.rewind()?;
            Array::<f64, D>::read_npy(&mut reader)?.mapv(|value| value as f32)
        }
        other => other?,
    };
    Ok(if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() })
}

/// Rejects a file whose header claims more than the file can hold, before memory is allocated, or
/// is of another form than those of numbers. Other defects are left to the parser.
fn refuse_more_than_there_is(reader: &mut (impl Read + Seek)) -> std::io::Result<()> {
    /// Headers are shorter than this, and of fewer parts. The parser takes memory by the length
    /// that a file claims, and stack by the depth of its brackets.
    const MAX_HEADER: usize = 1 << 16;
    const MAX_BRACKETS: usize = 100;
    let length = reader.seek(SeekFrom::End(0))?;
    reader.rewind()?;
    let mut head = Vec::new();
    reader.by_ref().take(MAX_HEADER as u64).read_to_end(&mut head)?;
    reader.rewind()?;
    let refused = |problem: String| Err(std::io::Error::new(ErrorKind::InvalidData, problem));
    // After the magic string and the version.
    let (start, claimed) = match head.get(6..).unwrap_or_default() {
        [1, _, a, b, ..] => (10, u16::from_le_bytes([*a, *b]).into()),
        [_, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize),
        _ => return Ok(()),
    };
    let header = head.get(start..).and_then(|rest| rest.get(..claimed));
    let Some(header) = header else {
        return refused(format!("its header claims {claimed} bytes, and the file has {length}"));
    };
    if header.iter().filter(|byte| b"([{".contains(byte)).count() > MAX_BRACKETS {
        return refused("its header is not that of an array of numbers".to_owned());
    }
    let Ok(header) = Header::from_reader(&mut head.as_slice()) else { return Ok(()) };
    let values =
        header.shape.iter().fold(1, |product: u64, side| product.saturating_mul(*side as u64));
    // The bytes of an element stand at the end of its type, such as `<f4`.
    let element = header.type_descriptor.as_string().and_then(|text| text.get(2..)?.parse().ok());
    if values.saturating_mul(element.unwrap_or(1).max(1)) > length {
        return refused(format!(
            "its header claims a shape of {:?}, and the file has {length} bytes in all",
            header.shape
        ));
    }
    Ok(())
}

/// The expected kind of file, for messages.
pub(crate) fn expected<D: Dimension>() -> String {
    let axes = D::NDIM.map_or("any number of".to_owned(), |count| count.to_string());
    format!("expected a .npy file of float32 or float64 with {axes} axes")
}

/// Checks that [`write()`] can create the file, so that an error appears before hours of work.
///
/// # Errors
/// [`Error::Output`] when it cannot.
pub fn check(path: &Path) -> Result<()> {
    check_place(path)
}

/// Writes an array as float32. The file appears complete or not at all.
///
/// # Errors
/// [`Error::Output`] when it cannot be written; nothing is left behind.
pub fn write<D: Dimension>(array: &Array<f32, D>, path: &Path) -> Result<()> {
    save(path, |file| Ok(array.write_npy(file).map_err(std::io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::{read, write};
    use ndarray::{Array, Array4, Ix4, Ix5};
    use ndarray_npy::WriteNpyExt;

    #[test]
    fn reads_what_it_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let array = Array::from_shape_fn((2, 3, 4, 5), |(b, c, y, x)| {
            (b * 1000 + c * 100 + y * 10 + x) as f32
        });
        write(&array, &path).unwrap();
        assert_eq!(read::<Ix4>(&path).unwrap(), array);
        assert!(read::<Ix5>(&path).unwrap_err().to_string().contains("5 axes"));
    }

    #[test]
    fn reads_f64_and_column_major_arrays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let array =
            Array4::from_shape_fn((1, 2, 3, 4), |(_, c, y, x)| (c * 100 + y * 10 + x) as f64);
        array.t().write_npy(std::fs::File::create(&path).unwrap()).unwrap();
        let expected = array.t().mapv(|value| value as f32);
        let found = read::<Ix4>(&path).unwrap();
        assert!(found.is_standard_layout());
        assert_eq!(found, expected);
    }

    #[test]
    fn rejects_empty_and_non_finite_arrays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let problem = || read::<Ix4>(&path).unwrap_err().to_string();
        write(&Array4::<f32>::zeros((1, 2, 0, 4)), &path).unwrap();
        assert!(problem().contains("[1, 2, 0, 4]"));
        let mut array = Array4::<f64>::zeros((1, 2, 3, 4));
        array[[0, 1, 2, 3]] = 1e300;
        array[[0, 1, 0, 0]] = f64::NAN;
        array.write_npy(std::fs::File::create(&path).unwrap()).unwrap();
        assert!(problem().contains("2 of its 24 values are not finite"));
    }

    #[test]
    fn rejects_a_truncated_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write(&Array4::<f32>::zeros((1, 2, 3, 4)), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 5, 60, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert_eq!(read::<Ix4>(&path).unwrap_err().exit_code(), 3, "{length}");
        }
    }

    /// A file with a header of version 1 or 2, which claims to have `claimed` bytes.
    fn with_header(version: u8, claimed: u32, header: &str) -> Vec<u8> {
        let length = if version == 1 { 2 } else { 4 };
        let length = &claimed.to_le_bytes()[..length];
        [b"\x93NUMPY", &[version, 0][..], length, header.as_bytes(), &[0; 100]].concat()
    }

    #[test]
    fn rejects_an_oversized_header_without_allocating() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let refused = |bytes: Vec<u8>| {
            std::fs::write(&path, bytes).unwrap();
            let error = read::<Ix4>(&path).unwrap_err();
            assert!(matches!(error, crate::Error::Input { .. }), "{error}");
            crate::error::with_causes(&error)
        };
        let shapes = [
            "1, 3, 1000000, 1000000",
            "99999999999999999999, 1, 1, 1",
            "1, 3, 60, 60",
            "1, 1, 1, 99",
        ];
        for shape in shapes {
            for quote in ["'", "\""] {
                let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (SHAPE), }\n";
                let header = header.replace('\'', quote).replace("SHAPE", shape);
                refused(with_header(1, header.len() as u32, &header));
            }
        }
        assert!(refused(with_header(2, u32::MAX, "{")).contains("claims 4294967295 bytes"));
        let deep = "[".repeat(60_000);
        assert!(refused(with_header(1, 60_000, &deep)).contains("array of numbers"));
    }
}

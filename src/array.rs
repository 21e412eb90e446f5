//! Tensors as `.npy` files, for `eddy sample` and recorded inputs and outputs.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ndarray::{Array, Dimension};
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

/// Rejects a file whose header claims more values than the file can hold, before memory is
/// allocated. Other defects of the header are left to the parser.
fn refuse_more_than_there_is(reader: &mut (impl Read + Seek)) -> std::io::Result<()> {
    /// Headers are shorter than this.
    const HEAD: u64 = 1 << 16;
    let length = reader.seek(SeekFrom::End(0))?;
    reader.rewind()?;
    let mut head = Vec::new();
    reader.by_ref().take(HEAD).read_to_end(&mut head)?;
    reader.rewind()?;
    let text = String::from_utf8_lossy(&head);
    let shape = text
        .split_once("'shape'")
        .and_then(|(_, rest)| rest.split_once('('))
        .and_then(|(_, rest)| rest.split_once(')'));
    let Some((shape, _)) = shape else { return Ok(()) };
    let sides = shape
        .split(',')
        .map(str::trim)
        .filter(|side| !side.is_empty())
        .map(|side| side.parse::<u64>().unwrap_or(u64::MAX));
    let values = sides.fold(1, u64::saturating_mul);
    // The smallest element takes one byte.
    if values > length {
        let problem = format!(
            "its header claims a shape of ({shape}), and the file has {length} bytes in all"
        );
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, problem));
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

    #[test]
    fn rejects_an_oversized_header_without_allocating() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        for shape in ["1, 3, 1000000, 1000000", "99999999999999999999, 1, 1, 1", "1, 3, 60, 60"] {
            let mut header =
                format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
            header += &" ".repeat(117 - header.len());
            let mut bytes = b"\x93NUMPY\x01\0v\0".to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(b"\n");
            bytes.extend([0; 100]);
            std::fs::write(&path, bytes).unwrap();
            let error = read::<Ix4>(&path).unwrap_err();
            assert!(matches!(error, crate::Error::Input { .. }), "{shape}: {error}");
        }
    }
}

//! Images as numpy arrays: `[H, W]` or `[H, W, C]` with 1 to 4 channels; uint8, uint16, or floating
//! point from 0 to 1.

use eddy::media::still::{Format, Options, encode_bytes};
use eddy::media::{Image, Samples};
use numpy::{
    IntoPyArray, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{check_memory, exception, usage};

/// How the values of an array, or of a result, are represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    U8,
    U16,
    F32,
    F64,
}

/// The form of an array, which a result has as well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) dtype: Dtype,
    /// Whether it has an axis of channels.
    has_channels: bool,
}

const EXPECTED: &str = "expected [height, width] or [height, width, channels] with 1 to 4 channels, \
                        uint8, uint16, or float32 from 0 to 1";

/// The image in an array. Values of floating point are rounded to 16 bits.
pub(crate) fn read(array: &Bound<'_, PyAny>) -> PyResult<(Image, Form)> {
    let py = array.py();
    let untyped = array.cast::<PyUntypedArray>()?;
    let shape = untyped.shape().to_vec();
    let ([height, width, channels], has_channels) = match *shape {
        [height, width] => ([height, width, 1], false),
        [height, width, channels] => ([height, width, channels], true),
        _ => return Err(usage(py, format!("an array of shape {shape:?}; {EXPECTED}"))),
    };
    if height == 0 || width == 0 || !(1..=4).contains(&channels) {
        return Err(usage(py, format!("an array of shape {shape:?}; {EXPECTED}")));
    }
    // The copy, its rounded values, and the result. An array may claim elements that have no memory.
    let bytes = shape.iter().try_fold(4 * untyped.dtype().itemsize(), |all, n| all.checked_mul(*n));
    check_memory(py, &format!("an image of shape {shape:?}"), bytes)?;
    let (samples, dtype) = if let Ok(values) = array.cast::<PyArrayDyn<u8>>() {
        (Samples::U8(elements(values)?), Dtype::U8)
    } else if let Ok(values) = array.cast::<PyArrayDyn<u16>>() {
        (Samples::U16(elements(values)?), Dtype::U16)
    } else if let Ok(values) = array.cast::<PyArrayDyn<f32>>() {
        (rounded(py, &elements(values)?)?, Dtype::F32)
    } else if let Ok(values) = array.cast::<PyArrayDyn<f64>>() {
        let values: Vec<f32> = elements(values)?.into_iter().map(|value| value as f32).collect();
        (rounded(py, &values)?, Dtype::F64)
    } else {
        return Err(usage(py, format!("an array of {}; {EXPECTED}", untyped.dtype())));
    };
    let image = Image::new(width, height, channels, samples)
        .map_err(|_| usage(py, format!("an array of shape {shape:?}; {EXPECTED}")))?;
    Ok((image, Form { dtype, has_channels }))
}

/// A copy of the elements, row by row whatever their order in memory.
pub(crate) fn elements<T: numpy::Element + Copy>(
    array: &Bound<'_, PyArrayDyn<T>>,
) -> PyResult<Vec<T>> {
    let view = array.try_readonly()?;
    let array = view.as_array();
    Ok(match array.as_slice() {
        Some(values) => values.to_vec(),
        None => array.iter().copied().collect(),
    })
}

fn rounded(py: Python<'_>, values: &[f32]) -> PyResult<Samples> {
    const LARGEST: f32 = u16::MAX as f32;
    // A slight overshoot is clipped; 0 to 255 is a mistake.
    if let Some(value) = values.iter().find(|value| !(-0.5..=1.5).contains(*value)) {
        let problem = format!(
            "a value of {value}; floating point is from 0 to 1: divide by 255, or use uint8"
        );
        return Err(usage(py, problem));
    }
    let round = |value: &f32| (LARGEST * value.clamp(0.0, 1.0)).round() as u16;
    Ok(Samples::U16(values.iter().map(round).collect()))
}

/// An image as an array of a form.
pub(crate) fn write(py: Python<'_>, image: Image, form: Form) -> PyResult<Bound<'_, PyAny>> {
    let Image { width, height, channels, samples, .. } = image;
    let parts = |divisor: f64| -> Vec<f64> {
        match &samples {
            Samples::U8(values) => values.iter().map(|value| f64::from(*value) / 255.0).collect(),
            Samples::U16(values) => {
                values.iter().map(|value| f64::from(*value) / divisor).collect()
            }
        }
    };
    let flat = match (form.dtype, &samples) {
        (Dtype::F32, _) => {
            let values = parts(65_535.0).into_iter().map(|value| value as f32).collect::<Vec<_>>();
            values.into_pyarray(py).into_any()
        }
        (Dtype::F64, _) => parts(65_535.0).into_pyarray(py).into_any(),
        _ => match samples {
            Samples::U8(values) => values.into_pyarray(py).into_any(),
            Samples::U16(values) => values.into_pyarray(py).into_any(),
        },
    };
    if form.has_channels {
        flat.call_method1("reshape", (height, width, channels))
    } else {
        flat.call_method1("reshape", (height, width))
    }
}

/// Images of 8 bits as one array, `[images, H, W, C]`.
pub(crate) fn stack(py: Python<'_>, images: Vec<Image>) -> PyResult<Bound<'_, PyAny>> {
    let count = images.len();
    let sides = images.first().map_or([0; 3], |it| [it.height, it.width, it.channels]);
    let mut values: Vec<u8> = Vec::with_capacity(count * sides.iter().product::<usize>());
    for image in images {
        match image.samples {
            Samples::U8(samples) => values.extend(samples),
            Samples::U16(samples) => values.extend(samples.iter().map(|value| (value >> 8) as u8)),
        }
    }
    let flat = values.into_pyarray(py).into_any();
    flat.call_method1("reshape", (count, sides[0], sides[1], sides[2]))
}

/// The bytes of a PNG of an image.
#[pyfunction]
pub(crate) fn encode_png<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = array.py();
    let (image, _) = read(array)?;
    let encoded = py.detach(|| encode_bytes(&image, Format::Png, &Options::default()));
    let (bytes, _) = encoded.map_err(|error| exception(py, &error))?;
    Ok(PyBytes::new(py, &bytes))
}

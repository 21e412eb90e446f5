//! Tensors of the Open Inference Protocol as images, and images as tensors.

use std::fmt;

use super::bounded::Text;
use super::problem::Problem;
use super::tensors::{Sink, Tensor};
use super::work::Outcome;
use crate::media::still::Limits;
use crate::media::{Image, Samples};

/// The element type of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    U8,
    U16,
    F32,
}

impl Element {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::U8 => "UINT8",
            Self::U16 => "UINT16",
            Self::F32 => "FP32",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::F32 => 4,
        }
    }

    /// The most characters that an element takes in JSON with its comma.
    pub(super) fn longest_text(self) -> u64 {
        match self {
            Self::U8 => 4,
            Self::U16 => 6,
            // The least is 0.000015259022.
            Self::F32 => 15,
        }
    }

    /// The value, if it is a whole number from 0 to `most`.
    fn whole(self, value: f64, most: f64) -> Result<f64, String> {
        if value.fract() == 0.0 && (0.0..=most).contains(&value) {
            return Ok(value);
        }
        Err(format!("{value} is no {}; expected whole numbers from 0 to {most}", self.name()))
    }
}

/// The most images in a tensor. Each takes some memory beside its samples.
const MAX_IMAGES: u64 = 256;

/// The size of images in a tensor.
#[derive(Clone, Copy, Debug)]
struct Shape {
    images: usize,
    /// Height, width, channels.
    sides: [usize; 3],
}

/// The images of a tensor of `[height, width, channels]`, or `[images, height, width, channels]`.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) images: Vec<Image>,
    pub(super) has_batch: bool,
    pub(super) element: Element,
}

impl Images {
    pub(super) fn of(tensor: &Tensor<'_>, binary: Option<&[u8]>, limits: &Limits) -> Outcome<Self> {
        let name = &tensor.name.0;
        let element = match tensor.datatype.0.as_str() {
            "UINT8" => Element::U8,
            "UINT16" => Element::U16,
            "FP32" => Element::F32,
            other => {
                let text =
                    format!("{name} has the datatype {other}; expected UINT8, UINT16 or FP32");
                return Err(Problem::invalid(text));
            }
        };
        let shape = shape(tensor, limits)?;
        let each: usize = shape.sides.iter().product();
        let count = shape.images * each;
        let wrong = |found: usize, what: &str, expected: usize| {
            let text = format!(
                "{name} of shape {:?} and datatype {} has {found} {what}; expected {expected}",
                tensor.shape,
                element.name()
            );
            Err(Problem::invalid(text))
        };
        let samples: Vec<Samples> = match (binary, tensor.data) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid(format!("{name} has both data and binary data")));
            }
            (None, None) => return Err(Problem::invalid(format!("{name} has no data"))),
            (Some(bytes), None) if bytes.len() != count * element.bytes() => {
                return wrong(bytes.len(), "bytes", count * element.bytes());
            }
            (Some(bytes), None) => bytes
                .chunks_exact(each * element.bytes())
                .map(|bytes| from_bytes(bytes, element))
                .collect::<Outcome<_>>()?,
            (None, Some(data)) => {
                // Each number has a character, and another one follows it.
                let most = data.get().len() / 2 + 1;
                let mut numbers = Numbers { element, each, most, count, found: 0, all: Vec::new() };
                tensor.elements(data, &mut numbers)?;
                if numbers.found != count {
                    return wrong(numbers.found, "numbers", count);
                }
                numbers.all
            }
        };
        let [height, width, channels] = shape.sides;
        let image = |samples| {
            Image::new(width, height, channels, samples)
                .map_err(|error| Problem::invalid(error.to_string()))
        };
        let images = samples.into_iter().map(image).collect::<Outcome<_>>()?;
        Ok(Self { images, has_batch: tensor.shape.len() == 4, element })
    }
}

fn shape(tensor: &Tensor<'_>, limits: &Limits) -> Outcome<Shape> {
    let Tensor { name: Text(name), shape, .. } = tensor;
    let (images, sides) = match *shape.as_slice() {
        [height, width, channels] => (1, [height, width, channels]),
        [images, height, width, channels] => (images, [height, width, channels]),
        _ => (0, [0; 3]),
    };
    let [height, width, channels] = sides;
    if images == 0 || height == 0 || width == 0 || !(1..=4).contains(&channels) {
        let text = format!(
            "{name} has the shape {shape:?}; expected [height, width, channels] or [images, \
             height, width, channels], with 1 channel (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA)"
        );
        return Err(Problem::invalid(text));
    }
    if images > MAX_IMAGES {
        let text = format!("{name} has {images} images; send at most {MAX_IMAGES} at once");
        return Err(Problem::new(hyper::StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let bytes = sides.iter().try_fold(images, |product, side| product.checked_mul(*side));
    // Elements of FP32 are the largest.
    let is_small = bytes.is_some_and(|bytes| bytes <= limits.max_bytes / 4);
    if !is_small || height.max(width) > limits.max_side as u64 {
        let text = format!(
            "{name} has the shape {shape:?}; at most {} pixels a side and {} Mi elements are taken",
            limits.max_side,
            limits.max_bytes >> 22
        );
        return Err(Problem::new(hyper::StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(Shape { images: images as usize, sides: sides.map(|side| side as usize) })
}

/// The largest value of 16 bits.
const MOST: f32 = u16::MAX as f32;

/// A value from 0 to 1, in 16 bits. A slight overshoot is clipped; 0 to 255 is a mistake.
fn quantized(value: f32) -> Outcome<u16> {
    if !value.is_finite() {
        return Err(Problem::invalid(NOT_FINITE));
    }
    if !(-0.5..=1.5).contains(&value) {
        let text = format!(
            "a value of the image is {value}; FP32 is from 0 to 1: divide by 255, or send UINT8"
        );
        return Err(Problem::invalid(text));
    }
    Ok((value * MOST).round() as u16)
}

const NOT_FINITE: &str = "a value of the image is NaN or infinite; expected numbers from 0 to 1";

fn from_bytes(bytes: &[u8], element: Element) -> Outcome<Samples> {
    Ok(match element {
        Element::U8 => Samples::U8(bytes.to_vec()),
        Element::U16 => {
            let value = |pair: &[u8]| pair.try_into().map_or(0, u16::from_le_bytes);
            Samples::U16(bytes.chunks_exact(2).map(value).collect())
        }
        Element::F32 => {
            let value =
                |four: &[u8]| quantized(four.try_into().map_or(f32::NAN, f32::from_le_bytes));
            Samples::U16(bytes.chunks_exact(4).map(value).collect::<Outcome<_>>()?)
        }
    })
}

/// Numbers that become the samples of images at once: as they come, they would take more memory.
struct Numbers {
    element: Element,
    /// Numbers of an image; the most that there may be; those that are expected, and found.
    each: usize,
    most: usize,
    count: usize,
    found: usize,
    all: Vec<Samples>,
}

impl Sink for Numbers {
    fn number(&mut self, value: f64) -> Result<(), String> {
        if self.found < self.count {
            if self.found.is_multiple_of(self.each) {
                let capacity = self.each.min(self.most);
                self.all.push(match self.element {
                    Element::U8 => Samples::U8(Vec::with_capacity(capacity)),
                    _ => Samples::U16(Vec::with_capacity(capacity)),
                });
            }
            match (self.all.last_mut(), self.element) {
                (Some(Samples::U8(samples)), _) => {
                    samples.push(self.element.whole(value, u8::MAX.into())? as u8);
                }
                (Some(Samples::U16(samples)), Element::F32) => {
                    samples.push(quantized(value as f32).map_err(|problem| problem.text)?);
                }
                (Some(Samples::U16(samples)), _) => {
                    samples.push(self.element.whole(value, u16::MAX.into())? as u16);
                }
                (None, _) => {}
            }
        }
        self.found += 1;
        Ok(())
    }

    fn text(&mut self, _: &str) -> Result<(), String> {
        Err("it has a text; expected numbers".to_owned())
    }
}

/// The elements of images as bytes, little-endian.
pub(super) fn to_bytes(images: &[Image], element: Element) -> Vec<u8> {
    let mut bytes = Vec::new();
    for image in images {
        match (&image.samples, element) {
            (Samples::U8(samples), _) => bytes.extend_from_slice(samples),
            (Samples::U16(samples), Element::F32) => {
                let value = |value: &u16| (f32::from(*value) / MOST).to_le_bytes();
                bytes.extend(samples.iter().flat_map(value));
            }
            (Samples::U16(samples), _) => {
                bytes.extend(samples.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
    bytes
}

/// Appends the elements of images as JSON numbers with commas between them.
pub(super) fn put_text(text: &mut String, images: &[Image], element: Element) {
    use std::fmt::Write;
    let mut comma = "";
    let mut put = |value: &dyn fmt::Display| {
        let _ = write!(text, "{comma}{value}");
        comma = ",";
    };
    for image in images {
        match (&image.samples, element) {
            (Samples::U8(samples), _) => samples.iter().for_each(|value| put(value)),
            (Samples::U16(samples), Element::F32) => {
                samples.iter().for_each(|value| put(&(f32::from(*value) / MOST)));
            }
            (Samples::U16(samples), _) => samples.iter().for_each(|value| put(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Element, Images, Numbers, put_text, to_bytes};
    use crate::media::Samples;
    use crate::media::still::Limits;
    use crate::serve::tensors::Tensor;

    fn parse(text: &str) -> Result<Images, String> {
        let tensor: Tensor<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Images::of(&tensor, None, &Limits::default()).map_err(|problem| problem.text)
    }

    #[test]
    fn reads_flat_and_nested_numbers() {
        for data in ["[1,2,3,4,5,6]", "[[[1],[2],[3]],[[4],[5],[6]]]"] {
            let text =
                format!(r#"{{"name":"image","shape":[2,3,1],"datatype":"UINT8","data":{data}}}"#);
            let images = parse(&text).unwrap();
            assert_eq!(images.images[0].samples, Samples::U8(vec![1, 2, 3, 4, 5, 6]));
            let mut text = "[".to_owned();
            put_text(&mut text, &images.images, Element::U8);
            assert_eq!(text, "[1,2,3,4,5,6");
        }
        let floats = r#"{"name":"image","shape":[1,1,2,1],"datatype":"FP32","data":[-0.25,0.5]}"#;
        let images = parse(floats).unwrap();
        assert_eq!(
            (images.has_batch, &images.images[0].samples),
            (true, &Samples::U16(vec![0, 32768]))
        );
        assert_eq!(to_bytes(&images.images, Element::F32).len(), 8);
    }

    #[test]
    fn refuses_what_is_no_image() {
        let tensor = |shape: &str, datatype: &str, data: &str| {
            format!(r#"{{"name":"image","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
        };
        for (text, message) in [
            (tensor("[1,1,1]", "UINT8", "[256]"), "from 0 to 255"),
            (tensor("[1,1,1]", "UINT8", "[1.5]"), "whole numbers"),
            (tensor("[1,1,1]", "UINT8", "[1,2]"), "has 2 numbers; expected 1"),
            (tensor("[1,1,1]", "INT8", "[1]"), "expected UINT8, UINT16 or FP32"),
            (tensor("[1,1,5]", "UINT8", "[1]"), "has the shape"),
            (tensor("[1,1]", "UINT8", "[1]"), "has the shape"),
            (tensor("[0,1,1]", "UINT8", "[]"), "has the shape"),
            (tensor("[-1,1,1]", "UINT8", "[1]"), "invalid value"),
            (tensor("[99999,99999,3]", "UINT8", "[1]"), "pixels a side"),
            (tensor("[18446744073709551615,2,1]", "UINT8", "[1]"), "pixels a side"),
            (tensor("[257,1,1,1]", "UINT8", "[1]"), "at most 256 at once"),
            (tensor("[1,1,1,1,1,1,1,1,1]", "UINT8", "[1]"), "at most 8 elements"),
            (tensor("[1,1,1]", "UINT8", r#"["a"]"#), "expected numbers"),
            (tensor("[1,1,1]", "UINT8", r#"[1,"a"]"#), "expected numbers"),
            (tensor("[1,1,1]", "UINT8", "[{}]"), "numbers or texts"),
            (tensor("[1,1,1]", "FP32", "[1e300]"), "NaN or infinite"),
            (tensor("[1,1,1]", "FP32", "[255]"), "divide by 255"),
            (tensor("[1,1,1]", "FP32", "[-1]"), "FP32 is from 0 to 1"),
            (
                tensor("[1,1,1]", "UINT8", &["[".repeat(1000), "]".repeat(1000)].concat()),
                "recursion",
            ),
        ] {
            let problem = parse(&text).unwrap_err();
            assert!(problem.contains(message), "{text}: {problem}");
        }
    }

    #[test]
    fn numbers_take_no_more_memory_than_their_text() {
        // A claim of many, and few that are there.
        let text = r#"{"name":"image","shape":[256,1000,1000,1],"datatype":"UINT8","data":[1,2]}"#;
        let tensor: Tensor<'_> = serde_json::from_str(text).unwrap();
        let mut numbers = Numbers {
            element: Element::U8,
            each: 1_000_000,
            most: 3,
            count: 256_000_000,
            found: 0,
            all: Vec::new(),
        };
        tensor.elements(tensor.data.unwrap(), &mut numbers).unwrap();
        let [Samples::U8(samples)] = numbers.all.as_slice() else { panic!("of one image") };
        assert_eq!((samples.as_slice(), numbers.found), (&[1, 2][..], 2));
        assert!(samples.capacity() < 100, "{}", samples.capacity());
    }
}

//! Evaluations of a network whose properties are being detected.

use super::{Normalization, Probe};
use crate::error::Result;
use crate::model::bare::roles::channels_of;
use crate::model::bare::test_image::TestImage;
use crate::network::{Axes, Element, Feed, Port};
use crate::tensor::mirror;

impl Probe<'_> {
    /// Evaluates the network on an image and returns the shape and values of its output. `level` is
    /// the encoded noise level.
    pub(super) fn run(
        &mut self,
        test_image: &TestImage,
        normalization: &Normalization,
        level: f64,
    ) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let own = [test_image.width, test_image.height];
        let mask = extended(&self.mask(own[0], own[1]), own, self.border);
        let padded = TestImage {
            width: own[0] + 2 * self.border,
            height: own[1] + 2 * self.border,
            planes: extended(&test_image.planes, own, self.border),
        };
        let TestImage { width, height, .. } = &padded;
        let (area, scaling) = (width * height, normalization.scaling());
        let channels = self.channels;
        let mut values = self.to_channels(&padded);
        for (plane, [factor, offset]) in values.chunks_exact_mut(area).zip(scaling) {
            plane.iter_mut().for_each(|value| *value = factor * *value + offset);
        }
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| mask[i % area] == 1.0) {
            // Masked pixels are black.
            *value = scaling[(i / area) % 3][1];
        }
        if self.is_concatenated {
            values.extend_from_within(..);
        }
        if self.has_sigma_channel {
            let channels = channels_of(&self.image, Some(self.axes)).1;
            let copies = channels.map_or(1, |whole| whole - self.channels);
            values.extend(std::iter::repeat_n(level as f32, copies * area));
        }
        if self.has_mask_channel {
            let is_known = self.roles.mask.is_none();
            values
                .extend(mask.iter().map(|missing| if is_known { 1.0 - missing } else { *missing }));
        }
        // The frames of a window are equal.
        let stacked = if self.roles.neighbors.is_empty() { self.frames } else { 1 };
        let mut values = values.repeat(stacked);
        let whole = values.len() / area;
        let shape = |channels: usize, width: usize, height: usize, axes| match axes {
            Axes::Nchw => vec![1, channels, height, width],
            Axes::Nhwc => vec![1, height, width, channels],
        };
        if self.axes == Axes::Nhwc {
            let planar = values.clone();
            for (i, value) in values.iter_mut().enumerate() {
                *value = planar[(i % whole) * area + i / whole];
            }
        }
        let levels = [level as f32];
        let constants: Vec<Vec<f32>> = (self.roles.constants.iter())
            .map(|port| {
                let constant = self.description.constants.get(&port.name);
                let values = constant.map_or(&[0.0][..], |constant| constant.values());
                values.iter().map(|value| *value as f32).collect()
            })
            .collect();
        let number = |port: &Port| -> Vec<usize> {
            port.shape.iter().map(|length| usize::try_from(*length).unwrap_or(1).max(1)).collect()
        };
        let image = match self.image.shape.len() {
            5 => vec![1, stacked, channels, *height, *width],
            _ => shape(whole, *width, *height, self.axes),
        };
        let mut feeds = vec![Feed { port: &self.image, shape: image.clone(), values: &values }];
        for port in [&self.roles.sigma, &self.roles.timestep].into_iter().flatten() {
            if port.name == self.image.name {
                continue;
            }
            let planes = channels_of(port, Some(self.axes)).1.unwrap_or(1);
            let shape = if port.is_number() {
                number(port)
            } else {
                shape(planes, *width, *height, self.axes)
            };
            feeds.push(Feed { port, shape, values: &levels });
        }
        let known: Vec<f32> = mask.iter().map(|missing| 1.0 - missing).collect();
        let [mask, known] =
            [(&self.roles.mask, mask), (&self.roles.known, known)].map(|(port, mut values)| {
                let one = port.as_ref().map_or(1.0, mask_value);
                values.iter_mut().for_each(|value| *value *= one);
                values
            });
        for (port, values) in [(&self.roles.mask, &mask), (&self.roles.known, &known)] {
            if let Some(port) = port.as_ref().filter(|port| port.name != self.image.name) {
                let shape = shape(1, *width, *height, self.axes);
                feeds.push(Feed { port, shape, values });
            }
        }
        feeds.extend(self.roles.neighbors.iter().map(|port| Feed {
            port,
            shape: image.clone(),
            values: &values,
        }));
        for ([port, _], divisor) in self.roles.states.iter().zip(&self.divisors) {
            let mut shape = number(port);
            if let ([_, _, rows, columns], [_, _, -1, -1]) =
                (shape.as_mut_slice(), port.shape.as_slice())
            {
                (*rows, *columns) = (height.div_ceil(*divisor), width.div_ceil(*divisor));
            }
            feeds.push(Feed { port, shape, values: &[0.0] });
        }
        if let Some(port) = &self.roles.class {
            feeds.push(Feed { port, shape: number(port), values: &[0.0] });
        }
        let small;
        if let (Some(port), Some(_)) = (&self.roles.condition, &self.roles.sample)
            && port.name != self.image.name
        {
            let scale = self.description.scale.unwrap_or(1);
            small = test_image.downsampled(scale);
            let shape = shape(channels, small.width, small.height, self.axes);
            feeds.push(Feed { port, shape, values: &small.planes });
        }
        for (port, values) in self.roles.constants.iter().zip(&constants) {
            let mut shape = number(port);
            // A vector of dynamic length is as long as its values.
            if let ([length], [-1]) = (shape.as_mut_slice(), port.shape.as_slice()) {
                *length = values.len();
            }
            feeds.push(Feed { port, shape, values });
        }
        let found = self.session.run(&feeds, &self.output.name)?;
        // An image may lack the axes of batch and channels.
        Ok(found.map(|(mut shape, values)| {
            while matches!(shape.len(), 2 | 3) {
                shape.insert(0, 1);
            }
            (shape, values)
        }))
    }

    /// The mask of an inpainting network, 1 where pixels are missing: a checkerboard whose middle
    /// square is known. Zeros for other networks.
    pub(super) fn mask(&self, width: usize, height: usize) -> Vec<f32> {
        const SQUARE: usize = 4;
        let has_mask = self.roles.mask.is_some() || self.roles.known.is_some();
        let square = |x: usize, y: usize| x / SQUARE + y / SQUARE;
        let middle = square(width / 2, height / 2);
        let is_missing =
            |i: usize| has_mask && !(square(i % width, i / width) + middle).is_multiple_of(2);
        (0..width * height).map(|i| f32::from(u8::from(is_missing(i)))).collect()
    }

    /// The output of an evaluation as planes, with its width and height.
    pub(super) fn planes(
        &self,
        (shape, values): (Vec<usize>, Vec<f32>),
    ) -> Result<(Vec<f32>, [usize; 2])> {
        let (width, height) = self.sides_of(&shape)?;
        let area = width * height;
        let whole = values.len() / area.max(1);
        let kept = whole.min(self.channels);
        let planes = match self.axes {
            Axes::Nchw => values[..kept * area].to_vec(),
            Axes::Nhwc => (0..kept * area).map(|i| values[(i % area) * whole + i / area]).collect(),
        };
        Ok((planes, [width, height]))
    }
}

/// The value of 1 in a mask: bytes have 255.
pub(super) fn mask_value(port: &Port) -> f32 {
    if port.element == Element::U8 { 255.0 } else { 1.0 }
}

/// Planes that go on by `border` pixels beyond each edge, mirrored.
fn extended(planes: &[f32], [width, height]: [usize; 2], border: usize) -> Vec<f32> {
    if border == 0 {
        return planes.to_vec();
    }
    let at = |i: usize, side: usize| mirror(i.cast_signed() - border.cast_signed(), side);
    let mut padded = Vec::new();
    for plane in planes.chunks_exact(width * height) {
        for y in 0..height + 2 * border {
            let row = &plane[at(y, height) * width..][..width];
            padded.extend((0..width + 2 * border).map(|x| row[at(x, width)]));
        }
    }
    padded
}

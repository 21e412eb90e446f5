//! Evaluations of a network whose properties are being detected.

use super::{Normalization, Probe};
use crate::error::Result;
use crate::model::bare::test_image::TestImage;
use crate::network::{Axes, Feed, Port};

impl Probe<'_> {
    /// Evaluates the network on an image and returns the shape and values of its output. `level` is
    /// the encoded noise level.
    pub(super) fn run(
        &mut self,
        test_image: &TestImage,
        normalization: &Normalization,
        level: f64,
    ) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let TestImage { width, height, .. } = test_image;
        let (area, scaling) = (width * height, normalization.scaling());
        let channels = self.channels;
        let mask = self.mask(*width, *height);
        let mut values = self.to_channels(test_image);
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
            values.extend(std::iter::repeat_n(level as f32, area));
        }
        // The frames of a window are equal.
        let stacked = if self.roles.neighbours.is_empty() { self.frames } else { 1 };
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
            let shape =
                if port.is_number() { number(port) } else { shape(1, *width, *height, self.axes) };
            feeds.push(Feed { port, shape, values: &levels });
        }
        let known: Vec<f32> = mask.iter().map(|missing| 1.0 - missing).collect();
        for (port, values) in [(&self.roles.mask, &mask), (&self.roles.known, &known)] {
            if let Some(port) = port {
                let shape = shape(1, *width, *height, self.axes);
                feeds.push(Feed { port, shape, values });
            }
        }
        feeds.extend(self.roles.neighbours.iter().map(|port| Feed {
            port,
            shape: image.clone(),
            values: &values,
        }));
        for [port, _] in &self.roles.states {
            let mut shape = number(port);
            if let ([_, _, rows, columns], [_, _, -1, -1]) =
                (shape.as_mut_slice(), port.shape.as_slice())
            {
                (*rows, *columns) = (height.div_ceil(self.divisor), width.div_ceil(self.divisor));
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
        self.trial.run(&feeds, &self.output.name)
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

//! The decoder of latents in a graph, after the last step.

use super::builder::{Builder, When};
use super::inputs::unsupported;
use super::onnx::{Element, Length};
use super::part::Part;
use super::source::Source;
use crate::error::{Error, Result};
use crate::model::DecoderSpec;
use crate::stages::AutoencoderSpec;

const ONCE: When = When::Once;

/// A decoder, and what it takes and gives.
pub(super) struct Decoder<'a> {
    pub(super) part: &'a Part<'a>,
    /// The names of its input and output.
    pub(super) names: [&'a str; 2],
    /// Channels of the latent.
    pub(super) latent_channels: usize,
    /// Channels of the image.
    pub(super) channels: usize,
    /// Pixels per latent pixel, along each axis.
    pub(super) scale: usize,
}

impl Decoder<'_> {
    /// Emits the decoder of a latent in its units, whose value and shape are given. The image has
    /// the name `output`; gives its shape.
    pub(super) fn emit(
        &self,
        (latent, shape): (&str, &[Length]),
        output: &str,
        builder: &mut Builder,
    ) -> Result<Vec<Length>> {
        let Self { part, names: [input, own_output], .. } = *self;
        let [latent_channels, channels, scale] = [self.latent_channels, self.channels, self.scale]
            .map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let [batch, given, height, width] = shape else { return Ok(shape.to_vec()) };
        if given.fixed() != Some(latent_channels) {
            let problem = format!(
                "it decodes latents of {latent_channels} channels, and the network gives others"
            );
            return Err(Error::model(&part.name, problem));
        }
        let wanted = format!("{}{input}", part.prefix);
        let port = Source::find(&part.source.inputs, &wanted, &part.name)?;
        if let Some(other) = part.source.inputs.iter().find(|port| port.name != wanted) {
            let what = format!("its decoder has an input `{}`", part.own_name(&other.name));
            return Err(unsupported(&part.name, what));
        }
        part.give(builder, port, latent, Element::F32)?;
        part.emit(builder);
        let (_, decoded) = part.output(builder, own_output)?;
        builder.alias(ONCE, &decoded, output);
        let side = |length: &Length, name: &str| match length {
            Length::Fixed(length) => Length::Fixed(length.saturating_mul(scale)),
            Length::Named(_) => Length::named(&format!("image_{name}")),
        };
        let sides = [side(height, "height"), side(width, "width")];
        let [height, width] = sides;
        Ok(vec![batch.clone(), Length::Fixed(channels), height, width])
    }
}

/// The latent of a pipeline in its decoder's units, as [`AutoencoderSpec::restored`] gives it.
pub(super) fn restored(spec: &AutoencoderSpec, latent: &str, builder: &mut Builder) -> String {
    let moments = |i: usize, default: f64| -> Vec<f64> {
        let given = spec.normalization.as_ref().map_or(&[][..], |moments| &moments[i]);
        let moment = |channel| given.get(channel).copied().map_or(default, f64::from);
        (0..spec.channels).map(moment).collect()
    };
    let each = [1, i64::try_from(spec.channels).unwrap_or(1), 1, 1];
    let [mean, deviation] = [moments(0, spec.shift), moments(1, 1.0)];
    let factor = builder.scalar(Element::F32, spec.factor);
    let mut value = builder.node(ONCE, "Div", &[latent, &factor]);
    for (operator, neutral, moments) in [("Mul", 1.0, deviation), ("Add", 0.0, mean)] {
        if moments.iter().any(|moment| *moment != neutral) {
            let moments = builder.tensor(Element::F32, &each, &moments);
            value = builder.node(ONCE, operator, &[&value, &moments]);
        }
    }
    value
}

/// The latent of a package in its decoder's units.
pub(super) fn unscaled(spec: &DecoderSpec, latent: &str, builder: &mut Builder) -> String {
    let factor = builder.scalar(Element::F32, f64::from(1.0 / spec.scaling_factor));
    builder.node(ONCE, "Mul", &[&factor, latent])
}

//! The nodes of a step: one evaluation of the network, and the linear update of the state. The
//! operations and their order are those of `diffusion/state`.

use std::collections::BTreeMap;

use super::builder::{Builder, Factor, STEP, When};
use super::inputs::{Fixed, image, now, pad, unsupported};
use super::onnx::{Element, Length, Port};
use super::source::Source;
use super::trajectory::{Next, SigmaSource, Trajectory, X, kept, name};
use crate::diffusion::{Clip, Linear, Step};
use crate::error::Result;

const EACH: When = When::Step;

/// Emits the nodes of a step, and gives the names of the values that it ends with.
pub(super) fn emit_step(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
    fixed: &Fixed,
    builder: &mut Builder,
) -> Result<Next> {
    let x = if trajectory.is_loop() { X } else { &fixed.x };
    let emitter = Emitter { trajectory, source, renamed, fixed, x };
    emitter.give_sample(builder)?;
    emitter.give_timestep(builder)?;
    for node in &source.nodes {
        builder.push(EACH, node);
    }
    let (output, variance) = emitter.output(builder)?;
    Ok(emitter.update(&output, variance.as_deref(), builder))
}

struct Emitter<'a> {
    trajectory: &'a Trajectory<'a>,
    source: &'a Source<'a>,
    renamed: &'a BTreeMap<String, String>,
    fixed: &'a Fixed,
    x: &'a str,
}

impl Emitter<'_> {
    fn steps(&self) -> &[Step] {
        &self.trajectory.plan.steps
    }

    fn factor(&self, builder: &mut Builder, of: impl Fn(&Step) -> f64) -> Factor {
        builder.factor(self.steps().iter().map(|step| of(step) as f32))
    }

    /// Gives the network its sample, `c_in * x`, with the channels that belong to it, and sigma.
    fn give_sample(&self, builder: &mut Builder) -> Result<()> {
        let Self { trajectory, source, renamed, fixed, x } = *self;
        let interface = trajectory.interface;
        let Some(sample) = &interface.sample else { return self.give_sigma(builder).map(drop) };
        let (_, element) = image(trajectory, &source.inputs, now(renamed, sample))?;
        let mut value = x.to_owned();
        if let Some([_, pads]) = &fixed.padding {
            value = pad(builder, EACH, &value, pads);
        }
        let c_in = self.factor(builder, |step| step.c_in);
        value = builder.scaled(&c_in, &value).unwrap_or(value);
        if trajectory.guidance.is_some() {
            value = builder.concat(EACH, &[&value, &value], 0);
        }
        if element == Element::F16 {
            value = builder.cast(EACH, &value, element);
        }
        let parts = [Some(value), self.give_sigma(builder)?, fixed.condition.clone()];
        let parts: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
        let whole = builder.concat(EACH, &parts, 1);
        builder.alias(EACH, &whole, now(renamed, sample));
        Ok(())
    }

    /// Gives the network sigma: what is to be concatenated with its sample, or nothing.
    fn give_sigma(&self, builder: &mut Builder) -> Result<Option<String>> {
        let Self { trajectory, source, renamed, .. } = *self;
        let interface = trajectory.interface;
        let Some(sigma) = &interface.sigma else { return Ok(None) };
        let port = Source::find(&source.inputs, now(renamed, sigma), trajectory.model)?;
        let is_number = port.shape.iter().skip(1).all(|length| *length == Length::Fixed(1));
        let is_concatenated = interface.sample.as_ref() == Some(sigma);
        if is_number && !is_concatenated {
            let SigmaSource::Uniform(factor) = trajectory.sigma else {
                let what = "its network takes one sigma for an image, and no map";
                return Err(unsupported(trajectory.model, what));
            };
            let level = |step: &Step| f64::from(factor * step.level.noise as f32);
            let values =
                self.steps().iter().map(|step| interface.noise_encoding.value(level(step)));
            let number = self.number(builder, port, &values.collect::<Vec<_>>())?;
            builder.alias(EACH, &number, now(renamed, sigma));
            return Ok(None);
        }
        let (port, element) = image(trajectory, &source.inputs, now(renamed, sigma))?;
        let planes = interface.sigma_planes;
        let copies = self.sigma_copies(port, is_concatenated);
        let mut map = self.sigma_map(builder, element, planes * copies);
        if trajectory.guidance.is_some() && trajectory.sigma == SigmaSource::Input {
            map = builder.concat(EACH, &[&map, &map], 0);
        }
        if is_concatenated {
            return Ok(Some(map));
        }
        builder.alias(EACH, &map, now(renamed, sigma));
        Ok(None)
    }

    /// How many channels of the tensor hold the same plane of sigma.
    fn sigma_copies(&self, port: &Port, is_concatenated: bool) -> usize {
        let Trajectory { interface, channels, .. } = *self.trajectory;
        let declared = port.shape[1].fixed().and_then(|length| usize::try_from(length).ok());
        match declared {
            Some(found) if is_concatenated && found == 2 * channels => channels,
            Some(found) if !is_concatenated && interface.sigma_planes == 1 => found.max(1),
            _ => 1,
        }
    }

    /// The map of sigma in this step, in `planes` channels.
    fn sigma_map(&self, builder: &mut Builder, element: Element, planes: usize) -> String {
        let Self { trajectory, fixed, .. } = *self;
        let encoding = trajectory.interface.noise_encoding;
        let unit = if encoding.is_plain() { 1.0 } else { encoding.factor as f32 };
        let all = builder.integers(&[i64::try_from(planes).unwrap_or(1)]);
        let shape: [&str; 3] = [&fixed.evaluated, &all, fixed.padded_sides()];
        let (factor, map) = match (trajectory.sigma, &fixed.sigma) {
            (SigmaSource::Uniform(factor), _) => (factor, None),
            (SigmaSource::Input, map) => (1.0, map.as_ref().map(|[_, map]| map)),
        };
        let levels = self.steps().iter().map(|step| factor * step.level.noise as f32 * unit);
        let level = builder.factor(levels);
        let mut value = match map {
            Some(map) => builder.scaled(&level, map).unwrap_or_else(|| map.clone()),
            None => builder.value(&level),
        };
        if element == Element::F16 {
            value = builder.cast(EACH, &value, element);
        }
        if map.is_some() && planes == trajectory.interface.sigma_planes {
            return value;
        }
        let shape = builder.concat(When::Once, &shape, 0);
        builder.node(EACH, "Expand", &[&value, &shape])
    }

    /// A number of each step in a tensor of the network's declaration, with one for each sample.
    fn number(&self, builder: &mut Builder, port: &Port, values: &[f64]) -> Result<String> {
        let Some(element) = port.element.filter(|element| *element != Element::Bool) else {
            let what = format!("its input `{}` is not of numbers", port.name);
            return Err(unsupported(self.trajectory.model, what));
        };
        let value = builder.per_step(element, values);
        let [first, rest @ ..] = port.shape.as_slice() else { return Ok(value) };
        let fixed = |length: &Length| length.fixed().unwrap_or(1);
        let rest: Vec<i64> = rest.iter().map(fixed).collect();
        let shape = match first {
            Length::Fixed(first) => builder.integers(&[&[*first], rest.as_slice()].concat()),
            Length::Named(_) if rest.is_empty() => self.fixed.evaluated.clone(),
            Length::Named(_) => {
                let rest = builder.integers(&rest);
                builder.concat(When::Once, &[&self.fixed.evaluated, &rest], 0)
            }
        };
        Ok(builder.node(EACH, "Expand", &[&value, &shape]))
    }

    fn give_timestep(&self, builder: &mut Builder) -> Result<()> {
        let Self { trajectory, source, renamed, .. } = *self;
        let Some(timestep) = &trajectory.interface.timestep else { return Ok(()) };
        let port = Source::find(&source.inputs, now(renamed, timestep), trajectory.model)?;
        let encoding = trajectory.interface.noise_encoding;
        let values: Vec<f64> = self
            .steps()
            .iter()
            .map(|step| encoding.value(step.t * trajectory.timestep_factor))
            .collect();
        let number = self.number(builder, port, &values)?;
        builder.alias(EACH, &number, now(renamed, timestep));
        Ok(())
    }

    /// The network's output, of the state's size, after guidance; and what it predicts of the
    /// variance, from -1 to 1, if that is needed.
    fn output(&self, builder: &mut Builder) -> Result<(String, Option<String>)> {
        let Self { trajectory, source, renamed, fixed, .. } = *self;
        let output = now(renamed, &trajectory.interface.output);
        let (port, element) = image(trajectory, &source.outputs, output)?;
        let mut value = output.to_owned();
        if element == Element::F16 {
            value = builder.cast(EACH, &value, Element::F32);
        }
        let channels = i64::try_from(trajectory.channels).unwrap_or(i64::MAX);
        let given = port.shape[1].fixed().unwrap_or(i64::MAX);
        if given < channels {
            let what = format!("its output has {given} channels, and its sample {channels}");
            return Err(unsupported(trajectory.model, what));
        }
        let mut variance = None;
        if given > channels {
            if trajectory.variance.is_some() {
                let ends = [channels, 2 * channels].map(|end| builder.integers(&[end]));
                let own = builder.slice(EACH, &value, [&ends[0], &ends[1]], &[1]);
                let zero = builder.integers(&[0]);
                variance = Some(builder.slice(EACH, &own, [&zero, &fixed.batch], &[0]));
            }
            let ends = [0, channels].map(|end| builder.integers(&[end]));
            value = builder.slice(EACH, &value, [&ends[0], &ends[1]], &[1]);
        }
        if trajectory.guidance.is_some() {
            let zero = builder.integers(&[0]);
            let with = builder.slice(EACH, &value, [&zero, &fixed.batch], &[0]);
            let minus = builder.slice(EACH, &value, [&fixed.batch, &fixed.evaluated], &[0]);
            let scale = trajectory.named(name::GUIDANCE);
            let is_sum = trajectory.guidance.is_some_and(|guidance| guidance.is_sum);
            value = if !is_sum {
                let change = builder.node(EACH, "Sub", &[&with, &minus]);
                let change = builder.node(EACH, "Mul", &[&scale, &change]);
                builder.node(EACH, "Add", &[&minus, &change])
            } else {
                let one = builder.scalar(Element::F32, 1.0);
                let rest = builder.node(When::Once, "Sub", &[&one, &scale]);
                let minus = builder.node(EACH, "Mul", &[&rest, &minus]);
                let with = builder.node(EACH, "Mul", &[&scale, &with]);
                builder.node(EACH, "Add", &[&minus, &with])
            };
        }
        if fixed.padding.is_some() {
            let zeros = builder.integers(&[0, 0]);
            value = builder.slice(EACH, &value, [&zeros, &fixed.sides], &[2, 3]);
        }
        Ok((value, variance))
    }

    /// The state after the step, and the values that it keeps.
    fn update(&self, output: &str, variance: Option<&str>, builder: &mut Builder) -> Next {
        let Self { trajectory, x, .. } = *self;
        let plan = trajectory.plan;
        let rows: Vec<Linear> = plan.steps.iter().map(Linear::new).collect();
        let of = |builder: &mut Builder, row: &dyn Fn(&Linear) -> f32| {
            builder.factor(rows.iter().map(row))
        };
        let slots = plan.slots();
        let (mut terms, mut next) = (Vec::new(), Vec::new());
        if slots == 0 && plan.clip == Clip::None {
            let [of_x, of_output] =
                [of(builder, &|row| row.direct.0), of(builder, &|row| row.direct.1)];
            terms.extend([builder.scaled(&of_x, x), builder.scaled(&of_output, output)]);
        } else {
            let factors = [of(builder, &|row| row.raw.0), of(builder, &|row| row.raw.1)];
            let [a, b, e] =
                [of(builder, &|row| row.a), of(builder, &|row| row.b), of(builder, &|row| row.e)];
            let past: Vec<Factor> =
                (0..slots).map(|slot| of(builder, &|row| row.past[slot])).collect();
            let raw = [builder.scaled(&factors[0], x), builder.scaled(&factors[1], output)];
            let raw = self.sum(builder, raw);
            let d = self.limited(builder, &raw);
            terms.extend([builder.scaled(&a, x), builder.scaled(&b, &d), builder.scaled(&e, &raw)]);
            for (slot, factor) in past.iter().enumerate() {
                terms.push(builder.scaled(factor, &kept(slot)));
                next.push(self.keep(builder, &rows, slot, &d));
            }
        }
        if plan.noise_rows() > 0 {
            terms.push(self.noise(variance, builder));
        }
        let x = self.sum(builder, terms);
        // A plan of one step has nothing to keep.
        Next { x, kept: if trajectory.is_loop() { next } else { Vec::new() } }
    }

    /// The sum, or zeros if there is no term.
    fn sum(
        &self,
        builder: &mut Builder,
        terms: impl IntoIterator<Item = Option<String>>,
    ) -> String {
        builder.sum(terms).unwrap_or_else(|| builder.node(EACH, "Sub", &[self.x, self.x]))
    }

    /// The value of a slot after the step.
    fn keep(&self, builder: &mut Builder, rows: &[Linear], slot: usize, d: &str) -> String {
        let stored = |row: &Linear| row.store.filter(|(into, _)| *into == slot).map(|it| it.1);
        let [of_x, of_d] = [0, 1].map(|i| {
            // Where nothing is stored, any factor will do.
            let any = rows.iter().find_map(stored).unwrap_or_default();
            builder.factor(rows.iter().map(|row| stored(row).unwrap_or(any)[i]))
        });
        let value = [builder.scaled(&of_x, self.x), builder.scaled(&of_d, d)];
        let value = self.sum(builder, value);
        let stores: Vec<f64> =
            rows.iter().map(|row| f64::from(u8::from(stored(row).is_some()))).collect();
        if stores.iter().all(|stores| *stores == 1.0) {
            return builder.node(EACH, "Identity", &[&value]);
        }
        let stores = builder.per_step(Element::Bool, &stores);
        builder.node(EACH, "Where", &[&stores, &value, &kept(slot)])
    }

    /// The prediction, limited.
    fn limited(&self, builder: &mut Builder, raw: &str) -> String {
        match self.trajectory.plan.clip {
            Clip::None => raw.to_owned(),
            Clip::Range(range) => {
                let [low, high] = [-range, range].map(|end| builder.scalar(Element::F32, end));
                builder.node(EACH, "Clip", &[raw, &low, &high])
            }
            Clip::Threshold { ratio, max } => self.thresholded(builder, raw, ratio, max),
        }
    }

    /// Dynamic thresholding, as [`Clip::Threshold`] describes it.
    fn thresholded(&self, builder: &mut Builder, raw: &str, ratio: f64, max: f64) -> String {
        let magnitudes = builder.node(EACH, "Abs", &[raw]);
        let flat = builder.integers(&[0, -1]);
        let flat = builder.node(EACH, "Reshape", &[&magnitudes, &flat]);
        let shape = builder.node(EACH, "Shape", &[&flat]);
        let [zero, one, two] = [0, 1, 2].map(|number| builder.integers(&[number]));
        let count = builder.gather(EACH, &shape, &one, 0);
        // The position of the quantile in ascending order, between two values.
        let last = builder.node(EACH, "Sub", &[&count, &one]);
        let last = builder.cast(EACH, &last, Element::F64);
        let ratio = builder.scalar(Element::F64, ratio);
        let position = builder.node(EACH, "Mul", &[&last, &ratio]);
        let below = builder.node(EACH, "Floor", &[&position]);
        let weight = builder.node(EACH, "Sub", &[&position, &below]);
        let weight = builder.cast(EACH, &weight, Element::F32);
        let below = builder.cast(EACH, &below, Element::I64);
        // The largest values down to the lower of the two.
        let taken = builder.node(EACH, "Sub", &[&count, &below]);
        let largest = builder.top(EACH, &flat, &taken);
        let at_low = builder.node(EACH, "Sub", &[&taken, &one]);
        let at_high = builder.node(EACH, "Sub", &[&taken, &two]);
        let at_high = builder.node(EACH, "Max", &[&at_high, &zero]);
        let low = builder.gather(EACH, &largest, &at_low, 1);
        let high = builder.gather(EACH, &largest, &at_high, 1);
        let step = builder.node(EACH, "Sub", &[&high, &low]);
        let step = builder.node(EACH, "Mul", &[&weight, &step]);
        let quantile = builder.node(EACH, "Add", &[&low, &step]);
        let [one, max] = [1.0, max].map(|limit| builder.scalar(Element::F32, limit));
        let bound = builder.node(EACH, "Max", &[&quantile, &one]);
        let bound = builder.node(EACH, "Min", &[&bound, &max]);
        let each = builder.integers(&[-1, 1, 1, 1]);
        let bound = builder.node(EACH, "Reshape", &[&bound, &each]);
        let negative = builder.node(EACH, "Neg", &[&bound]);
        let held = builder.node(EACH, "Max", &[raw, &negative]);
        let held = builder.node(EACH, "Min", &[&held, &bound]);
        builder.node(EACH, "Div", &[&held, &bound])
    }

    /// The fresh noise of the step.
    fn noise(&self, variance: Option<&str>, builder: &mut Builder) -> Option<String> {
        let Self { trajectory, fixed, .. } = *self;
        let last = trajectory.plan.noise_rows() - 1;
        // Steps after the last one with noise read its noise, too, and multiply it by 0.
        let rows: Vec<f64> = (0..self.steps().len()).map(|row| row.min(last) as f64).collect();
        let is_each = last + 1 == rows.len() && trajectory.is_loop();
        let row = if is_each { STEP.into() } else { builder.per_step(Element::I64, &rows) };
        let mut fresh = builder.gather(EACH, &trajectory.named(name::NOISE), &row, 0);
        if let (Some(predicted), Some(ratios)) = (variance, trajectory.variance) {
            // From the smallest variance to the largest, in logarithms.
            let ratio = builder.factor(ratios.iter().copied());
            let ratio = builder.value(&ratio);
            let [one, two] = [1.0, 2.0].map(|number| builder.scalar(Element::F32, number));
            let part = builder.node(EACH, "Add", &[predicted, &one]);
            let part = builder.node(EACH, "Mul", &[&ratio, &part]);
            let part = builder.node(EACH, "Div", &[&part, &two]);
            let factor = builder.node(EACH, "Exp", &[&part]);
            fresh = builder.node(EACH, "Mul", &[&fresh, &factor]);
        }
        let d = self.factor(builder, |step| step.d);
        match (trajectory.sigma, &fixed.sigma) {
            (SigmaSource::Input, Some([map, _])) => {
                let map = builder.scaled(&d, map)?;
                Some(builder.node(EACH, "Mul", &[&map, &fresh]))
            }
            (SigmaSource::Uniform(sigma), _) if sigma != 1.0 => {
                let d = builder.factor(self.steps().iter().map(|step| step.d as f32 * sigma));
                builder.scaled(&d, &fresh)
            }
            _ => builder.scaled(&d, &fresh),
        }
    }
}

//! What is computed before the first step: shapes, padding, and the inputs that stay equal.

use std::collections::BTreeMap;

use super::builder::{Builder, When};
use super::onnx::{Attribute, Element, Length, Port};
use super::source::Source;
use super::trajectory::{SigmaSource, Start, Trajectory, free, name};
use crate::error::{Error, Result};
use crate::network::Interface;

/// What is fixed before the first step. All names are of values of ONNX.
pub(super) struct Fixed {
    /// The inputs of the whole graph, and what they are.
    pub(super) inputs: Vec<(Port, String)>,
    /// The shape of the state.
    pub(super) shape: Vec<Length>,
    /// The state before the first step.
    pub(super) x: String,
    /// The number of samples, a vector of one; and that of evaluations, which is twice as much
    /// with guidance.
    pub(super) batch: String,
    pub(super) evaluated: String,
    /// Height and width of the state.
    pub(super) sides: String,
    /// The same with padding, and `pads` of the operator Pad; none for a network that takes any
    /// size, or only one.
    pub(super) padding: Option<[String; 2]>,
    /// The map of sigma from outside, of the state's size; and with padding.
    pub(super) sigma: Option<[String; 2]>,
    /// The condition to concatenate with the sample.
    pub(super) condition: Option<String>,
}

impl Fixed {
    /// Height and width of the network's sample.
    pub(super) fn padded_sides(&self) -> &str {
        self.padding.as_ref().map_or(&self.sides, |[sides, _]| sides)
    }
}

/// The error for a network that cannot be compiled.
pub(super) fn unsupported(model: &str, what: impl std::fmt::Display) -> Error {
    let problem = format!(
        "{what}; a trajectory with that cannot be compiled to one graph yet: run it with Eddy, or \
         export the network without it"
    );
    Error::model(model, problem)
}

/// Pads height and width by mirroring.
pub(super) fn pad(builder: &mut Builder, when: When, value: &str, pads: &str) -> String {
    builder.node_with(when, "Pad", &[value, pads], [Attribute::Text("mode", "reflect")])
}

/// The tensor of an image, which has to be of floats and of rank 4.
pub(super) fn image<'a>(
    trajectory: &Trajectory<'_>,
    ports: &'a [Port],
    name: &str,
) -> Result<(&'a Port, Element)> {
    let port = Source::find(ports, name, trajectory.model)?;
    match (port.element, port.shape.len()) {
        (Some(element @ (Element::F32 | Element::F16)), 4) => Ok((port, element)),
        _ => {
            let what = format!("its tensor `{name}` is not float32 or float16 of rank 4");
            Err(unsupported(trajectory.model, what))
        }
    }
}

/// What a graph calls a value now.
pub(super) fn now<'a>(renamed: &'a BTreeMap<String, String>, name: &'a str) -> &'a str {
    renamed.get(name).map_or(name, String::as_str)
}

/// Emits what comes before the first step.
pub(super) fn prepare(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
    builder: &mut Builder,
) -> Result<Fixed> {
    check(trajectory, source, renamed)?;
    let Trajectory { interface, channels, start, .. } = *trajectory;
    let channels = i64::try_from(channels).unwrap_or(i64::MAX);
    let shape = state_shape(trajectory, source, renamed)?;
    let mut inputs = Vec::new();
    let mut state = |name: &str, element, doc: &str| {
        inputs.push((Port::new(name, element, shape.clone()), doc.to_owned()));
    };
    let sample = trajectory.named(name::SAMPLE);
    let scale = i64::try_from(interface.scale).unwrap_or(1);
    let takes_low = interface.condition.is_some();
    if start == Start::Sample {
        state(&sample, Element::F32, "The state before the first step");
    } else if trajectory.is_loop() {
        state(name::START_NOISE, Element::F32, "Normal noise of variance 1, of the output's size");
    }
    if takes_low {
        let low = i64::try_from(interface.condition_channels.unwrap_or(1)).unwrap_or(i64::MAX);
        let small = |length: &Length, name: &str| match length {
            Length::Fixed(length) => Length::Fixed(length / scale),
            Length::Named(_) if scale == 1 => length.clone(),
            Length::Named(_) => free(&format!("small_{name}")),
        };
        let shape = vec![
            shape[0].clone(),
            Length::Fixed(low),
            small(&shape[2], "height"),
            small(&shape[3], "width"),
        ];
        let doc = format!("The image to enlarge; the output is {scale} times as large");
        inputs.push((Port::new(name::LOW, Element::F32, shape), doc));
    }
    // Sizes.
    let of = if start == Start::Sample { sample.as_str() } else { name::LOW };
    let sizes = builder.node(When::Once, "Shape", &[of]);
    let [first, last] = [[0].as_slice(), &[2, 3]].map(|axes| builder.integers(axes));
    let batch = builder.gather(When::Once, &sizes, &first, 0);
    let mut sides = builder.gather(When::Once, &sizes, &last, 0);
    if start != Start::Sample && scale > 1 {
        let scale = builder.integers(&[scale]);
        sides = builder.node(When::Once, "Mul", &[&sides, &scale]);
    }
    let evaluated = match trajectory.guidance {
        None => batch.clone(),
        Some(_) => {
            let two = builder.integers(&[2]);
            builder.node(When::Once, "Mul", &[&batch, &two])
        }
    };
    let multiple = i64::try_from(trajectory.multiple_of).unwrap_or(1);
    let is_multiple = |length: &Length| length.fixed().is_some_and(|side| side % multiple == 0);
    let padding = (multiple > 1 && !shape[2..].iter().all(is_multiple)).then(|| {
        let (zero, multiple) = (builder.integers(&[0]), builder.integers(&[multiple]));
        let negative = builder.node(When::Once, "Sub", &[&zero, &sides]);
        let missing = builder.node(When::Once, "Mod", &[&negative, &multiple]);
        let padded = builder.node(When::Once, "Add", &[&sides, &missing]);
        let none = builder.integers(&[0; 6]);
        [padded, builder.concat(When::Once, &[&none, &missing], 0)]
    });
    let mut fixed = Fixed {
        inputs,
        shape,
        x: sample,
        batch,
        evaluated,
        sides,
        padding,
        sigma: None,
        condition: trajectory.concat.map(str::to_owned),
    };
    if let Start::Enlarged(sigma) = start {
        fixed.x = begin(trajectory, sigma, builder);
    }
    if takes_low {
        give_condition(trajectory, source, renamed, &mut fixed, builder)?;
    }
    if trajectory.sigma == SigmaSource::Input {
        give_sigma(interface, &mut fixed, channels, builder);
    }
    give_classes(trajectory, renamed, &mut fixed, builder);
    give_constants(trajectory, source, renamed, &fixed, builder)?;
    for (input, value) in trajectory.given {
        builder.alias(When::Once, value, input);
    }
    if trajectory.plan.noise_rows() > 0 {
        let rows = [vec![free("noisy_steps")], fixed.shape.clone()].concat();
        let doc = format!(
            "Normal noise of variance 1 of each step; the first {} are used",
            trajectory.plan.noise_rows()
        );
        fixed.inputs.push((Port::new(&trajectory.named(name::NOISE), Element::F32, rows), doc));
    }
    Ok(fixed)
}

/// Checks that everything about the network can be compiled.
fn check(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
) -> Result<()> {
    /// The first set of operators in which all have the inputs that are used here.
    const OLDEST: i64 = 11;
    let Trajectory { model, interface, .. } = *trajectory;
    let refuse = |what: String| Err(unsupported(model, what));
    if source.opset < OLDEST {
        let problem = format!(
            "its network is of opset {}; expected {OLDEST} or later: export it again",
            source.opset
        );
        return Err(Error::model(model, problem));
    }
    if interface.frames > 1 || !interface.states.is_empty() {
        return refuse("its network sees several frames of a video".into());
    }
    let plain = Interface::default();
    if interface.border > 0
        || interface.residual
        || [&interface.encoding, &interface.output_encoding] != [&plain.encoding; 2]
    {
        return refuse("its tensors encode images otherwise than as planes, unscaled".into());
    }
    if trajectory.guidance.is_some()
        && interface.unconditional.is_empty()
        && interface.class.is_none()
        && trajectory.given.is_empty()
    {
        return refuse("its guidance is of a condition that it does not declare".into());
    }
    let known = [
        &interface.sample,
        &interface.sigma,
        &interface.timestep,
        &interface.condition,
        &interface.class,
    ];
    let known: Vec<&str> = known
        .into_iter()
        .flatten()
        .chain(interface.constants.keys())
        .map(|it| now(renamed, it))
        .chain(trajectory.given.iter().map(|(input, _)| input.as_str()))
        .collect();
    match source.inputs.iter().find(|port| !known.contains(&port.name.as_str())) {
        Some(port) => refuse(format!("its network has an input `{}` of unknown role", port.name)),
        None => Ok(()),
    }
}

/// The shape of the state, as far as the network fixes it.
fn state_shape(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
) -> Result<Vec<Length>> {
    let Trajectory { model, interface, channels, suffix, sides, .. } = *trajectory;
    let own = |length: &Length, name: &str| match length {
        Length::Fixed(length) => Length::Fixed(*length),
        Length::Named(_) => free(name),
    };
    let [height, width] = ["height", "width"].map(|side| format!("{side}{suffix}"));
    let names = ["batch", &height, &width];
    let lengths = match &interface.sample {
        Some(sample) => {
            let (port, _) = image(trajectory, &source.inputs, now(renamed, sample))?;
            let lengths = [&port.shape[0], &port.shape[2], &port.shape[3]];
            [0, 1, 2].map(|axis| own(lengths[axis], names[axis]))
        }
        None => names.map(free),
    };
    let [batch, mut height, mut width] = lengths;
    if let Some(sides) = sides {
        [height, width] = sides.map(Length::Fixed);
    }
    if trajectory.guidance.is_some() && batch.fixed().is_some() {
        let what = "its network takes batches of one size, and guidance needs twice as many";
        return Err(unsupported(model, what));
    }
    let channels = i64::try_from(channels).unwrap_or(i64::MAX);
    Ok(vec![batch, Length::Fixed(channels), height, width])
}

/// The state before the first step of an upscaler: the enlarged image, and noise for several steps.
fn begin(trajectory: &Trajectory<'_>, sigma: f32, builder: &mut Builder) -> String {
    let enlarged = enlarge(trajectory.interface.scale, name::LOW, builder);
    if !trajectory.is_loop() {
        return enlarged;
    }
    let sigma = builder.scalar(Element::F32, f64::from(sigma));
    let noise = builder.node(When::Once, "Mul", &[&sigma, name::START_NOISE]);
    builder.node(When::Once, "Add", &[&enlarged, &noise])
}

/// Enlarges an image bicubically, as `Bicubic` does (Keys 1981, a = -1/2).
fn enlarge(scale: usize, value: &str, builder: &mut Builder) -> String {
    if scale <= 1 {
        return value.to_owned();
    }
    let scales = builder.scales(scale as f64);
    let attributes = [
        Attribute::Text("mode", "cubic"),
        Attribute::Float("cubic_coeff_a", -0.5),
        Attribute::Text("coordinate_transformation_mode", "half_pixel"),
    ];
    builder.node_with(When::Once, "Resize", &[value, "", &scales], attributes)
}

/// Gives the network its low-resolution image.
fn give_condition(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
    fixed: &mut Fixed,
    builder: &mut Builder,
) -> Result<()> {
    let interface = trajectory.interface;
    let Some(condition) = &interface.condition else { return Ok(()) };
    let is_concatenated = interface.sample.as_ref() == Some(condition);
    let mut value = name::LOW.to_owned();
    if is_concatenated {
        value = enlarge(interface.scale, &value, builder);
    }
    if let Some([_, pads]) = &fixed.padding {
        let mut pads = pads.clone();
        if !is_concatenated && interface.scale > 1 {
            let scale = builder.integers(&[i64::try_from(interface.scale).unwrap_or(1)]);
            pads = builder.node(When::Once, "Div", &[&pads, &scale]);
        }
        value = pad(builder, When::Once, &value, &pads);
    }
    if trajectory.guidance.is_some() {
        value = builder.concat(When::Once, &[&value, &value], 0);
    }
    let (_, element) = image(trajectory, &source.inputs, now(renamed, condition))?;
    if element == Element::F16 {
        value = builder.cast(When::Once, &value, element);
    }
    if is_concatenated {
        fixed.condition = Some(value);
    } else {
        builder.alias(When::Once, &value, now(renamed, condition));
    }
    Ok(())
}

/// Adds the input of sigma, and spreads it over the image.
fn give_sigma(interface: &Interface, fixed: &mut Fixed, channels: i64, builder: &mut Builder) {
    let planes = i64::try_from(interface.sigma_planes).unwrap_or(1);
    let shape =
        [free("sigma_batch"), Length::Fixed(planes), free("sigma_height"), free("sigma_width")];
    let doc = "The standard deviation of the image's noise, in the units of its values: one number \
               for each plane, or a map of the image's size";
    fixed.inputs.push((Port::new(name::SIGMA, Element::F32, shape.into()), doc.into()));
    let planes = builder.integers(&[planes]);
    let all = builder.concat(When::Once, &[&fixed.batch, &planes, &fixed.sides], 0);
    let map = builder.node(When::Once, "Expand", &[name::SIGMA, &all]);
    let padded = match &fixed.padding {
        Some([_, pads]) => pad(builder, When::Once, &map, pads),
        None => map.clone(),
    };
    // For noise, by channel: four of luma, then those of chroma.
    let by_channel = if interface.sigma_planes == 1 {
        map
    } else {
        let planes: Vec<i64> = (0..channels).map(|channel| i64::from(channel >= 4)).collect();
        let planes = builder.integers(&planes);
        builder.gather(When::Once, &map, &planes, 1)
    };
    fixed.sigma = Some([by_channel, padded]);
}

/// Adds the inputs of classes and guidance.
fn give_classes(
    trajectory: &Trajectory<'_>,
    renamed: &BTreeMap<String, String>,
    fixed: &mut Fixed,
    builder: &mut Builder,
) {
    if let Some(guidance) = trajectory.guidance {
        let name = trajectory.named(name::GUIDANCE);
        builder.constant(&name, Element::F32, &[], &[guidance.scale]);
        let doc = "The scale of guidance; 1 is the conditional prediction alone";
        fixed.inputs.push((Port::new(&name, Element::F32, Vec::new()), doc.into()));
    }
    let Some(class) = &trajectory.interface.class else { return };
    let port = Port::new(name::CLASS, Element::I64, vec![fixed.shape[0].clone()]);
    fixed.inputs.push((port, "The class of each sample, counted from 0".into()));
    let mut value = name::CLASS.to_owned();
    if let Some(negative) = trajectory.guidance.and_then(|guidance| guidance.negative) {
        builder.constant(name::NEGATIVE, Element::I64, &[], &[negative as f64]);
        let doc = "The class that guidance leads away from";
        fixed.inputs.push((Port::new(name::NEGATIVE, Element::I64, Vec::new()), doc.into()));
        let negative = builder.node(When::Once, "Expand", &[name::NEGATIVE, &fixed.batch]);
        value = builder.concat(When::Once, &[name::CLASS, &negative], 0);
    }
    builder.alias(When::Once, &value, now(renamed, class));
}

/// Gives the network the inputs that are always equal, and with guidance by these also what means
/// no condition.
fn give_constants(
    trajectory: &Trajectory<'_>,
    source: &Source<'_>,
    renamed: &BTreeMap<String, String>,
    fixed: &Fixed,
    builder: &mut Builder,
) -> Result<()> {
    let Trajectory { model, interface, .. } = *trajectory;
    let is_by_class = interface.class.is_some();
    for (name, values) in &interface.constants {
        let now = now(renamed, name);
        let port = Source::find(&source.inputs, now, model)?;
        let Some(element) = port.element else {
            return Err(unsupported(model, format!("its input `{name}` is not of numbers")));
        };
        let without = interface.unconditional.get(name);
        let without = without.filter(|_| trajectory.guidance.is_some() && !is_by_class);
        let value = match without {
            None => constant(builder, (model, port), element, values, &fixed.evaluated)?,
            Some(without) => {
                if port.shape.first().is_none_or(|length| length.fixed().is_some()) {
                    let what = format!("its input `{name}` has one value for all samples");
                    return Err(unsupported(model, what));
                }
                let with = constant(builder, (model, port), element, values, &fixed.batch)?;
                let without = constant(builder, (model, port), element, without, &fixed.batch)?;
                builder.concat(When::Once, &[&with, &without], 0)
            }
        };
        builder.alias(When::Once, &value, now);
    }
    Ok(())
}

/// A constant input. Its first axis, if that is free, is as long as the batch, or as its values if
/// it is the only one and there are several.
fn constant(
    builder: &mut Builder,
    (model, port): (&str, &Port),
    element: Element,
    values: &[f64],
    batch: &str,
) -> Result<String> {
    /// A file of more has a defect.
    const MOST_CONSTANTS: usize = 1 << 22;
    let length = |length: &Length| length.fixed().unwrap_or(1);
    let mut own: Vec<i64> = port.shape.iter().map(length).collect();
    let is_free = port.shape.first().is_some_and(|length| length.fixed().is_none());
    if let [only] = own.as_mut_slice()
        && is_free
        && values.len() > 1
    {
        *only = i64::try_from(values.len()).unwrap_or(i64::MAX);
        return Ok(builder.tensor(element, &own, values));
    }
    let count = own.iter().try_fold(1, |count: i64, length| count.checked_mul(*length));
    let count = count.and_then(|count| usize::try_from(count).ok());
    let Some(count) = count.filter(|count| *count <= MOST_CONSTANTS) else {
        let what = format!("its input `{}` has a shape of {own:?}", port.name);
        return Err(unsupported(model, what));
    };
    let all: Vec<f64> = values.iter().copied().cycle().take(count).collect();
    let value = builder.tensor(element, &own, &all);
    if !is_free {
        return Ok(value);
    }
    let rest = builder.integers(&own[1..]);
    let shape = builder.concat(When::Once, &[batch, &rest], 0);
    Ok(builder.node(When::Once, "Expand", &[&value, &shape]))
}

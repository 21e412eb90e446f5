//! The roles of a graph's inputs, by their shapes, types and names.

use super::Description;
use crate::error::{Error, Result};
use crate::names::named;
use crate::network::{Axes, Port, ProbeSession};
use crate::setting::{INPUT, INPUTS};

/// The role of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The image, or the noisy sample.
    Sample,
    /// The standard deviation of the noise: a map, or a scalar.
    Sigma,
    /// The noise level of a sampler: its timestep, or sigma.
    Timestep,
    /// The low-resolution image of an upscaler.
    Condition,
    /// A class.
    Class,
    /// A mask that is 1 where pixels are missing.
    Mask,
    /// A mask that is 1 where pixels are known.
    Known,
}

named!(
    Role,
    "the role of an input",
    Sample = "sample",
    Sigma = "sigma",
    Timestep = "timestep",
    Condition = "condition",
    Class = "class",
    Mask = "mask",
    Known = "known",
);

/// The inputs of a graph by their roles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Roles {
    pub(super) sample: Option<Port>,
    pub(super) sigma: Option<Port>,
    pub(super) timestep: Option<Port>,
    pub(super) condition: Option<Port>,
    pub(super) class: Option<Port>,
    pub(super) mask: Option<Port>,
    pub(super) known: Option<Port>,
    pub(super) constants: Vec<Port>,
    /// The frames of a video before and after the sample.
    pub(super) neighbors: Vec<Port>,
    /// Recurrent states: each input, and the output that it becomes at the next frame.
    pub(super) states: Vec<[Port; 2]>,
}

/// Parts of names that imply a role.
const NOISE: &[&str] =
    &["sigma", "noise_l", "noisel", "nlevel", "level", "std", "noise_map", "sig"];
const TIME: &[&str] = &["time", "step", "_t", "t_"];
/// Names that exporters generate, and symbols of formulas. They imply no role.
const GENERIC_NAMES: &[&str] = &["input", "onnx::", "arg", "x", "s", "n", "t"];
const CLASS: &[&str] = &["class", "label"];
const MASK: &[&str] = &["mask", "hole"];
const IMAGE: &[&str] = &["noisy", "sample", "image", "img", "input", "x", "lq", "lr", "data", "in"];

fn is_called(port: &Port, parts: &[&str]) -> bool {
    let name = port.name.to_lowercase();
    parts.iter().any(|part| name.contains(part))
}

/// Whether an input's name implies no role.
fn has_generic_name(port: &Port) -> bool {
    let name = port.name.to_lowercase();
    let stem = name.trim_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | ':'));
    name.chars().count() <= 2 || stem.is_empty() || GENERIC_NAMES.contains(&stem)
}

/// Whether an integer input is the timestep: its name implies no other role.
fn is_integer_time(port: &Port) -> bool {
    port.element.is_integer() && has_generic_name(port)
}

impl Roles {
    /// The roles of the inputs of a graph.
    ///
    /// # Errors
    /// [`Error::Model`] when there is no image, or an input whose role is unknown.
    pub(super) fn of(
        session: &ProbeSession,
        description: &Description,
        model: &str,
    ) -> Result<Self> {
        let mut roles = Self::default();
        let mut rest: Vec<Port> = session.inputs().to_vec();
        for name in
            description.inputs.iter().map(|(_, name)| name).chain(description.constants.keys())
        {
            if !rest.iter().any(|port| port.name == *name) {
                let present: Vec<&str> = rest.iter().map(|port| port.name.as_str()).collect();
                let problem =
                    format!("it has no input named `{name}`; it has {}", present.join(", "));
                return Err(Error::model(model, problem));
            }
        }
        for (i, (role, name)) in description.inputs.iter().enumerate() {
            if description.inputs[..i].iter().any(|(other, _)| other == role) {
                return Err(Error::usage(format!("the input {role} is named twice; name it once")));
            }
            let port = rest.iter().find(|port| port.name == *name).cloned();
            *roles.slot_of(*role) = port;
        }
        let named = |port: &Port| description.inputs.iter().any(|(_, name)| *name == port.name);
        roles.constants =
            rest.extract_if(.., |port| description.constants.contains_key(&port.name)).collect();
        rest.retain(|port| !named(port));
        roles.find_image(&mut rest, description);
        roles.find_states(&mut rest, session.outputs(), description, model)?;
        roles.find_neighbors(&mut rest, session.inputs());
        if roles.sample.is_none() && roles.condition.is_none() {
            let inputs: Vec<String> = session
                .inputs()
                .iter()
                .map(|port| format!("`{}` ({})", port.name, port.text))
                .collect();
            let problem = format!(
                "none of its inputs is an image, a tensor [batch, channels, height, width] of float32, float16 or uint8, perhaps \
                 without batch; it has {}",
                inputs.join(", ")
            );
            return Err(Error::model(model, problem));
        }
        // Unambiguous names first.
        rest.sort_by_key(|port| !(is_called(port, NOISE) || is_called(port, CLASS)));
        let mut unknown = Vec::new();
        for port in rest {
            let has_level = roles.sigma.is_some() || roles.timestep.is_some();
            let is_map =
                !port.is_number() && port.element.is_of_images() && port.rank_4().is_some();
            // One plane, or the same in each channel of the image.
            let is_noise_map = is_plane(&port)
                || is_called(&port, NOISE) && matches!(channels_of(&port, None).1, Some(3));
            let slot = if is_map && is_plane(&port) && is_called(&port, MASK) {
                &mut roles.mask
            } else if is_map && !has_level && is_noise_map {
                &mut roles.sigma
            } else if !port.is_number() {
                unknown.push(port);
                continue;
            } else if port.element.is_integer() && is_called(&port, CLASS) {
                &mut roles.class
            } else if has_level {
                unknown.push(port);
                continue;
            } else if !is_called(&port, NOISE) && (is_called(&port, TIME) || is_integer_time(&port))
            {
                &mut roles.timestep
            } else if port.element.is_integer()
                || !(is_called(&port, NOISE) || has_generic_name(&port))
            {
                // The role of a scalar with any other name is unknown.
                unknown.push(port);
                continue;
            } else {
                &mut roles.sigma
            };
            match slot {
                None => *slot = Some(port),
                Some(_) => unknown.push(port),
            }
        }
        // An inpainting network of one evaluation takes no noise level.
        let mask = roles
            .mask
            .take_if(|port| (roles.sigma.is_some() || roles.timestep.is_some()) && !named(port));
        unknown.extend(mask);
        if unknown.is_empty() {
            return Ok(roles);
        }
        let unknown: Vec<String> =
            unknown.iter().map(|port| format!("`{}` ({})", port.name, port.text)).collect();
        let problem = format!(
            "the roles of its inputs {} are unknown; give each a constant value by {INPUT} \
             NAME=VALUE, or a role by {INPUTS} ROLE=NAME: sample, sigma, timestep, condition, \
             class, mask or known",
            unknown.join(" and ")
        );
        Err(Error::model(model, problem))
    }

    fn slot_of(&mut self, role: Role) -> &mut Option<Port> {
        match role {
            Role::Sample => &mut self.sample,
            Role::Sigma => &mut self.sigma,
            Role::Timestep => &mut self.timestep,
            Role::Condition => &mut self.condition,
            Role::Class => &mut self.class,
            Role::Mask => &mut self.mask,
            Role::Known => &mut self.known,
        }
    }

    /// Takes the image out of the rest, unless the description names it.
    fn find_image(&mut self, rest: &mut Vec<Port>, description: &Description) {
        if self.sample.is_some() || self.condition.is_some() {
            return;
        }
        let is_single = rest.len() == 1;
        let is_image = |port: &Port| {
            (matches!(port.shape.len(), 4 | 5) || is_flat(port))
                && port.element.is_of_images()
                && !port.is_number()
                && (is_single || !is_called(port, NOISE))
        };
        let colors = |port: &Port| matches!(channels_of(port, description.axes).1, Some(3 | 4));
        let order = |port: &Port| {
            (
                !is_called(port, NOISE) && !is_called(port, MASK),
                port.shape.len() > 3,
                colors(port),
                is_called(port, IMAGE),
            )
        };
        let best = (0..rest.len())
            .filter(|i| is_image(&rest[*i]))
            // The first of equals.
            .rev()
            .max_by_key(|i| order(&rest[*i]));
        self.sample = best.map(|i| rest.remove(i));
    }

    /// Takes recurrent states out of the rest: those that the description names; inputs with the
    /// shape and type of a further output; and others, if there is a further output for each, in
    /// their order.
    fn find_states(
        &mut self,
        rest: &mut Vec<Port>,
        outputs: &[Port],
        description: &Description,
        model: &str,
    ) -> Result<()> {
        let mut free: Vec<&Port> = outputs.iter().collect();
        for (input, output) in &description.states {
            let found = rest.iter().position(|port| port.name == *input);
            let given = free.iter().position(|port| port.name == *output);
            let (Some(i), Some(k)) = (found, given) else {
                let (what, name) =
                    if found.is_none() { ("input", input) } else { ("output", output) };
                let problem = format!("it has no {what} named `{name}` that may be a state");
                return Err(Error::model(model, problem));
            };
            self.states.push([rest.remove(i), free.remove(k).clone()]);
        }
        let Some(image) = self.image() else { return Ok(()) };
        if let Some(first) = image_outputs(outputs, image, description, &self.states).first() {
            free.retain(|port| port.name != first.name);
        }
        let image_shape = image.shape.clone();
        let is_state =
            |port: &Port| !port.is_number() && !is_called(port, NOISE) && !is_called(port, MASK);
        let is_equal = |a: &Port, b: &Port| (&a.shape, a.element) == (&b.shape, b.element);
        let fits = |a: &Port, b: &Port| {
            let mut sides = a.shape.iter().zip(&b.shape);
            a.element == b.element
                && a.shape.len() == b.shape.len()
                && sides.all(|(a, b)| *a < 0 || *b < 0 || a == b)
        };
        let states = &mut self.states;
        rest.retain(|port| {
            let like = free.iter().position(|other| is_state(port) && is_equal(port, other));
            like.inspect(|i| states.push([port.clone(), free.remove(*i).clone()])).is_none()
        });
        let others = rest.iter().filter(|port| {
            is_state(port)
                && port.rank_4().is_some()
                && !is_plane(port)
                && port.shape != image_shape
        });
        let mut pairs = Vec::new();
        for port in others {
            let Some(i) = free.iter().position(|other| fits(port, other)) else { return Ok(()) };
            pairs.push([port.clone(), free.remove(i).clone()]);
        }
        rest.retain(|port| pairs.iter().all(|[input, _]| input.name != port.name));
        states.extend(pairs);
        Ok(())
    }

    /// Takes the neighboring frames of a video out of the rest: an even number of images with the
    /// sample's shape and type. The middle one, in the order of the graph, is the sample.
    fn find_neighbors(&mut self, rest: &mut Vec<Port>, inputs: &[Port]) {
        let Some(sample) = &self.sample else { return };
        let like = |port: &Port| {
            (&port.shape, port.element) == (&sample.shape, sample.element)
                && !is_called(port, NOISE)
                && !is_called(port, MASK)
        };
        let names: Vec<String> = (rest.iter().filter(|port| like(port)))
            .chain([sample])
            .map(|port| port.name.clone())
            .collect();
        if names.len() < 3 || names.len().is_multiple_of(2) || self.condition.is_some() {
            return;
        }
        let frames = inputs.iter().filter(|port| names.contains(&port.name));
        let mut frames: Vec<Port> = frames.cloned().collect();
        rest.retain(|port| !names.contains(&port.name));
        let middle = frames.remove(frames.len() / 2);
        (self.sample, self.neighbors) = (Some(middle), frames);
    }

    /// The input that is the image.
    pub(super) fn image(&self) -> Option<&Port> {
        self.sample.as_ref().or(self.condition.as_ref())
    }
}

/// Whether a tensor has one channel, as a map has.
fn is_plane(port: &Port) -> bool {
    port.rank_4().is_some_and(|[_, second, _, last]| second == 1 || last == 1)
}

/// Whether a tensor may be an image without a batch: of few channels, or of none.
fn is_flat(port: &Port) -> bool {
    const LEAST: i64 = 16;
    match *port.shape.as_slice() {
        [first, _, last] => (1..=4).contains(&first) || (1..=4).contains(&last),
        [height, width] => [height, width].iter().all(|side| *side < 0 || *side >= LEAST),
        _ => false,
    }
}

/// The outputs that may be the image, those with its number of channels first.
pub(super) fn image_outputs(
    outputs: &[Port],
    image: &Port,
    description: &Description,
    states: &[[Port; 2]],
) -> Vec<Port> {
    if let Some(name) = &description.output {
        return outputs.iter().filter(|port| port.name == *name).cloned().collect();
    }
    let is_left = |port: &&Port| {
        port.element.is_of_images() && states.iter().all(|[_, it]| it.name != port.name)
    };
    let has_rank = |port: &&Port| matches!(port.shape.len(), 0 | 4);
    let mut found: Vec<Port> = outputs.iter().filter(is_left).filter(has_rank).cloned().collect();
    if found.is_empty() {
        found = outputs.iter().filter(is_left).filter(|port| is_flat(port)).cloned().collect();
    }
    let (axes, own) = channels_of(image, description.axes);
    found.sort_by_key(|port| match (own, channels_of(port, Some(axes)).1) {
        (Some(own), Some(given)) if own == given => 0,
        (None, Some(1 | 3)) | (Some(2), Some(1)) => 0,
        // With sigma as the last channel, or of several frames.
        (Some(4..), Some(3)) => 0,
        (_, None) => 1,
        _ => 2,
    });
    found
}

/// The order of an image's axes, and its number of channels if that is fixed.
pub(super) fn channels_of(port: &Port, description: Option<Axes>) -> (Axes, Option<usize>) {
    let (second, last) = match (port.rank_4(), port.shape.as_slice()) {
        (Some([_, second, _, last]), _) => (second, last),
        // The frames are an axis of their own.
        (None, &[_, _, channels, _, width]) => (channels, width),
        _ => return (Axes::Nchw, None),
    };
    let few = |length: i64| (1..=4).contains(&length);
    let axes =
        description.unwrap_or(if few(last) && !few(second) { Axes::Nhwc } else { Axes::Nchw });
    let channels = match axes {
        Axes::Nchw => second,
        Axes::Nhwc => last,
    };
    (axes, usize::try_from(channels).ok().filter(|channels| *channels > 0))
}

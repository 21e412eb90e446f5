//! The network of a stage with its conditions and its guidance, as the executor evaluates it.

use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array1, Array4, ArrayD, ArrayViewD, Axis, concatenate};

use super::bound_graph::{
    BoundGraph, Branch, Conditions, Names, control_inputs, names, names_of_inputs, stacked,
};
use crate::error::{Error, Result};
use crate::network::{Inputs, Network, Shape, TensorGraph};

/// How the outputs for several conditions become one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Branches {
    /// The condition alone.
    Single,
    /// The negative condition and the condition (Ho and Salimans 2022).
    ClassifierFree {
        /// `w` in `F = F_negative + w * (F - F_negative)`.
        scale: f64,
    },
    /// Text and image, image alone, and neither (Brooks et al. 2023, equation 3).
    TextAndImage {
        /// The scale of the text.
        scale: f64,
        /// The scale of the image.
        image: f64,
    },
}

impl Branches {
    /// The branches in the order of the batch.
    fn all(&self) -> &'static [Branch] {
        match self {
            Self::Single => &[Branch::Positive],
            Self::ClassifierFree { .. } => &[Branch::Negative, Branch::Positive],
            Self::TextAndImage { .. } => {
                &[Branch::Positive, Branch::Negative, Branch::WithoutImage]
            }
        }
    }

    /// The factor of each branch's output.
    fn factors(&self) -> Vec<f64> {
        match *self {
            Self::Single => vec![1.0],
            Self::ClassifierFree { scale } => vec![1.0 - scale, scale],
            Self::TextAndImage { scale, image } => vec![scale, image - scale, 1.0 - image],
        }
    }
}

/// The networks of a stage.
#[derive(Debug)]
pub(super) struct Networks {
    /// The denoiser.
    pub(super) main: TensorGraph,
    /// A ControlNet.
    pub(super) control: Option<TensorGraph>,
    /// Another denoiser for the last evaluation.
    pub(super) last: Option<TensorGraph>,
}

/// A ControlNet (Zhang et al. 2023).
#[derive(Debug)]
struct Control {
    bound: BoundGraph,
    names: Names,
    /// Its residuals, and the inputs of the network that take them.
    residuals: Vec<(String, String)>,
    /// The factor of its residuals.
    scale: f64,
}

/// A denoiser with its conditions.
#[derive(Debug)]
struct Denoiser {
    bound: BoundGraph,
    names: Names,
}

/// The network of a stage, its conditions bound, as one network of the state alone.
#[derive(Debug)]
pub(super) struct ConditionedNetwork {
    denoiser: Denoiser,
    /// Another one for the last evaluation.
    last: Option<Denoiser>,
    /// How many evaluations are left.
    left: usize,
    control: Option<Control>,
    branches: Branches,
    /// How many branches are evaluated at once.
    batch: usize,
    /// Timesteps without guidance.
    unguided: Vec<f64>,
    rescale: f64,
    /// What is concatenated to the state.
    concat: Option<Array4<f32>>,
    /// Whether a branch without the image has zeros there.
    guides_image: bool,
    timestep_factor: f64,
    packed: bool,
    shape: Shape,
    sample: Vec<f32>,
    output: Vec<f32>,
    /// The last output's channels after the state's, a learned variance, of the condition.
    variance: Arc<Mutex<Vec<f32>>>,
}

impl ConditionedNetwork {
    /// Binds the conditions of all branches to the inputs of the networks, by their names.
    /// `unguided` are the timesteps at which the prompt alone is evaluated, and `evaluations` are
    /// all that will be. To save memory, branches are evaluated one after the other, which gives
    /// the same values unless a network quantizes its activations by their range.
    ///
    /// # Errors
    /// [`Error::Model`] when a graph has an input that nothing is known for, or takes embeddings
    /// of another size; [`Error::Usage`] when a condition is missing.
    pub(super) fn new(
        Networks { main, control, last }: Networks,
        (branches, unguided): (Branches, Vec<f64>),
        conditions: &Conditions<'_>,
        (evaluations, saves_memory): (usize, bool),
    ) -> Result<Self> {
        let fused = ["controlnet_cond", "controlnet_conds"];
        let is_controlled =
            control.is_some() || fused.iter().any(|name| main.input(name).is_some());
        if conditions.control.is_some() && !is_controlled {
            return Err(Error::usage(format!(
                "{} has no ControlNet that a control image would be for; leave it out",
                main.model()
            )));
        }
        let has_residuals = control.is_some();
        let names_of_main = names(&main)?;
        let batch = batch_size(&main, &names_of_main, branches.all().len(), saves_memory);
        let mut batches: Vec<&[Branch]> = branches.all().chunks(batch).collect();
        if !unguided.is_empty() {
            batches.push(Branches::Single.all());
        }
        let denoiser = |graph: TensorGraph, has_residuals: bool| -> Result<Denoiser> {
            let names = names(&graph)?;
            let bound = BoundGraph::new(graph, &batches, conditions, &names, has_residuals)?;
            Ok(Denoiser { bound, names })
        };
        let denoiser_of_all = denoiser(main, has_residuals)?;
        let last = last.map(|graph| denoiser(graph, false)).transpose()?;
        let control = match control {
            None => None,
            Some(graph) => {
                let names = names_of_inputs(&graph)?;
                let bound = BoundGraph::new(graph, &batches, conditions, &names, false)?;
                // A scale within the graph is set with the other inputs.
                let scale = match bound.graph.input("conditioning_scale") {
                    Some(_) => 1.0,
                    None => conditions.control.as_ref().map_or(1.0, |(_, scale)| *scale),
                };
                let ports = bound.graph.outputs().iter();
                let outputs: Vec<String> = ports.map(|port| port.name.clone()).collect();
                let inputs = control_inputs(&denoiser_of_all.bound.graph, &outputs)?;
                let residuals = outputs.into_iter().zip(inputs).collect();
                Some(Control { bound, names, residuals, scale })
            }
        };
        Ok(Self {
            denoiser: denoiser_of_all,
            last,
            left: evaluations,
            control,
            branches,
            batch,
            unguided,
            rescale: 0.0,
            concat: conditions.concat.clone(),
            guides_image: conditions.image_is_guided,
            timestep_factor: 1.0,
            packed: false,
            shape: [0; 4],
            sample: Vec::new(),
            output: Vec::new(),
            variance: Arc::default(),
        })
    }

    /// This network with guidance rescaled (Lin et al. 2024, section 3.4), by `rescale` from 0 to
    /// 1.
    #[must_use]
    pub(super) fn rescaled(self, rescale: f64) -> Self {
        Self { rescale, ..self }
    }

    /// This network with the sampler's timestep multiplied by `factor`.
    #[must_use]
    pub(super) fn with_timestep_factor(self, factor: f64) -> Self {
        Self { timestep_factor: factor, ..self }
    }

    /// This network of patches in a row, `[1, h w / 4, 4 C]`, rather than of an image.
    #[must_use]
    pub(super) fn packed(self, packed: bool) -> Self {
        Self { packed, ..self }
    }

    /// The networks themselves, to bind other conditions to them.
    pub(super) fn into_networks(self) -> Networks {
        let graph = |it: Denoiser| it.bound.graph;
        let control = self.control.map(|control| control.bound.graph);
        Networks { main: graph(self.denoiser), control, last: self.last.map(graph) }
    }

    /// Where each evaluation puts what it says of the variance.
    pub(super) fn variance(&self) -> Arc<Mutex<Vec<f32>>> {
        Arc::clone(&self.variance)
    }

    /// The state of a batch of branches, `[branches, C, h, w]`.
    fn state(&self, batch: &[Branch]) -> Result<Array4<f32>> {
        let model = &self.denoiser.bound.graph;
        let sample = Array4::from_shape_vec(self.shape, self.sample.clone())
            .map_err(|cause| unequal(model, cause))?;
        let state = stacked(&vec![sample.view(); batch.len()])?;
        let Some(concat) = &self.concat else { return Ok(state) };
        let zeros = Array4::zeros(concat.dim());
        let of = |branch: &Branch| match branch {
            Branch::WithoutImage if self.guides_image => zeros.view(),
            _ => concat.view(),
        };
        let conditions: Vec<_> = batch.iter().map(of).collect();
        concatenate(Axis(1), &[state.view(), stacked(&conditions)?.view()])
            .map_err(|cause| unequal(model, cause))
    }
}

impl Network for ConditionedNetwork {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        self.shape = shape;
        self.sample = vec![0.0; shape.iter().product()];
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs { sample: &mut self.sample, sigma: None, condition: None, class: None }
    }

    fn evaluate(&mut self, t: f64) -> Result<&[f32]> {
        self.left = self.left.saturating_sub(1);
        let is_single = self.unguided.contains(&t);
        let branches = if is_single { Branches::Single } else { self.branches.clone() };
        let batches = branches.all().chunks(self.batch);
        let outputs: Vec<ArrayD<f32>> =
            batches.map(|batch| self.evaluate_batch(t, batch)).collect::<Result<_>>()?;
        self.combine(&outputs, &branches);
        Ok(&self.output)
    }
}

impl ConditionedNetwork {
    /// The output for these branches, `[branches, C, h, w]`.
    fn evaluate_batch(&mut self, t: f64, batch: &[Branch]) -> Result<ArrayD<f32>> {
        let count = batch.len();
        let state = self.state(batch)?;
        let denoiser = match &mut self.last {
            Some(last) if self.left == 0 => last,
            _ => &mut self.denoiser,
        };
        let Denoiser { bound, names } = denoiser;
        bound.select(batch);
        let graph = &mut bound.graph;
        // Some graphs take one for the whole batch.
        let takes_one = graph.input(&names.timestep).is_some_and(|it| it.shape == [1]);
        let timesteps = if takes_one { 1 } else { count };
        let timestep = Array1::from_elem(timesteps, (t * self.timestep_factor) as f32).into_dyn();
        let is_vector = graph.input(&names.sample).is_some_and(|it| it.shape.len() == 2);
        let state = if self.packed {
            pack(&state).into_dyn()
        } else if is_vector {
            state.index_axis_move(Axis(3), 0).index_axis_move(Axis(2), 0).into_dyn()
        } else {
            state.into_dyn()
        };
        let mut inputs: Vec<(String, ArrayD<f32>)> = Vec::new();
        if let Some(control) = &mut self.control {
            // A ControlNet sees the state alone.
            let own = state.slice_axis(Axis(1), (0..self.shape[1]).into());
            inputs = control.evaluate(batch, own, timestep.view())?;
        }
        inputs.push((names.sample.clone(), state));
        inputs.push((names.timestep.clone(), timestep));
        let feeds: Vec<_> =
            inputs.iter().map(|(name, value)| (name.as_str(), value.view())).collect();
        let output = graph.run(&feeds, &[&names.output])?;
        let output = output.into_iter().next().unwrap_or_default();
        let [_, channels, height, width] = self.shape;
        let patches = [count, (height / 2) * (width / 2), 4 * channels];
        let output = if self.packed {
            if output.shape() != patches {
                let problem = format!(
                    "its output `{}` is {:?}; expected patches of {patches:?}",
                    names.output,
                    output.shape()
                );
                return Err(Error::model(graph.model(), problem));
            }
            unpack(output, self.shape).into_dyn()
        } else if is_vector && output.ndim() == 2 {
            output.insert_axis(Axis(2)).insert_axis(Axis(3))
        } else {
            output
        };
        check_output(denoiser, output.shape(), count, [channels, height, width])?;
        Ok(output)
    }

    /// Combines the outputs of the branches, in batches.
    fn combine(&mut self, outputs: &[ArrayD<f32>], branches: &Branches) {
        let channels = self.shape[1];
        let factors = branches.factors();
        let branch_outputs = || outputs.iter().flat_map(|output| output.axis_iter(Axis(0)));
        self.output.clear();
        self.output.resize(self.sample.len(), 0.0);
        for (output, factor) in branch_outputs().zip(&factors) {
            let (own, factor) = (output.slice_axis(Axis(0), (0..channels).into()), *factor as f32);
            self.output.iter_mut().zip(own).for_each(|(sum, value)| *sum += factor * value);
        }
        let is_positive = |(_, branch): &(_, &Branch)| **branch == Branch::Positive;
        let positive = branch_outputs().zip(branches.all()).find(is_positive);
        let Some((positive, _)) = positive else { return };
        let (own, rest) = positive.split_at(Axis(0), channels);
        let mut variance = self.variance.lock().unwrap_or_else(PoisonError::into_inner);
        variance.clear();
        variance.extend(rest);
        drop(variance);
        if self.rescale > 0.0 && factors.len() > 1 {
            let with: Vec<f32> = own.iter().copied().collect();
            crate::diffusion::guidance::rescale(&mut self.output, &with, self.rescale);
        }
    }
}

impl Control {
    /// Its residuals of these branches, with the inputs that take them.
    fn evaluate(
        &mut self,
        batch: &[Branch],
        state: ArrayViewD<'_, f32>,
        timestep: ArrayViewD<'_, f32>,
    ) -> Result<Vec<(String, ArrayD<f32>)>> {
        let Self { bound, names, residuals, scale } = self;
        bound.select(batch);
        let outputs: Vec<&str> = residuals.iter().map(|(output, _)| output.as_str()).collect();
        let inputs = [(names.sample.as_str(), state), (&names.timestep, timestep)];
        let given = bound.graph.run(&inputs, &outputs)?;
        let scale = *scale as f32;
        let scaled = |residual: ArrayD<f32>| residual.mapv_into(|value| value * scale);
        let inputs = residuals.iter().map(|(_, input)| input.clone());
        Ok(inputs.zip(given.into_iter().map(scaled)).collect())
    }
}

/// How many of the branches a graph is evaluated with at once: as many as it was exported for, or
/// one to save memory, or all.
fn batch_size(graph: &TensorGraph, names: &Names, branches: usize, saves_memory: bool) -> usize {
    let declared = graph.input(&names.sample).and_then(|port| port.shape.first().copied());
    match declared.map(usize::try_from) {
        Some(Ok(1)) => 1,
        Some(Ok(_)) => branches,
        _ if saves_memory => 1,
        _ => branches,
    }
}

/// Checks that a network gave an output of the state's shape for each branch.
fn check_output(
    Denoiser { bound, names }: &Denoiser,
    output: &[usize],
    count: usize,
    [channels, height, width]: [usize; 3],
) -> Result<()> {
    let fits = matches!(*output, [batch, given, h, w] if batch == count
        && (given == channels || given == 2 * channels) && [h, w] == [height, width]);
    if fits {
        return Ok(());
    }
    let problem = format!(
        "its output `{}` is {output:?} for a state of {:?}; expected as many channels, or twice as \
         many with a learned variance",
        names.output,
        [count, channels, height, width]
    );
    Err(Error::model(bound.graph.model(), problem))
}

fn unequal(graph: &TensorGraph, cause: ndarray::ShapeError) -> Error {
    Error::model_from(graph.model(), "its conditions are of another size than its state", cause)
}

/// `[B, C, h, w]` as patches of 2x2 in a row, `[B, h w / 4, 4 C]`.
fn pack(state: &Array4<f32>) -> ndarray::Array3<f32> {
    let (batch, channels, height, width) = state.dim();
    let across = width / 2;
    ndarray::Array3::from_shape_fn(
        [batch, (height / 2) * across, 4 * channels],
        |(b, patch, value)| {
            let (channel, inside) = (value / 4, value % 4);
            let (y, x) = (2 * (patch / across) + inside / 2, 2 * (patch % across) + inside % 2);
            state[[b, channel, y, x]]
        },
    )
}

/// The inverse of [`pack`].
fn unpack(packed: ArrayD<f32>, [_, channels, height, width]: Shape) -> Array4<f32> {
    let batch = packed.shape().first().copied().unwrap_or(0);
    let across = width / 2;
    Array4::from_shape_fn([batch, channels, height, width], |(b, channel, y, x)| {
        let patch = (y / 2) * across + x / 2;
        let value = 4 * channel + 2 * (y % 2) + x % 2;
        packed[[b, patch, value]]
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ndarray::{Array3, Array4};

    use super::{Branches, ConditionedNetwork, Networks};
    use crate::error::Result;
    use crate::network::{Library, ModelSource, Network, Runtime, SessionOptions, TensorGraph};
    use crate::stages::bound_graph::Conditions;
    use crate::stages::text::{Embedding, Embeddings};

    const FOLDERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pipelines/text/folders");

    /// A value from -1 to 1 for each place.
    fn wave(at: usize, of: usize) -> f32 {
        ((at * 31 + of * 17) as f32 / 7.0).sin()
    }

    /// The outputs at a guided and at an unguided timestep.
    fn outputs(branches: Branches, saves_memory: bool) -> Result<[Vec<f32>; 2]> {
        let runtime = Runtime::load(&Library::Embedded)?;
        let file = Path::new(FOLDERS).join("sd15/unet/model.onnx");
        let main = TensorGraph::open(
            &runtime,
            "sd15",
            ModelSource::File(&file),
            SessionOptions::default(),
        )?;
        let features = main.input("encoder_hidden_states").and_then(|it| it.shape.last().copied());
        let features = features.and_then(|it| usize::try_from(it).ok()).unwrap_or(32);
        let embedding = |of: usize| {
            let value = |(_, token, feature)| wave(token * features + feature, of);
            let sequence = Array3::from_shape_fn([1, 77, features], value);
            Embedding { sequence, pooled: None, mask: None }
        };
        let (positive, negative) = (embedding(1), embedding(2));
        let text = Embeddings { positive, negative, truncated: Vec::new(), unknown: Vec::new() };
        let conditions = Conditions { text: Some(&text), ..Conditions::default() };
        let networks = Networks { main, control: None, last: None };
        let run = (2, saves_memory);
        let guided = (branches, vec![500.0]);
        let mut network =
            ConditionedNetwork::new(networks, guided, &conditions, run)?.rescaled(0.5);
        let shape = [1, 4, 16, 16];
        network.bind(shape)?;
        let state = Array4::from_shape_fn(shape, |(_, c, y, x)| wave(x + 16 * y + 256 * c, 3));
        let mut evaluate = |t| -> Result<Vec<f32>> {
            network.inputs().sample.copy_from_slice(state.as_slice().unwrap_or_default());
            network.evaluate(t).map(<[f32]>::to_vec)
        };
        Ok([evaluate(900.0)?, evaluate(500.0)?])
    }

    #[test]
    fn branches_give_the_same_one_after_the_other() -> Result<()> {
        let guided = |scale| Branches::ClassifierFree { scale };
        let by_both = Branches::TextAndImage { scale: 7.5, image: 1.5 };
        for branches in [guided(7.5), guided(-2.0), by_both] {
            let [together, single] = outputs(branches.clone(), false)?;
            let [apart, single_apart] = outputs(branches, true)?;
            assert_ne!(together, single, "guidance changes nothing");
            assert_eq!(single, single_apart);
            for (a, b) in together.iter().zip(&apart) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
        Ok(())
    }
}

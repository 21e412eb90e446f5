//! The network of a stage with its conditions and its guidance, as the executor evaluates it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array1, Array2, Array4, ArrayD, ArrayViewD, Axis, concatenate};

use super::text::Embeddings;
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

/// Which condition a branch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    Positive,
    Negative,
    /// The negative prompt and an image of zeros.
    WithoutImage,
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

/// What the inputs of a network hold beside the state.
#[derive(Debug, Default)]
pub(super) struct Conditions<'a> {
    /// The embeddings of the prompts.
    pub(super) text: Option<&'a Embeddings>,
    /// What is concatenated to the state, `[1, C, h, w]`.
    pub(super) concat: Option<Array4<f32>>,
    /// Whether a branch without the image has zeros there.
    pub(super) image_is_guided: bool,
    /// Further inputs by name, for the prompt and for the negative prompt.
    pub(super) named: BTreeMap<String, [ArrayD<f32>; 2]>,
    /// Sizes and scores of the prompt and of the negative prompt.
    pub(super) time_ids: Option<[Vec<f32>; 2]>,
    /// A class or the level of a condition's noise.
    pub(super) label: Option<f32>,
    /// The guidance scale, for networks that take it.
    pub(super) guidance: Option<f64>,
    /// Width and height of the image.
    pub(super) size: [usize; 2],
    /// The image that a ControlNet follows, `[1, 3, H, W]` from 0 to 1, and the factor of its
    /// residuals.
    pub(super) control: Option<(Array4<f32>, f64)>,
    /// Height and width of a state whose patches are numbered (Flux).
    pub(super) positions: Option<[usize; 2]>,
}

/// A ControlNet (Zhang et al. 2023).
#[derive(Debug)]
struct Control {
    graph: TensorGraph,
    names: Names,
    /// Its residuals, and the inputs of the network that take them.
    residuals: Vec<(String, String)>,
    /// The factor of its residuals.
    scale: f64,
}

/// The network of a stage, its conditions bound, as one network of the state alone.
#[derive(Debug)]
pub(super) struct ConditionedNetwork {
    graph: TensorGraph,
    /// Another network for the last of so many evaluations.
    last: Option<(TensorGraph, usize)>,
    control: Option<Control>,
    branches: Branches,
    rescale: f64,
    /// What is concatenated to the state in each branch.
    concat: Option<Vec<Array4<f32>>>,
    names: Names,
    timestep_factor: f64,
    packed: bool,
    shape: Shape,
    sample: Vec<f32>,
    output: Vec<f32>,
    /// The last output's channels after the state's, a learned variance, of the condition.
    variance: Arc<Mutex<Vec<f32>>>,
}

/// The names of what changes from step to step.
#[derive(Debug)]
struct Names {
    sample: String,
    timestep: String,
    output: String,
}

impl ConditionedNetwork {
    /// Binds the conditions of all branches to the inputs of `graph`, by their names.
    ///
    /// # Errors
    /// [`Error::Model`] when the graph has an input that nothing is known for, or takes embeddings
    /// of another size; [`Error::Usage`] when a condition is missing.
    pub(super) fn new(
        mut graph: TensorGraph,
        control: Option<TensorGraph>,
        branches: Branches,
        conditions: &Conditions<'_>,
    ) -> Result<Self> {
        let names = names(&graph)?;
        let all = branches.all();
        let guides_image = conditions.image_is_guided;
        let concat = conditions.concat.as_ref().map(|concat| {
            let of = |branch: &Branch| match branch {
                Branch::WithoutImage if guides_image => Array4::zeros(concat.dim()),
                _ => concat.clone(),
            };
            all.iter().map(of).collect()
        });
        bind(&mut graph, all, conditions, &names, control.is_some())?;
        let fused = ["controlnet_cond", "controlnet_conds"];
        let is_controlled =
            control.is_some() || fused.iter().any(|name| graph.input(name).is_some());
        if conditions.control.is_some() && !is_controlled {
            return Err(Error::usage(format!(
                "{} has no ControlNet that a control image would be for; leave it out",
                graph.model()
            )));
        }
        let control = match control {
            None => None,
            Some(mut control) => {
                let names = names_of_inputs(&control)?;
                bind(&mut control, all, conditions, &names, false)?;
                // A scale within the graph is set with the other inputs.
                let scale = match control.input("conditioning_scale") {
                    Some(_) => 1.0,
                    None => conditions.control.as_ref().map_or(1.0, |(_, scale)| *scale),
                };
                let outputs: Vec<String> =
                    control.outputs().iter().map(|port| port.name.clone()).collect();
                let inputs = control_inputs(&graph, &outputs)?;
                let residuals = outputs.into_iter().zip(inputs).collect();
                Some(Control { graph: control, names, residuals, scale })
            }
        };
        Ok(Self {
            graph,
            last: None,
            control,
            branches,
            rescale: 0.0,
            concat,
            names,
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

    /// This network with another one for the last of `evaluations`.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub(super) fn with_last(
        mut self,
        last: Option<TensorGraph>,
        conditions: &Conditions<'_>,
        evaluations: usize,
    ) -> Result<Self> {
        if let Some(mut graph) = last {
            let its = names(&graph)?;
            bind(&mut graph, self.branches.all(), conditions, &its, false)?;
            self.last = Some((graph, evaluations));
        }
        Ok(self)
    }

    /// The network itself, to bind other conditions to it.
    pub(super) fn into_graph(self) -> TensorGraph {
        self.graph
    }

    /// Where each evaluation puts what it says of the variance.
    pub(super) fn variance(&self) -> Arc<Mutex<Vec<f32>>> {
        Arc::clone(&self.variance)
    }

    /// The state of all branches, `[branches, C, h, w]`.
    fn state(&self) -> Result<Array4<f32>> {
        let [_, channels, height, width] = self.shape;
        let sample = Array4::from_shape_vec([1, channels, height, width], self.sample.clone())
            .map_err(|cause| unequal(&self.graph, cause))?;
        let views = vec![sample.view(); self.branches.all().len()];
        let state = stacked(&views)?;
        let Some(concat) = &self.concat else { return Ok(state) };
        let conditions: Vec<_> = concat.iter().map(|it| it.view()).collect();
        concatenate(Axis(1), &[state.view(), stacked(&conditions)?.view()])
            .map_err(|cause| unequal(&self.graph, cause))
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
        if let Some((graph, left)) = &mut self.last {
            *left = left.saturating_sub(1);
            if *left == 0 {
                std::mem::swap(graph, &mut self.graph);
                self.names = names(&self.graph)?;
            }
        }
        let count = self.branches.all().len();
        let state = self.state()?;
        // Some graphs take one for the whole batch.
        let is_single = self.graph.input(&self.names.timestep).is_some_and(|it| it.shape == [1]);
        let timesteps = if is_single { 1 } else { count };
        let timestep = Array1::from_elem(timesteps, (t * self.timestep_factor) as f32).into_dyn();
        let is_vector = self.graph.input(&self.names.sample).is_some_and(|it| it.shape.len() == 2);
        let state = if self.packed {
            pack(&state).into_dyn()
        } else if is_vector {
            state.index_axis_move(Axis(3), 0).index_axis_move(Axis(2), 0).into_dyn()
        } else {
            state.into_dyn()
        };
        let mut inputs: Vec<(String, ArrayD<f32>)> = Vec::new();
        if let Some(control) = &mut self.control {
            let Control { graph, names, residuals, scale } = control;
            // A ControlNet sees the state alone.
            let channels = self.shape[1];
            let own = state.slice_axis(Axis(1), (0..channels).into());
            let outputs: Vec<&str> = residuals.iter().map(|(output, _)| output.as_str()).collect();
            let given =
                graph.run(&[(&names.sample, own), (&names.timestep, timestep.view())], &outputs)?;
            let scale = *scale as f32;
            for ((_, input), mut residual) in residuals.iter().zip(given) {
                residual.mapv_inplace(|value| value * scale);
                inputs.push((input.clone(), residual));
            }
        }
        inputs.push((self.names.sample.clone(), state));
        inputs.push((self.names.timestep.clone(), timestep));
        let feeds: Vec<_> =
            inputs.iter().map(|(name, value)| (name.as_str(), value.view())).collect();
        let output = self.graph.run(&feeds, &[&self.names.output])?;
        let output = output.into_iter().next().unwrap_or_default();
        let [_, channels, height, width] = self.shape;
        let patches = [count, (height / 2) * (width / 2), 4 * channels];
        let output = if self.packed {
            if output.shape() != patches {
                let problem = format!(
                    "its output `{}` is {:?}; expected patches of {patches:?}",
                    self.names.output,
                    output.shape()
                );
                return Err(Error::model(self.graph.model(), problem));
            }
            unpack(output, self.shape).into_dyn()
        } else if is_vector && output.ndim() == 2 {
            output.insert_axis(Axis(2)).insert_axis(Axis(3))
        } else {
            output
        };
        self.combine(output)?;
        Ok(&self.output)
    }
}

impl ConditionedNetwork {
    /// Combines the outputs of the branches.
    fn combine(&mut self, output: ArrayD<f32>) -> Result<()> {
        let [_, channels, height, width] = self.shape;
        let count = self.branches.all().len();
        let fits = |found: &[usize]| {
            matches!(*found, [batch, given, h, w] if batch == count
                && (given == channels || given == 2 * channels) && [h, w] == [height, width])
        };
        if !fits(output.shape()) {
            let problem = format!(
                "its output `{}` is {:?} for a state of {:?}; expected as many channels, or twice \
                 as many with a learned variance",
                self.names.output,
                output.shape(),
                [count, channels, height, width]
            );
            return Err(Error::model(self.graph.model(), problem));
        }
        let factors = self.branches.factors();
        let channel = |range: Range<usize>| output.slice_axis(Axis(1), range.into());
        let (own, rest) = (channel(0..channels), channel(channels..output.shape()[1]));
        self.output.clear();
        self.output.resize(self.sample.len(), 0.0);
        for (branch, factor) in own.axis_iter(Axis(0)).zip(&factors) {
            let factor = *factor as f32;
            self.output.iter_mut().zip(branch).for_each(|(sum, value)| *sum += factor * value);
        }
        let positive = self.branches.all().iter().position(|it| *it == Branch::Positive);
        let positive = positive.unwrap_or(0);
        let mut variance = self.variance.lock().unwrap_or_else(PoisonError::into_inner);
        variance.clear();
        variance.extend(rest.index_axis(Axis(0), positive));
        drop(variance);
        if self.rescale > 0.0 && count > 1 {
            let with: Vec<f32> = own.index_axis(Axis(0), positive).iter().copied().collect();
            crate::diffusion::guidance::rescale(&mut self.output, &with, self.rescale);
        }
        Ok(())
    }
}

fn unequal(graph: &TensorGraph, cause: ndarray::ShapeError) -> Error {
    Error::model_from(graph.model(), "its conditions are of another size than its state", cause)
}

fn stacked(views: &[ndarray::ArrayView4<'_, f32>]) -> Result<Array4<f32>> {
    concatenate(Axis(0), views)
        .map_err(|cause| Error::evaluation(format!("branches differ in their sizes: {cause}")))
}

/// Names of the state among the inputs of denoising networks.
const SAMPLES: [&str; 3] = ["sample", "hidden_states", "latent_model_input"];
const TIMESTEPS: [&str; 2] = ["timestep", "t"];
const OUTPUTS: [&str; 4] = ["out_sample", "out_hidden_states", "noise_pred", "sample"];

fn names(graph: &TensorGraph) -> Result<Names> {
    let Names { sample, timestep, .. } = names_of_inputs(graph)?;
    let output = OUTPUTS.into_iter().find(|name| graph.outputs().iter().any(|it| it.name == *name));
    let output = output.map(str::to_owned).or_else(|| match graph.outputs() {
        [only] => Some(only.name.clone()),
        _ => None,
    });
    let output = output.ok_or_else(|| missing(graph, "output", &OUTPUTS))?;
    Ok(Names { sample, timestep, output })
}

fn names_of_inputs(graph: &TensorGraph) -> Result<Names> {
    let find = |names: &[&str]| {
        let found = names.iter().find(|name| graph.input(name).is_some());
        found.map(|name| (*name).to_owned()).ok_or_else(|| missing(graph, "input", names))
    };
    Ok(Names { sample: find(&SAMPLES)?, timestep: find(&TIMESTEPS)?, output: String::new() })
}

fn missing(graph: &TensorGraph, way: &str, names: &[&str]) -> Error {
    let ports = if way == "input" { graph.inputs() } else { graph.outputs() };
    let present: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let problem =
        format!("it has no {way} named {}; it has {}", names.join(" or "), present.join(", "));
    Error::model(graph.model(), problem)
}

/// The inputs for a ControlNet's outputs, in order.
fn control_inputs(graph: &TensorGraph, outputs: &[String]) -> Result<Vec<String>> {
    let mut down: Vec<&str> = graph
        .inputs()
        .iter()
        .map(|port| port.name.as_str())
        .filter(|name| name.starts_with("down_block"))
        .collect();
    let number = |name: &str| -> usize {
        let digits: String = name.chars().rev().take_while(char::is_ascii_digit).collect();
        digits.chars().rev().collect::<String>().parse().unwrap_or(0)
    };
    down.sort_by_key(|name| number(name));
    let middle = graph.inputs().iter().find(|port| port.name.starts_with("mid_block"));
    let mut down = down.into_iter();
    let inputs: Option<Vec<String>> = outputs
        .iter()
        .map(|output| {
            let name = if output.contains("mid_block") {
                middle.map(|port| port.name.as_str())
            } else {
                down.next()
            };
            name.map(str::to_owned)
        })
        .collect();
    inputs.ok_or_else(|| {
        let problem = "it takes fewer residuals than the ControlNet gives; export it with inputs \
                       down_block_additional_residuals.N and mid_block_additional_residual";
        Error::model(graph.model(), problem)
    })
}

/// Sets what is equal in all steps.
fn bind(
    graph: &mut TensorGraph,
    branches: &[Branch],
    conditions: &Conditions<'_>,
    names: &Names,
    is_controlled: bool,
) -> Result<()> {
    let of_text = |of: fn(&super::text::Embedding) -> Option<ArrayViewD<'_, f32>>| {
        let text = conditions.text?;
        let parts: Option<Vec<_>> = branches
            .iter()
            .map(|branch| match branch {
                Branch::Positive => of(&text.positive),
                Branch::Negative | Branch::WithoutImage => of(&text.negative),
            })
            .collect();
        concatenate(Axis(0), &parts?).ok()
    };
    let count = branches.len();
    let inputs: Vec<(String, Vec<i64>)> =
        graph.inputs().iter().map(|port| (port.name.clone(), port.shape.clone())).collect();
    for (name, declared) in inputs {
        if name == names.sample || name == names.timestep {
            continue;
        }
        if let Some([positive, negative]) = conditions.named.get(&name) {
            let of = |branch: &Branch| match branch {
                Branch::Positive => positive.view(),
                Branch::Negative | Branch::WithoutImage => negative.view(),
            };
            let rows: Vec<_> = branches.iter().map(of).collect();
            let rows = concatenate(Axis(0), &rows).map_err(|cause| {
                let problem = format!("its input `{name}` has another size without guidance");
                Error::model_from(graph.model(), problem, cause)
            })?;
            graph.set(&name, rows.view())?;
            continue;
        }
        let value: Option<ArrayD<f32>> = match name.as_str() {
            "encoder_hidden_states" => of_text(|it| Some(it.sequence.view().into_dyn())),
            "encoder_attention_mask" | "attention_mask" => {
                of_text(|it| it.mask.as_ref().map(|mask| mask.view().into_dyn()))
            }
            "text_embeds" | "pooled_projections" | "proj_embedding" => {
                of_text(|it| it.pooled.as_ref().map(|pooled| pooled.view().into_dyn()))
            }
            "time_ids" => conditions.time_ids.as_ref().map(|[positive, negative]| {
                let of = |branch: &Branch| match branch {
                    Branch::Positive => positive,
                    _ => negative,
                };
                Array2::from_shape_fn([count, positive.len()], |(row, column)| {
                    of(&branches[row])[column]
                })
                .into_dyn()
            }),
            "timestep_cond" => conditions.guidance.map(|guidance| {
                let width = declared.last().copied().and_then(|it| usize::try_from(it).ok());
                // More is no width that a network could have.
                let width = width.unwrap_or(256).min(65_536);
                let row = guidance_embedding(guidance - 1.0, width);
                Array2::from_shape_fn([count, row.len()], |(_, i)| row[i]).into_dyn()
            }),
            "guidance" => conditions
                .guidance
                .map(|guidance| Array1::from_elem(count, guidance as f32).into_dyn()),
            "class_labels" => {
                conditions.label.map(|label| Array1::from_elem(count, label).into_dyn())
            }
            "controlnet_cond" | "controlnet_conds" => {
                let (image, _) = conditions.control.as_ref().ok_or_else(|| {
                    let model = graph.model();
                    Error::usage(format!("{model} follows a control image, and none was given"))
                })?;
                let images = stacked(&vec![image.view(); count])?.into_dyn();
                // A fused graph has an axis of ControlNets in front.
                Some(if declared.len() == 5 { images.insert_axis(Axis(0)) } else { images })
            }
            "conditioning_scale" | "conditioning_scales" => conditions
                .control
                .as_ref()
                .map(|(_, scale)| ArrayD::from_elem(vec![1; declared.len()], *scale as f32)),
            "resolution" => {
                let [width, height] = conditions.size.map(|side| side as f32);
                let side = |column| if column == 0 { height } else { width };
                Some(Array2::from_shape_fn([count, 2], |(_, column)| side(column)).into_dyn())
            }
            "aspect_ratio" => {
                let [width, height] = conditions.size.map(|side| side as f32);
                Some(Array2::from_elem([count, 1], height / width).into_dyn())
            }
            _ if is_controlled && is_residual(&name) => continue,
            "img_ids" => conditions
                .positions
                .map(|[height, width]| image_positions(height, width).into_dyn()),
            "txt_ids" => conditions
                .text
                .map(|text| Array2::zeros([text.positive.sequence.len_of(Axis(1)), 3]).into_dyn()),
            other => {
                let problem = if is_residual(other) {
                    format!("its input `{other}` is a ControlNet's, and the folder has none")
                } else {
                    format!(
                        "its input `{other}` is none that Eddy has a value for in this kind of \
                         pipeline"
                    )
                };
                return Err(Error::model(graph.model(), problem));
            }
        };
        let value = value.ok_or_else(|| {
            let problem = format!(
                "its input `{name}` has no value: this pipeline's text encoders or its \
                 configuration do not give one"
            );
            Error::model(graph.model(), problem)
        })?;
        graph.set(&name, value.view())?;
    }
    Ok(())
}

fn is_residual(name: &str) -> bool {
    name.starts_with("down_block") || name.starts_with("mid_block")
}

/// The sinusoids of a guidance scale (Meng et al. 2023; as in VDM's timesteps).
fn guidance_embedding(scale: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000_f64.ln() / (half.saturating_sub(1).max(1)) as f64;
    let angle = |i: usize| 1000.0 * scale * (-step * i as f64).exp();
    let sines = (0..half).map(|i| angle(i).sin() as f32);
    let mut row: Vec<f32> = sines.chain((0..half).map(|i| angle(i).cos() as f32)).collect();
    row.resize(width, 0.0);
    row
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

/// The positions of packed patches, `[patches, 3]`.
fn image_positions(height: usize, width: usize) -> Array2<f32> {
    let across = width / 2;
    Array2::from_shape_fn([(height / 2) * across, 3], |(patch, axis)| match axis {
        1 => (patch / across) as f32,
        2 => (patch % across) as f32,
        _ => 0.0,
    })
}

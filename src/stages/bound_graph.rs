//! The conditions of a stage on the inputs of its networks, by the inputs' names.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, Array4, ArrayD, ArrayViewD, Axis, concatenate};

use super::text::Embeddings;
use crate::error::{Error, Result};
use crate::network::{ConstantInputs, TensorGraph};

/// Which condition a branch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Branch {
    Positive,
    Negative,
    /// The negative prompt and an image of zeros.
    WithoutImage,
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
    /// A class or the level of a condition's noise, of the prompt and of the negative prompt.
    pub(super) label: Option<[f32; 2]>,
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

/// The names of what changes from step to step.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) sample: String,
    pub(super) timestep: String,
    pub(super) output: String,
}

/// A graph with the conditions of a batch of branches on its inputs.
#[derive(Debug)]
pub(super) struct BoundGraph {
    pub(super) graph: TensorGraph,
    /// The branches whose conditions the graph has.
    selected: Vec<Branch>,
    /// The conditions of the other batches.
    others: Vec<(Vec<Branch>, ConstantInputs)>,
}

impl BoundGraph {
    /// Binds the conditions of each of these batches to `graph`.
    ///
    /// # Errors
    /// As for [`bind`].
    pub(super) fn new(
        graph: TensorGraph,
        batches: &[&[Branch]],
        conditions: &Conditions<'_>,
        names: &Names,
        is_controlled: bool,
    ) -> Result<Self> {
        let mut bound = Self { graph, selected: Vec::new(), others: Vec::new() };
        for batch in batches {
            if !bound.select(batch) {
                let constants = bound.graph.take_constants();
                if !bound.selected.is_empty() {
                    bound.others.push((std::mem::take(&mut bound.selected), constants));
                }
                bind(&mut bound.graph, batch, conditions, names, is_controlled)?;
                bound.selected = batch.to_vec();
            }
        }
        Ok(bound)
    }

    /// Selects the conditions of this batch, and says whether there are any.
    pub(super) fn select(&mut self, batch: &[Branch]) -> bool {
        if self.selected == batch {
            return true;
        }
        let found = self.others.iter_mut().find(|(other, _)| other == batch);
        let Some((other, constants)) = found else { return false };
        self.graph.swap_constants(constants);
        std::mem::swap(&mut self.selected, other);
        true
    }
}

/// Images of one size as one batch.
///
/// # Errors
/// [`Error::Evaluation`] when their sizes differ.
pub(super) fn stacked(views: &[ndarray::ArrayView4<'_, f32>]) -> Result<Array4<f32>> {
    concatenate(Axis(0), views)
        .map_err(|cause| Error::evaluation(format!("branches differ in their sizes: {cause}")))
}

/// Names of the state among the inputs of denoising networks.
pub(crate) const SAMPLES: [&str; 3] = ["sample", "hidden_states", "latent_model_input"];
pub(crate) const TIMESTEPS: [&str; 2] = ["timestep", "t"];
pub(crate) const OUTPUTS: [&str; 4] = ["out_sample", "out_hidden_states", "noise_pred", "sample"];

/// The names of a denoising network.
///
/// # Errors
/// [`Error::Model`] when it has none of the usual ones.
pub(super) fn names(graph: &TensorGraph) -> Result<Names> {
    let Names { sample, timestep, .. } = names_of_inputs(graph)?;
    let output = OUTPUTS.into_iter().find(|name| graph.outputs().iter().any(|it| it.name == *name));
    let output = output.map(str::to_owned).or_else(|| match graph.outputs() {
        [only] => Some(only.name.clone()),
        _ => None,
    });
    let output = output.ok_or_else(|| missing(graph, "output", &OUTPUTS))?;
    Ok(Names { sample, timestep, output })
}

/// The names of a network that gives residuals.
///
/// # Errors
/// As for [`names`].
pub(super) fn names_of_inputs(graph: &TensorGraph) -> Result<Names> {
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
///
/// # Errors
/// [`Error::Model`] when there are too few.
pub(super) fn control_inputs(graph: &TensorGraph, outputs: &[String]) -> Result<Vec<String>> {
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
                // A network does not have a larger width.
                let width = width.unwrap_or(256).min(65_536);
                let row = guidance_embedding(guidance - 1.0, width);
                Array2::from_shape_fn([count, row.len()], |(_, i)| row[i]).into_dyn()
            }),
            "guidance" => conditions
                .guidance
                .map(|guidance| Array1::from_elem(count, guidance as f32).into_dyn()),
            "class_labels" => conditions.label.map(|[positive, negative]| {
                let of = |branch: &Branch| match branch {
                    Branch::Positive => positive,
                    Branch::Negative | Branch::WithoutImage => negative,
                };
                branches.iter().map(of).collect::<Array1<f32>>().into_dyn()
            }),
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
                        "its input `{other}` has no value that Eddy knows in this kind of \
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
pub(crate) fn guidance_embedding(scale: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000_f64.ln() / (half.saturating_sub(1).max(1)) as f64;
    let angle = |i: usize| 1000.0 * scale * (-step * i as f64).exp();
    let sines = (0..half).map(|i| angle(i).sin() as f32);
    let mut row: Vec<f32> = sines.chain((0..half).map(|i| angle(i).cos() as f32)).collect();
    row.resize(width, 0.0);
    row
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

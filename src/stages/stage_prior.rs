//! What a stage takes of the embedding that the one before sampled.

use std::collections::BTreeMap;

use ndarray::{Array2, Array4, ArrayD, Axis, concatenate};
use ndarray_npy::ReadNpyExt;

use super::network_pool::NetworkPool;
use super::spec::PriorConditioning;
use super::stage::StageRun;
use crate::error::{Error, Result};
use crate::network::TensorGraph;

/// Inputs by name, for the prompt and for the negative prompt.
type Named = BTreeMap<String, [ArrayD<f32>; 2]>;

impl StageRun<'_> {
    /// What a network was trained on normalized values of, in its own units.
    pub(super) fn denormalized(
        &self,
        mut sampled: Array4<f32>,
        files: &[String; 2],
    ) -> Result<Array4<f32>> {
        let channels = sampled.dim().1;
        let read = |file: &String| self.vector(file, channels);
        let (mean, deviation) = (read(&files[0])?, read(&files[1])?);
        for (channel, mut values) in sampled.axis_iter_mut(Axis(1)).enumerate() {
            values.mapv_inplace(|value| value * deviation[channel] + mean[channel]);
        }
        Ok(sampled)
    }

    /// The vector in a `.npy` file of the folder.
    fn vector(&self, file: &str, length: usize) -> Result<Vec<f32>> {
        const LARGEST: u64 = 1 << 20;
        let failed = |cause: crate::error::Cause| {
            let problem = format!("its {file} cannot be read; it scales what a stage samples");
            Error::Model { model: self.folder.to_string(), problem, source: Some(cause) }
        };
        let bytes = self.folder.read(file, LARGEST).map_err(|cause| failed(cause.into()))?;
        let values =
            ArrayD::<f32>::read_npy(bytes.as_slice()).map_err(|cause| failed(cause.into()))?;
        let values: Vec<f32> = values.into_iter().collect();
        if values.len() != length {
            let found = values.len();
            return Err(self.error(format!("its {file} has {found} values; expected {length}")));
        }
        Ok(values)
    }

    /// What the stage takes of the embedding that the one before sampled.
    pub(super) fn named(&self, pool: &mut NetworkPool) -> Result<Named> {
        let embedding = |row: usize| -> Result<Array2<f32>> {
            let before = self.before.filter(|it| it.dim().2 == 1 && it.dim().3 == 1);
            let before = before.ok_or_else(|| {
                self.error("a stage takes the embedding of an image, and none comes before it")
            })?;
            Ok(Array2::from_shape_fn([1, before.dim().1], |(_, i)| before[[row, i, 0, 0]]))
        };
        match &self.stage.prior {
            PriorConditioning::Nothing => Ok(Named::new()),
            // The second row is that of the negative prompt.
            PriorConditioning::ImageEmbedding { .. }
                if self.before.is_some_and(|before| before.dim().0 == 2) =>
            {
                let embeddings = [embedding(0)?.into_dyn(), embedding(1)?.into_dyn()];
                Ok(Named::from([("image_embeds".to_owned(), embeddings)]))
            }
            PriorConditioning::ImageEmbedding { encoder, size } => {
                let mut graph = pool.graph(encoder)?;
                let black = Array4::<f32>::zeros([1, 3, *size, *size]);
                let (input, output) = (
                    graph.inputs().first().map(|port| port.name.clone()).unwrap_or_default(),
                    graph.outputs().first().map(|port| port.name.clone()).unwrap_or_default(),
                );
                let given = graph.run(&[(&input, black.view().into_dyn())], &[&output])?;
                pool.give_back(encoder, graph);
                let unguided = given.into_iter().next().unwrap_or_default();
                let embeddings = [embedding(0)?.into_dyn(), unguided];
                Ok(Named::from([("image_embeds".to_owned(), embeddings)]))
            }
            PriorConditioning::Projection { network } => {
                let mut graph = pool.graph(network)?;
                let named = self.projected(&mut graph, embedding(0)?)?;
                pool.give_back(network, graph);
                Ok(named)
            }
        }
    }

    /// Tokens and an embedding of time of the embeddings of an image and of both prompts. The graph
    /// doubles the image's for the negative prompt.
    fn projected(&self, graph: &mut TensorGraph, embedding: Array2<f32>) -> Result<Named> {
        let text = self.embedded;
        let pooled = |it: &super::Embedding| it.pooled.clone().map(Array2::into_dyn);
        let pooled = [pooled(&text.negative), pooled(&text.positive)];
        let [Some(negative), Some(positive)] = pooled else {
            return Err(Error::model(graph.model(), "the text encoder gives no pooled embedding"));
        };
        let both = |rows: [ndarray::ArrayViewD<'_, f32>; 2]| {
            concatenate(Axis(0), &rows).map_err(|cause| {
                Error::model_from(graph.model(), "the prompts' embeddings differ in size", cause)
            })
        };
        let pooled = both([negative.view(), positive.view()])?;
        let sequences = [&text.negative.sequence, &text.positive.sequence];
        let sequence = both(sequences.map(|sequence| sequence.view().into_dyn()))?;
        let inputs = [
            ("image_embeddings", embedding.view().into_dyn()),
            ("prompt_embeds", pooled.view()),
            ("text_encoder_hidden_states", sequence.view()),
        ];
        let names = ["encoder_hidden_states", "additive_clip_time_embeddings"];
        let given = graph.run(&inputs, &names)?;
        let split = |array: &ArrayD<f32>| -> Result<[ArrayD<f32>; 2]> {
            if array.shape().first() != Some(&2) || array.ndim() < 2 {
                let problem = "it gives no embeddings for both prompts; export it with guidance";
                return Err(Error::model(graph.model(), problem));
            }
            let row = |i: usize| array.slice_axis(Axis(0), (i..i + 1).into()).to_owned();
            Ok([row(1), row(0)])
        };
        let [tokens, time] = given.as_slice() else {
            return Err(Error::model(graph.model(), "it gives too few outputs"));
        };
        let tokens = split(tokens)?;
        if tokens[0].ndim() != 3 {
            let problem = "its encoder_hidden_states are no sequence of embeddings";
            return Err(Error::model(graph.model(), problem));
        }
        // What is put in front of the text's tokens is not padding.
        let mask = |it: &super::Embedding, tokens: &ArrayD<f32>| {
            let own = it.mask.clone().unwrap_or_default();
            let more = tokens.shape()[1].saturating_sub(own.dim().1);
            let shape = [1, more + own.dim().1];
            let value = |(_, i): (usize, usize)| if i < more { 1.0 } else { own[[0, i - more]] };
            Array2::from_shape_fn(shape, value).into_dyn()
        };
        let masks = [mask(&text.positive, &tokens[0]), mask(&text.negative, &tokens[1])];
        Ok(Named::from([
            ("encoder_hidden_states".to_owned(), tokens),
            ("class_labels".to_owned(), split(time)?),
            ("attention_mask".to_owned(), masks),
        ]))
    }
}

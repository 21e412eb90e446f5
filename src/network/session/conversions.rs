//! How a network's image tensors are converted from and to planes.

use std::cmp::Ordering;

use super::OnnxNetwork;
use crate::network::buffer::Conversion;
use crate::network::encoding::Mix;
use crate::network::interface::Interface;

impl OnnxNetwork {
    /// The conversion of an image of `channels` planes, followed by `further` ones (sigma and the
    /// condition), to an input tensor.
    pub(super) fn input_conversion(&self, channels: usize, further: usize) -> Option<Conversion> {
        let Interface { encoding, noise_encoding, border, .. } = &self.interface;
        let border = *border;
        let has_sigma = self.interface.has_concatenated_sigma();
        let has_frames = further > 0 && self.interface.has_stacked_frames();
        let copies = if further > 0 { self.types.sigma_copies } else { 1 };
        let is_sigma_plain = !has_sigma || (noise_encoding.is_plain() && copies == 1);
        if !has_frames && encoding.is_plain() && is_sigma_plain && border == 0 {
            return None;
        }
        let mut mixes = encoding.channels_of_tensor(channels);
        if further > 0 && self.interface.has_stacked_frames() {
            let frames = self.interface.frames;
            let middle = frames / 2;
            let groups = self.types.is_split.then_some(frames);
            let all: Vec<Mix> = (0..frames)
                .flat_map(|frame| {
                    // The sample is the middle frame, and its planes come first.
                    let first = match frame.cmp(&middle) {
                        Ordering::Less => (frame + 1) * channels,
                        Ordering::Equal => 0,
                        Ordering::Greater => frame * channels,
                    };
                    mixes.iter().map(move |mix| mix.shifted(first))
                })
                .collect();
            let axes = encoding.axes;
            return Some(Conversion { channels: all.len(), mixes: all, axes, groups, border });
        }
        let sigmas = if has_sigma { self.interface.sigma_planes } else { 0 };
        mixes.extend((0..further * copies).map(|plane| {
            let plane = plane / copies;
            let factor = if plane < sigmas { noise_encoding.factor as f32 } else { 1.0 };
            Mix::scaled(channels + plane, factor)
        }));
        Some(Conversion { channels: mixes.len(), mixes, axes: encoding.axes, groups: None, border })
    }

    /// The conversion of the output's tensor and the sample's planes to the planes of an image.
    pub(super) fn output_conversion(&self, channels: usize) -> Option<Conversion> {
        let Interface { output_encoding: encoding, residual, .. } = &self.interface;
        let used = encoding.tensor_channels(channels);
        let all = self.types.output_channels.unwrap_or(used).max(used);
        if encoding.is_plain() && !residual && all == used {
            return None;
        }
        let mut mixes = encoding.planes_of_tensor(channels, *residual);
        // The sample's planes come after all channels of the tensor.
        let terms = mixes.iter_mut().flat_map(|mix| &mut mix.terms);
        terms.filter(|(plane, _)| *plane >= used).for_each(|(plane, _)| *plane += all - used);
        Some(Conversion { mixes, axes: encoding.axes, channels: all, groups: None, border: 0 })
    }
}

//! The planes of the frames of a stream, as they are processed.

use crate::model::Layout;
use crate::tensor::grid_of;

/// Planes of one size and one noise level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Number of planes.
    pub planes: usize,
    /// Samples in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

impl Group {
    /// Samples in a plane.
    pub(super) fn area(self) -> usize {
        self.width * self.height
    }

    /// Samples in all planes.
    pub(super) fn samples(self) -> usize {
        self.planes * self.area()
    }
}

/// The planes of a frame, one after the other: red, green and blue, or gray, all of one size; or
/// luma, and two planes of chroma at half the width and height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    groups: Vec<Group>,
}

impl Planes {
    /// Planes of one size.
    pub fn full(planes: usize, width: usize, height: usize) -> Self {
        Self { groups: vec![Group { planes, width, height }] }
    }

    /// Luma and chroma for a frame of that size, `[width, height]`; an odd size is rounded up.
    pub fn yuv420(size: [usize; 2]) -> Self {
        let [width, height] = grid_of(size);
        Self {
            groups: vec![
                Group { planes: 1, width: 2 * width, height: 2 * height },
                Group { planes: 2, width, height },
            ],
        }
    }

    /// The planes that a network of that layout and number of channels processes, for frames of
    /// that size.
    pub(super) fn of(layout: Layout, channels: usize, size: [usize; 2]) -> Self {
        match layout {
            Layout::Full => Self::full(channels, size[0], size[1]),
            Layout::Yuv420 => Self::yuv420(size),
        }
    }

    /// The groups; the first has the largest planes.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The first group.
    pub(super) fn first(&self) -> Group {
        self.groups[0]
    }

    /// Samples in a frame.
    pub fn samples(&self) -> usize {
        self.groups.iter().map(|group| group.samples()).sum()
    }

    /// Samples in the maps of sigma, one map for each group.
    pub(super) fn map_samples(&self) -> usize {
        self.groups.iter().map(|group| group.area()).sum()
    }

    /// The samples of each group.
    pub(super) fn split<'a>(
        &'a self,
        mut samples: &'a [f32],
    ) -> impl Iterator<Item = (Group, &'a [f32])> {
        self.groups.iter().map(move |group| {
            let (own, rest) = samples.split_at(group.samples());
            samples = rest;
            (*group, own)
        })
    }

    /// The samples of each group, mutable.
    pub(super) fn split_mut<'a>(
        &'a self,
        mut samples: &'a mut [f32],
    ) -> impl Iterator<Item = (Group, &'a mut [f32])> {
        self.groups.iter().map(move |group| {
            let (own, rest) = std::mem::take(&mut samples).split_at_mut(group.samples());
            samples = rest;
            (*group, own)
        })
    }
}

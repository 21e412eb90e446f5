//! The planes of a stream's frames as they are worked on.

use crate::model::Layout;
use crate::tensor::grid_of;

/// Planes of one size, whose noise has one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many there are.
    pub planes: usize,
    /// Samples of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Group {
    /// Samples of a plane.
    pub(super) fn area(self) -> usize {
        self.width * self.height
    }

    /// Samples of all planes.
    pub(super) fn samples(self) -> usize {
        self.planes * self.area()
    }
}

/// The planes of a frame, one after the other: those of red, green and blue or of grey, all of one size; or luma, and two of
/// chroma at half the width and height.
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
            groups: vec![Group { planes: 1, width: 2 * width, height: 2 * height }, Group { planes: 2, width, height }],
        }
    }

    /// As a network of that layout and so many channels sees a frame of that size.
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

    /// Samples of a frame.
    pub fn samples(&self) -> usize {
        self.groups.iter().map(|group| group.samples()).sum()
    }

    /// Samples of a map of sigma for each group.
    pub(super) fn map_samples(&self) -> usize {
        self.groups.iter().map(|group| group.area()).sum()
    }

    /// The samples of each group.
    pub(super) fn split<'a>(&'a self, mut samples: &'a [f32]) -> impl Iterator<Item = (Group, &'a [f32])> {
        self.groups.iter().map(move |group| {
            let (own, rest) = samples.split_at(group.samples());
            samples = rest;
            (*group, own)
        })
    }

    /// The samples of each group.
    pub(super) fn split_mut<'a>(&'a self, mut samples: &'a mut [f32]) -> impl Iterator<Item = (Group, &'a mut [f32])> {
        self.groups.iter().map(move |group| {
            let (own, rest) = std::mem::take(&mut samples).split_at_mut(group.samples());
            samples = rest;
            (*group, own)
        })
    }
}

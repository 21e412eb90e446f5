//! `eddydenoise`.

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::base_transform::{
    GenerateOutputSuccess, InputBuffer, PrepareOutputBufferSuccess,
};
use gst_video::VideoInfo;
use gst_video::subclass::prelude::*;

use crate::element::implement_element;
use crate::filter::{CATEGORY, Filter};
use crate::plan::Plan;
use crate::properties;

/// Denoises frames.
#[derive(Debug, Default)]
pub struct Denoise {
    filter: Filter,
}

glib::wrapper! {
    /// The element `eddydenoise`.
    pub struct DenoiseElement(ObjectSubclass<Denoise>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

#[glib::object_subclass]
impl ObjectSubclass for Denoise {
    const NAME: &'static str = "EddyDenoise";
    type Type = DenoiseElement;
    type ParentType = gst_video::VideoFilter;
}

impl Denoise {
    fn make_plan(&self) -> eddy::Result<Plan> {
        Plan::denoise(&self.filter.settings())
    }

    fn scale(&self) -> Option<i32> {
        Some(1)
    }
}

implement_element!(
    Denoise,
    properties::of_denoise,
    gst::subclass::ElementMetadata::new(
        "Eddy denoiser",
        "Filter/Effect/Video",
        "Removes noise from video by a diffusion network, with temporal fusion",
        "The Eddy developers",
    )
);

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let (rank, kind) = (gst::Rank::NONE, DenoiseElement::static_type());
    gst::Element::register(Some(plugin), "eddydenoise", rank, kind)
}

//! `eddyupscale`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI32, Ordering};

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

/// The scale where neither it nor a model is given.
const DEFAULT_SCALE: i32 = 2;

/// Enlarges frames.
#[derive(Debug, Default)]
pub struct Upscale {
    filter: Filter,
    /// The scale of the model; 0 until it is found.
    of_model: AtomicI32,
}

glib::wrapper! {
    /// The element `eddyupscale`.
    pub struct UpscaleElement(ObjectSubclass<Upscale>)
        @extends gst_video::VideoFilter, gst_base::BaseTransform, gst::Element, gst::Object;
}

#[glib::object_subclass]
impl ObjectSubclass for Upscale {
    const NAME: &'static str = "EddyUpscale";
    type Type = UpscaleElement;
    type ParentType = gst_video::VideoFilter;
}

impl Upscale {
    fn make_plan(&self) -> eddy::Result<Plan> {
        let (plan, scale) = Plan::upscale(&self.filter.settings())?;
        self.of_model.store(i32::try_from(scale).unwrap_or_default(), Ordering::Relaxed);
        Ok(plan)
    }

    /// The scale of the model, or that of the properties before the start.
    fn scale(&self) -> Option<i32> {
        let settings = self.filter.settings();
        let scale = i32::try_from(settings.scale).unwrap_or_default();
        match self.of_model.load(Ordering::Relaxed) {
            0 if scale > 0 => Some(scale),
            0 => settings.model.is_none().then_some(DEFAULT_SCALE),
            scale => Some(scale),
        }
    }
}

implement_element!(
    Upscale,
    properties::of_upscale,
    gst::subclass::ElementMetadata::new(
        "Eddy upscaler",
        "Filter/Converter/Video/Scaler",
        "Enlarges video by a diffusion network",
        "The Eddy developers",
    )
);

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let (rank, kind) = (gst::Rank::NONE, UpscaleElement::static_type());
    gst::Element::register(Some(plugin), "eddyupscale", rank, kind)
}

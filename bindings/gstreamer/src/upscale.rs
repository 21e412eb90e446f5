//! `eddyupscale`.

use std::sync::{LazyLock, Mutex, PoisonError};

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
    /// The last model that was found, and its scale.
    found: Mutex<Option<(String, i32)>>,
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
        let settings = self.filter.settings();
        let (plan, scale) = Plan::upscale(&settings)?;
        if let (Some(model), Ok(scale)) = (settings.model, i32::try_from(scale)) {
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((model, scale));
        }
        Ok(plan)
    }

    /// The scale of the properties, or that of the model; `None` where it is not known before the
    /// start.
    fn scale(&self) -> Option<i32> {
        let settings = self.filter.settings();
        if let Some(scale) = i32::try_from(settings.scale).ok().filter(|scale| *scale > 0) {
            return Some(scale);
        }
        let Some(model) = settings.model else { return Some(DEFAULT_SCALE) };
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().filter(|(name, _)| *name == model).map(|(_, scale)| *scale)
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

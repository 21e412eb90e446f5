//! What GStreamer finds in the library: the name of the plugin, and its elements.

use gst::glib;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // ONNX Runtime is opened later, when other threads read the environment.
    eddy::machine::forbid_telemetry();
    crate::denoise::register(plugin)?;
    crate::upscale::register(plugin)
}

gst::plugin_define!(
    eddy,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    // One of the licenses that GStreamer knows.
    "MIT/X11",
    "eddy",
    "eddy",
    "https://github.com/",
    "2026-01-01"
);

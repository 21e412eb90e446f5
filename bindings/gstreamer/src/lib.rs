//! The GStreamer plugin `eddy`: elements that denoise and enlarge video by diffusion networks.
//!
//! Frames stay in their own planes, as in Eddy's own streams: the elements use the same formats,
//! processors and quality control. A worker thread owns the networks (`worker`); the elements
//! (`denoise`, `upscale`) are `GstVideoFilter`s that copy a frame in and its result out.

mod caps;
mod denoise;
mod element;
mod errors;
mod filter;
mod frame;
mod plan;
mod plugin;
mod properties;
mod report;
mod upscale;
mod worker;

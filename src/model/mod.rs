//! Model packages: a manifest that describes a network, and the files that it names.

mod bare;
mod bundled;
mod class_indices;
mod diffusers;
mod external;
mod fallback;
mod files;
mod folder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod import;
mod manifest;
mod package;
mod precision;
pub(crate) mod protobuf;
mod sampled;
mod verify;

pub use bare::{Description, DetectedProperty, ProbedModel, Role, TrialImages};
pub use bundled::{
    CAMERA_DENOISER, WHITE_NOISE_DENOISER, names as bundled_names,
    pipeline_names as bundled_pipelines,
};
pub use class_indices::ClassIndices;
pub use diffusers::{DiffusersFolder, has_text_encoder};
pub(crate) use diffusers::{SCHEDULE_PURPOSE, TEXT_ENCODERS, text_of};
pub use external::external_files;
pub(crate) use external::with_weights;
pub use fallback::NetworkWithFallback;
pub use files::{
    Links, MAX_CONFIG_BYTES, MAX_GRAPH_BYTES, find_inside, find_weights, read_regular,
};
pub use folder::ModelFolder;
pub(crate) use import::Config;
pub use import::{Scheduler, UNKNOWN_LICENSE, manifest_of_diffusers};
pub use manifest::{
    Check, Constant, DecoderSpec, Defaults, InputNames, Layout, Manifest, ModelFile, NoiseLevel,
    OutputNames, SigmaRange, State, Task,
};
pub use package::Package;
pub use precision::Precision;
pub use sampled::SampledModel;
pub use verify::{Verdict, verify};

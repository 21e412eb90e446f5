//! The settings that messages of errors advise to change.

use std::fmt;

/// A setting that the message of an error advises to change. In the message stands the item that
/// has it, in backticks: `` `Budget::max_memory` ``. A program may put there what its users know
/// the setting by, as `eddy` does with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting(&'static str);

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// A message of an error, in which settings have the names that a program's users know them by.
pub fn named(text: &str, names: &[(Setting, &str)]) -> String {
    let mut text = text.to_owned();
    if text.contains('`') {
        names.iter().for_each(|(setting, name)| text = text.replace(&setting.to_string(), name));
    }
    text
}

macro_rules! settings {
    ($($name:ident = $item:literal, $what:literal;)*) => {
        $(#[doc = $what] pub const $name: Setting = Setting($item);)*

        /// Every setting.
        pub const ALL: &[Setting] = &[$($name),*];
    };
}

settings! {
    ALL_ON_DEVICE = "SessionOptions::disable_cpu_fallback", "Whether operators may fall back.";
    CLASS = "class", "The class of a generated image.";
    DEVICE = "SessionOptions::device", "The device.";
    IMAGE_FORMAT = "Job::format", "The format of a result.";
    INPUT = "Interface::constants", "The constant inputs of a network.";
    INPUTS = "Description::inputs", "The roles of a network's inputs.";
    MATRIX = "FormatOverrides::matrix", "The matrix of luma and chroma.";
    MAX_MEMORY = "Budget::max_memory", "The memory of the process.";
    MODEL = "Eddy::denoiser", "The model.";
    OUTPUT = "Description::output", "The name of a network's output.";
    PIXEL_FORMAT = "CameraRequest::format", "The pixel format of raw frames.";
    PLUGIN = "Runtime::register_plugin", "The library of a plugin provider.";
    PRECISION = "EddyBuilder::precision", "The precision of a network.";
    RECONNECT = "PipelineOptions::reconnect", "The time to wait for a disconnected source.";
    RUNTIME = "Runtime::load", "The library of ONNX Runtime.";
    SANDBOX = "Sandbox::enter", "Whether the process is confined to its files.";
    SIZE = "size", "The size of a generated image.";
    SKIP_CORRUPT = "PipelineOptions::skip_corrupt", "Whether corrupt frames are skipped.";
    STALL_TIMEOUT = "PipelineOptions::stall", "The time limit for the next frame of a source.";
    STREAM_SIZE = "CameraRequest::size", "The size of raw frames, or of a camera's.";
    TILE = "TileChoice::limit", "The longest side of a tile.";
    TILE_OVERLAP = "TileChoice::overlap", "The overlap of tiles.";
    TIMEOUT = "limit_evaluations", "The time limit of loads and evaluations.";
}

#[cfg(test)]
mod tests {
    use super::{ALL, MAX_MEMORY};

    #[test]
    fn settings_have_distinct_names_in_backticks() {
        assert_eq!(MAX_MEMORY.to_string(), "`Budget::max_memory`");
        let mut names: Vec<_> = ALL.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}

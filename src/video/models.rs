//! The networks to choose from for a stream.

use crate::media::stream::{Chroma, PixelFormat};
use crate::model::{CAMERA_DENOISER, Package, Precision, WHITE_NOISE_DENOISER};
use crate::network::Device;

/// The better and slower model for white noise in RGB.
const GOOD: &str = "denoise";

/// The models that denoise a stream of frames of `format`, from best to cheapest: the requested
/// one, or those that suit the format. `of_planes` says that the noise is given for luma and
/// chroma, and `keeps_up` that there is a target rate or latency, so that there may be several.
pub fn models_of_stream(
    requested: Option<&str>,
    format: PixelFormat,
    of_planes: bool,
    keeps_up: bool,
) -> Vec<&str> {
    match requested {
        None if of_planes || has_camera_planes(format) => vec![CAMERA_DENOISER],
        None | Some(GOOD) if keeps_up => vec![GOOD, WHITE_NOISE_DENOISER],
        None => vec![WHITE_NOISE_DENOISER],
        Some(model) => vec![model],
    }
}

/// Whether frames have the planes of cameras and codecs or are gray, so that the network for those
/// planes suits them.
fn has_camera_planes(format: PixelFormat) -> bool {
    matches!(format.chroma(), Some(Chroma::Mono | Chroma::C420 | Chroma::C422))
}

/// The precisions in which a model may run on a stream, the most exact first: the requested one, or
/// the one that suits the device; and int8 where the stream has to keep up and that is faster.
pub fn precisions_of_stream(
    package: &Package,
    requested: Option<Precision>,
    device: Device,
    keeps_up: bool,
) -> Vec<Precision> {
    let mut precisions = vec![requested.unwrap_or_else(|| package.default_precision(device))];
    let has_int8 = package.manifest.files.contains_key(&Precision::Int8);
    // On a GPU, int8 is not faster than f16.
    if keeps_up && requested.is_none() && has_int8 && !device.is_gpu() {
        precisions.push(Precision::Int8);
    }
    precisions
}

#[cfg(test)]
mod tests {
    use super::{Package, Precision, models_of_stream, precisions_of_stream};
    use crate::network::Device;

    #[test]
    fn chooses_models_by_format_and_target() {
        for (format, requested, of_planes, keeps_up, models) in [
            ("nv12", None, false, true, vec!["camera"]),
            ("gray", None, false, false, vec!["camera"]),
            ("rgb24", None, true, false, vec!["camera"]),
            ("rgb24", None, false, false, vec!["denoise-fast"]),
            ("yuv444p", None, false, true, vec!["denoise", "denoise-fast"]),
            ("nv12", Some("denoise"), false, true, vec!["denoise", "denoise-fast"]),
            ("nv12", Some("denoise"), false, false, vec!["denoise"]),
            ("nv12", Some("own/"), false, true, vec!["own/"]),
        ] {
            let format = format.parse().unwrap();
            assert_eq!(models_of_stream(requested, format, of_planes, keeps_up), models);
        }
    }

    #[test]
    fn adds_int8_where_frames_have_to_keep_up() {
        let package = Package::find("camera").unwrap();
        let of =
            |requested, keeps_up| precisions_of_stream(&package, requested, Device::Cpu, keeps_up);
        assert_eq!(of(None, false), [Precision::F32]);
        assert_eq!(of(None, true), [Precision::F32, Precision::Int8]);
        assert_eq!(of(Some(Precision::F32), true), [Precision::F32]);
    }
}

//! The properties of the elements, which are named as the options of `eddy denoise` and `eddy
//! upscale`.

use gst::glib::{self, ParamSpec, Value};
use gst::prelude::*;

/// The values of all properties of both elements.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) model: Option<String>,
    pub(crate) sigma: String,
    pub(crate) strength: f64,
    pub(crate) noise_profile: Option<String>,
    pub(crate) temporal: bool,
    pub(crate) scale: u32,
    pub(crate) steps: u32,
    pub(crate) eta: f64,
    pub(crate) seed: u64,
    pub(crate) precision: String,
    pub(crate) device: String,
    pub(crate) require_device: bool,
    pub(crate) runtime: Option<String>,
    pub(crate) threads: u32,
    pub(crate) tile: u32,
    pub(crate) tile_overlap: i32,
    pub(crate) max_memory: Option<String>,
    pub(crate) fps: gst::Fraction,
    pub(crate) deadline_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            sigma: "auto".into(),
            strength: 1.0,
            noise_profile: None,
            temporal: false,
            scale: 0,
            steps: 0,
            eta: 0.0,
            seed: 0,
            precision: "auto".into(),
            device: "auto".into(),
            require_device: false,
            runtime: None,
            threads: 0,
            tile: 0,
            tile_overlap: -1,
            max_memory: None,
            fps: gst::Fraction::new(0, 1),
            deadline_ms: 0,
        }
    }
}

impl Settings {
    /// The number of sampler steps, if one is given.
    pub(crate) fn steps(&self) -> Option<usize> {
        usize::try_from(self.steps).ok().filter(|steps| *steps > 0)
    }

    /// Sets a property. Its type is that of its specification.
    pub(crate) fn set(&mut self, name: &str, value: &Value) {
        fn to<T>(field: &mut T, value: &Value)
        where
            T: for<'v> glib::value::FromValue<'v>,
        {
            if let Ok(value) = value.get() {
                *field = value;
            }
        }
        match name {
            "model" => to(&mut self.model, value),
            "sigma" => self.sigma = text(value),
            "strength" => to(&mut self.strength, value),
            "noise-profile" => to(&mut self.noise_profile, value),
            "temporal" => to(&mut self.temporal, value),
            "scale" => to(&mut self.scale, value),
            "steps" => to(&mut self.steps, value),
            "eta" => to(&mut self.eta, value),
            "seed" => to(&mut self.seed, value),
            "precision" => self.precision = text(value),
            "device" => self.device = text(value),
            "require-device" => to(&mut self.require_device, value),
            "runtime" => to(&mut self.runtime, value),
            "threads" => to(&mut self.threads, value),
            "tile" => to(&mut self.tile, value),
            "tile-overlap" => to(&mut self.tile_overlap, value),
            "max-memory" => to(&mut self.max_memory, value),
            "fps" => to(&mut self.fps, value),
            "deadline-ms" => to(&mut self.deadline_ms, value),
            _ => {}
        }
    }

    /// The value of a property; `None` for an unknown one.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        Some(match name {
            "model" => self.model.to_value(),
            "sigma" => self.sigma.to_value(),
            "strength" => self.strength.to_value(),
            "noise-profile" => self.noise_profile.to_value(),
            "temporal" => self.temporal.to_value(),
            "scale" => self.scale.to_value(),
            "steps" => self.steps.to_value(),
            "eta" => self.eta.to_value(),
            "seed" => self.seed.to_value(),
            "precision" => self.precision.to_value(),
            "device" => self.device.to_value(),
            "require-device" => self.require_device.to_value(),
            "runtime" => self.runtime.to_value(),
            "threads" => self.threads.to_value(),
            "tile" => self.tile.to_value(),
            "tile-overlap" => self.tile_overlap.to_value(),
            "max-memory" => self.max_memory.to_value(),
            "fps" => self.fps.to_value(),
            "deadline-ms" => self.deadline_ms.to_value(),
            _ => return None,
        })
    }
}

/// The text of a value; `auto` for none.
fn text(value: &Value) -> String {
    value.get::<Option<String>>().ok().flatten().unwrap_or_else(|| "auto".into())
}

/// The properties of the element that denoises.
pub(crate) fn of_denoise() -> Vec<ParamSpec> {
    let mut properties = vec![
        string(
            "model",
            "A bundled model (camera, denoise, denoise-fast), the folder of a model package, or an \
             .onnx file; by default camera for 4:2:0, 4:2:2 and gray, and denoise-fast for others",
            None,
        ),
        glib::ParamSpecString::builder("sigma").blurb(
            "Standard deviation of the noise in 8-bit units, such as 25 for white noise in RGB, or \
             12,5 for luma and chroma; auto estimates it",
        ).default_value("auto").mutable_playing().build(),
        glib::ParamSpecDouble::builder("strength").blurb(
            "How much of the change is kept: 0 gives the input, 1 the denoised result",
        ).minimum(0.0).maximum(1.0).default_value(1.0).mutable_ready().build(),
        string(
            "noise-profile",
            "A file with signal-dependent noise, as measured by `eddy profile`, in place of sigma",
            None,
        ),
        glib::ParamSpecBoolean::builder("temporal").blurb(
            "Temporal fusion, which uses previous frames",
        ).mutable_playing().build(),
    ];
    properties.extend(of_both());
    properties
}

/// The properties of the element that enlarges.
pub(crate) fn of_upscale() -> Vec<ParamSpec> {
    let mut properties = vec![
        string(
            "model",
            "A bundled model, the folder of a model package, or an .onnx file; by default \
             upscale-x2 or upscale-x4, by the scale",
            None,
        ),
        glib::ParamSpecUInt::builder("scale")
            .blurb("Factor along each axis; bundled models have 2 and 4. 0 is the model's, or 2")
            .maximum(16)
            .mutable_ready()
            .build(),
    ];
    properties.extend(of_both());
    properties
}

fn of_both() -> Vec<ParamSpec> {
    let (none, most) = (gst::Fraction::new(0, 1), gst::Fraction::new(100_000, 1));
    vec![
        glib::ParamSpecUInt::builder("steps").blurb(
            "Sampler steps: 1 has the highest PSNR, a few trade PSNR for texture; 0 is the model's \
             default",
        ).maximum(1000).mutable_playing().build(),
        glib::ParamSpecDouble::builder("eta").blurb(
            "Stochasticity of each step: 0 is DDIM, 1 is DDPM",
        ).minimum(0.0).maximum(1.0).mutable_ready().build(),
        glib::ParamSpecUInt64::builder("seed").blurb("Random seed").mutable_ready().build(),
        string(
            "precision",
            "The numeric precision in which the network runs: auto, f32, f16 or int8",
            Some("auto"),
        ),
        string(
            "device",
            "auto, cpu, cuda[:N], tensorrt[:N] or openvino[:D]; all but cpu need runtime",
            Some("auto"),
        ),
        glib::ParamSpecBoolean::builder("require-device").blurb(
            "Disable the fallback to the CPU",
        ).mutable_ready().build(),
        string(
            "runtime",
            "A libonnxruntime.so, or its folder, in place of the embedded one",
            None,
        ),
        glib::ParamSpecUInt::builder("threads").blurb(
            "Intra-op threads, at most 8 per core; 0 is one per physical core, or one per fast \
             core if cores differ in speed",
        ).mutable_ready().build(),
        glib::ParamSpecUInt::builder("tile").blurb(
            "Longest side of a tile in pixels; 0 chooses the fastest that fits max-memory",
        ).maximum(65_535).mutable_ready().build(),
        glib::ParamSpecInt::builder("tile-overlap").blurb(
            "Overlap of neighboring tiles in pixels; -1 is twice the receptive field",
        ).minimum(-1).maximum(65_535).default_value(-1).mutable_ready().build(),
        string(
            "max-memory",
            "Memory of the process, such as 512M or 2G, to which tiles are fitted; by default a \
             quarter of the machine's",
            None,
        ),
        gst::ParamSpecFraction::builder("fps").blurb(
            "Target frame rate: if frames take longer, quality is reduced; 0 for none. Frames are \
             not dropped for it",
        ).minimum(none).maximum(most).default_value(none).mutable_ready().build(),
        glib::ParamSpecUInt::builder("deadline-ms").blurb(
            "Latency target per frame in milliseconds: if frames take longer, quality is reduced; \
             0 for none",
        ).maximum(60_000).mutable_ready().build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("statistics").blurb(
            "The figures so far, as the element message eddy-statistics has them",
        ).read_only().build(),
    ]
}

/// A text that can be set until the element is started.
fn string(name: &str, blurb: &str, default: Option<&str>) -> ParamSpec {
    glib::ParamSpecString::builder(name).blurb(blurb).default_value(default).mutable_ready().build()
}

//! `eddy profile`.

use std::path::PathBuf;

use clap::Args;
use eddy::frame::{picture, source};
use eddy::task::{Method, NoiseLine, NoiseProfile, Profiler};
use serde_json::json;

use super::console::Console;
use super::interrupt;
use super::options::SyncOption;

/// Measure a camera's noise
///
/// The noise's variance is taken to be `a * signal + b` in each channel, with samples from 0 (black) to 1 (white). Several
/// pictures are frames of one still scene, taken one after the other with the same settings; 8 or more of a scene that
/// has dark and bright parts are best. From a single picture its smooth parts are used.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: eddy profile still/ -o camera.toml && eddy denoise photo.png -o clean.png --noise-profile camera.toml"
)]
pub(crate) struct Arguments {
    /// A picture, or frames of a still scene: pictures or folders of pictures (PNG, JPEG, WebP, TIFF, BMP)
    #[arg(required = true, value_name = "SOURCE", help_heading = "Input and output")]
    sources: Vec<PathBuf>,

    /// The noise profile to write, a small TOML file
    #[arg(short, long, value_name = "FILE", help_heading = "Input and output")]
    output: PathBuf,

    #[command(flatten)]
    sync: SyncOption,

    #[command(flatten)]
    console: Console,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.sync.apply();
        let pictures = source::together(&self.sources, &self.output)?;
        NoiseProfile::check(&self.output)?;
        let mut profiler = Profiler::new();
        for path in &pictures {
            if interrupt::poll().is_break() {
                return Err(eddy::Error::Interrupted.into());
            }
            profiler.add(path, picture::read(path, &picture::Limits::default())?.upright())?;
        }
        let profile = profiler.finish()?;
        profile.write(&self.output)?;
        self.report(&profile)
    }

    fn report(&self, profile: &NoiseProfile) -> anyhow::Result<()> {
        let names: &[&str] = if profile.channels.len() == 1 { &["grey"] } else { &["red", "green", "blue"] };
        let from = match profile.method {
            Method::Frames => format!("{} frames", profile.frames),
            Method::Picture => "one picture".to_owned(),
        };
        let mut text =
            format!("{}: the noise of {from} of {}x{}", self.output.display(), profile.width, profile.height);
        for (name, line) in names.iter().zip(&profile.channels) {
            text += &format!("\n  {name}: {}", describe(line));
        }
        let channels: Vec<_> = profile
            .channels
            .iter()
            .map(|line| json!({ "a": line.a, "b": line.b, "signal": line.signal, "flat": line.is_flat() }))
            .collect();
        let record = json!({
            "output": self.output.to_string_lossy(), "method": profile.method.name(), "frames": profile.frames,
            "width": profile.width, "height": profile.height, "channels": channels,
        });
        self.console.report(text, &record)
    }
}

fn describe(line: &NoiseLine) -> String {
    let NoiseLine { a, b, signal: [low, high] } = line;
    let sigma = |signal: f64| 255.0 * line.variance(signal).sqrt();
    if line.is_flat() {
        return format!(
            "variance = {b:.3e} at signal {low:.2} (sigma {:.1} in 8-bit units); the scene is too flat to tell how it \
             depends on the signal, so a = 0",
            sigma(*low)
        );
    }
    let remark = if *a == 0.0 { "; it does not grow with the signal" } else { "" };
    format!(
        "variance = {a:.3e} * signal + {b:.3e}, measured from {low:.2} to {high:.2} (sigma {:.1} to {:.1} in 8-bit \
         units){remark}",
        sigma(*low),
        sigma(*high)
    )
}

#!/usr/bin/env python3
"""Tests "Where to add" of ARCHITECTURE.md: adds one of each kind to a copy of the sources, counts the files touched, and compiles
all of them together. `tests/additions.py`; `.ci/run` does it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Of each kind: how many files, new and changed, and the changes: a file's whole text, or (before, after) pairs.
ADDITIONS = {
    "a sampler": (2, {
        "src/diffusion/sampler/families/twin.rs": """//! The Euler method under another name.

use super::{Definition, Sampler};

impl Sampler {
    /// `twin`: the Euler method.
    pub const TWIN: Self = Self(&Definition {
        name: "twin",
        class: None,
        paper: "Euler 1768",
        path: Self::EULER.0.path,
        eta: None,
        rows: Self::EULER.0.rows,
    });
}
""",
        "src/diffusion/sampler/families/mod.rs": [
            ("mod unipc;\n", "mod twin;\nmod unipc;\n"),
            ("ALL: [Self; 20] = [\n", "ALL: [Self; 21] = [\n        Self::TWIN,\n"),
        ],
    }),
    "a prediction": (1, {
        "src/diffusion/parameterization.rs": [
            ("    Denoised,\n}", "    Denoised,\n    /// Half the clean image, from `y` and sigma.\n    Half,\n}"),
            ('            Self::Denoised => "denoised",\n', '            Self::Denoised => "denoised",\n            Self::Half => "half",\n'),
            ("            Self::Sample => Scaling {", "            Self::Half => Scaling { c_in: 1.0 / signal, c_skip: 0.0, c_out: 2.0, t: level.sigma() },\n            Self::Sample => Scaling {"),
        ],
    }),
    "a provider": (3, {
        "src/network/provider/twin.rs": """//! The CPU under another name.

use super::Provider;
use crate::network::Device;

pub(in crate::network) static TWIN: Provider = Provider {
    name: "twin",
    suffix: "",
    parse: |suffix| suffix.is_none().then_some(Device::Twin),
    is_automatic: false,
    is_built: None,
    build: "",
    parts: &[],
    configure: |builder, _, _, _| Ok(builder),
    probe_fn: None,
    has_own_memory: false,
    has_fixed_shapes: false,
};
""",
        "src/network/provider/mod.rs": [
            ("mod tensorrt;\n", "mod tensorrt;\nmod twin;\n"),
            ("tensorrt::TENSORRT}", "tensorrt::TENSORRT, twin::TWIN}"),
            ("ALL: [&Provider; 5] = [", "ALL: [&Provider; 6] = [&TWIN, "),
        ],
        "src/network/device.rs": [
            ("    Plugin(u32),\n}", "    Plugin(u32),\n    /// The CPU under another name.\n    Twin,\n}"),
            ("            Self::Plugin(_) => &provider::PLUGIN,\n", "            Self::Plugin(_) => &provider::PLUGIN,\n            Self::Twin => &provider::TWIN,\n"),
            ("Self::Cpu | Self::OpenVino(_) | Self::Plugin(_) => None", "Self::Cpu | Self::OpenVino(_) | Self::Plugin(_) | Self::Twin => None"),
            ('            Self::Cpu => f.pad("cpu"),\n', '            Self::Cpu => f.pad("cpu"),\n            Self::Twin => f.pad("twin"),\n'),
        ],
    }),
    "an image format": (5, {
        "Cargo.toml": [('"jpeg", "png", "qoi"', '"jpeg", "png", "pnm", "qoi"')],
        "src/media/still/format.rs": [
            ("    Qoi,\n}", "    Qoi,\n    /// Uncompressed; no metadata.\n    Pnm,\n}"),
            ("impl Format {\n", 'static PNM: Capabilities = Capabilities { name: "PNM", extensions: &["ppm"], media_type: "image/x-portable-pixmap", begins: |head| head.starts_with(b"P6"), ..PLAIN };\n\nimpl Format {\n'),
            ("ALL: [Self; 6] =\n        [", "ALL: [Self; 7] =\n        [Self::Pnm, "),
            ("            Self::Qoi => &QOI,\n", "            Self::Qoi => &QOI,\n            Self::Pnm => &PNM,\n"),
        ],
        "src/media/still/read.rs": [
            ("Format::Tiff | Format::Qoi => 0", "Format::Tiff | Format::Qoi | Format::Pnm => 0"),
            ("        Format::Qoi => decode_with(", "        Format::Pnm => decode_with(image::codecs::pnm::PnmDecoder::new(reader)?, limits, working)?,\n        Format::Qoi => decode_with("),
        ],
        "src/media/still/encode.rs": [
            ("        Format::Qoi => encode_with(", "        Format::Pnm => encode_with(&fitted, image::codecs::pnm::PnmEncoder::new(out))?,\n        Format::Qoi => encode_with("),
        ],
        "src/media/still/integrity.rs": [("Format::Bmp => Ok", "Format::Bmp | Format::Pnm => Ok")],
    }),
    "a source of streams": (3, {
        "src/media/stream/twin.rs": """//! A still as an endless stream.

use super::{ReadOutcome, Source, VideoFormat, VideoFrame};
use crate::error::Result;

/// A gray frame, again and again.
pub(super) struct TwinSource(pub(super) VideoFormat);

impl Source for TwinSource {
    fn video(&self) -> &VideoFormat {
        &self.0
    }

    fn next(&mut self, frame: &mut VideoFrame) -> Result<ReadOutcome> {
        frame.bytes.fill(128);
        Ok(ReadOutcome::Frame)
    }
}
""",
        "src/media/stream/mod.rs": [("mod video;\n", "mod twin;\nmod video;\n")],
        "src/media/stream/open.rs": [
            ("    if is_camera(source) {\n", "    if source == Path::new(\"twin:\") {\n        return Ok(Box::new(super::twin::TwinSource(VideoFormat::new(64, 48, USUAL_RATE, super::PixelFormat::I420))));\n    }\n    if is_camera(source) {\n"),
        ],
    }),
    "a command": (2, {
        "src/cli/twin.rs": """//! `eddy twin`: nothing.

use clap::Args;

/// Do nothing
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self {} = self;
        Ok(())
    }
}
""",
        "src/cli/mod.rs": [
            ("mod upscale;\n", "mod twin;\nmod upscale;\n"),
            ("    Denoise(denoise::Arguments),\n", "    Denoise(denoise::Arguments),\n    Twin(twin::Arguments),\n"),
            ("            Command::Denoise(arguments) => arguments.run(),\n", "            Command::Denoise(arguments) => arguments.run(),\n            Command::Twin(arguments) => arguments.run(),\n"),
        ],
    }),
}


def change(place, edits):
    if isinstance(edits, str):
        assert not place.exists(), f"{place} already exists"
        place.write_text(edits)
        return
    text = place.read_text()
    for before, after in edits:
        assert text.count(before) == 1, f"{place.name}: {before!r} is there {text.count(before)} times, expected once"
        text = text.replace(before, after)
    place.write_text(text)


with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
    copy = pathlib.Path(folder)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, files):
        place = copy / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((ROOT / name).read_bytes())
    if (ROOT / ".cache").exists():
        (copy / ".cache").symlink_to(ROOT / ".cache")
    for kind, (most, edits) in ADDITIONS.items():
        for name, text in edits.items():
            change(copy / name, text)
        print(f"{kind}, files touched: {len(edits)} ({', '.join(edits)})")
        if len(edits) > most:
            sys.exit(f"{kind} takes {len(edits)} files; ARCHITECTURE.md says {most}")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(ROOT / "target")}
    subprocess.run(["cargo", "check", "--locked"], cwd=copy, check=True, env=environment)
print("all of them compile")

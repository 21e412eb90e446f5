"""The commands that are disturbed, and the files of their results."""

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path


# `{in}` and `{out}` are the folders of the sources and of the results.


@dataclass
class Job:
    name: str
    command: str
    source: str  # what it reads, below `in`
    feeds: bool = False  # the source goes to its standard input
    prints: bool = False  # the result comes from its standard output
    whole: dict = field(default_factory=dict)  # the undisturbed results
    seconds: float = 0  # how long it then takes

    def words(self, place):
        return self.command.replace("{in}", str(place / "in")).replace("{out}", str(place / "out")).split()


IMPORT = (
    "import {in}/net.onnx -o {out}/model --sigma-range 0,1 --task denoise --prediction denoised "
    "--inputs sample=x,sigma=sigma --output-name denoised"
)
JOBS = [
    Job("image", "denoise {in}/a.png -o {out}/a.png --sigma 20 --steps 4", "a.png"),
    Job("tiff", "upscale {in}/a.png -o {out}/a.tiff -s 2", "a.png"),
    Job("folder", "denoise {in}/images -o {out}/images --sigma 20", "images"),
    Job("generate", "generate -m digits-ddpm --class 3 --steps 30 -o {out}/a.png", ""),
    Job("image-pipe", "denoise - -o - -f png --sigma 20 --steps 4", "a.png", feeds=True, prints=True),
    Job("y4m", "denoise {in}/a.y4m -o {out}/a.y4m --sigma 10 --temporal", "a.y4m"),
    Job("frames", "denoise {in}/a.y4m -o {out}/frames/ --sigma 10", "a.y4m"),
    Job("pipe", "denoise - -o - --sigma 10", "a.y4m", feeds=True, prints=True),
    Job("raw", "upscale {in}/short.y4m -o {out}/a.raw -s 2", "short.y4m"),
    Job("import", IMPORT, "net.onnx"),
    Job("prepare", "prepare {in}/pipeline", "pipeline"),
]
WITH_FFMPEG = [
    Job("mp4", "denoise {in}/a.y4m -o {out}/a.mp4 --sigma 10 --encoder-options threads=1", "a.y4m"),
    Job("from-mp4", "denoise {in}/a.mp4 -o {out}/a.y4m --sigma 10", "a.mp4"),
    Job("mp4-mkv", "denoise {in}/a.mp4 -o {out}/a.mkv --sigma 10 --encoder-options threads=1", "a.mp4"),
]


def is_temporary(name):
    return any(part.startswith(".eddy-") or part.endswith(".part") for part in Path(name).parts)


def is_recording(name):
    """`out.part.mp4`, which is kept after a kill."""
    return bool(re.search(r"\.part\.\w+$", name)) and not is_temporary(name)


def files(folder):
    """The files below a folder, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else []:
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                # ONNX Runtime orders a saved graph differently each time: of those, the length.
                is_saved_graph = "optimized" in path.parts and path.name.startswith("model.onnx")
                found[str(path.relative_to(folder))] = b"%d" % path.stat().st_size if is_saved_graph else path.read_bytes()
            elif path.is_dir() and is_temporary(path.name):
                found[f"{path.relative_to(folder)}/"] = b""
    return found

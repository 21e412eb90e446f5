"""Ablation of the image generator: for each part, a small denoiser is trained on images made without it.

    python ablate.py --validation out/validation --out out/ablation --steps 2000

Prints the mean PSNR over sigma 15, 25 and 50 on the synthetic validation images (made with everything) and on the validation photographs.
All variants have the same seeds, numbers of images and steps; the spread of the variant "everything" over `--seeds` shows the random variation.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

import images
import textures

CONFIG = """\
[model]
job = "denoise"
widths = [16, 32, 32]
depths = [1, 1, 1]

[train]
seed = {seed}
minutes = 0
rate = 2e-3
hold = 0.3
clip = 1.0
average = 0.995

[[phase]]
from = 0.0
batch = 16
patch = 64
error = "absolute"

[[phase]]
from = 0.5
batch = 16
patch = 64
error = "log"
"""


def without_planes():
    images.plane = lambda rng, colors, bank, size: images.surface(rng, colors, bank, size, size)


def without_strokes():
    images.strokes = lambda rng, canvas, colors: None


def without_textures():
    textures.crop = lambda rng, bank, height, width: np.zeros((height, width), np.float32)


def without_shading():
    images.shading = lambda rng, height, width: np.ones((height, width), np.float32)


def without_lens():
    images.lens = lambda rng, canvas: canvas


def without_sharpening():
    images.sharpen = lambda rng, image: image


def without_colors():
    """Colors of three independent uniform numbers, as the first dead-leaves models had them."""
    images.palette = lambda rng: rng.uniform(0, 1, (12, 3)).astype(np.float32)


VARIANTS = {
    "everything": lambda: None,
    "no slanted planes": without_planes,
    "no strokes": without_strokes,
    "no textures": without_textures,
    "no shading": without_shading,
    "no lens blur": without_lens,
    "no sharpening": without_sharpening,
    "uniform colors": without_colors,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", default="out/validation", help="folder of other pool-*.npy and set-aside .png")
    parser.add_argument("--out", default="out/ablation", help="folder of the variants' images and logs")
    parser.add_argument("--count", type=int, default=256, help="images for each variant")
    parser.add_argument("--steps", type=int, default=2000, help="steps of training for each variant")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of the variant 'everything'")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--variant", help="make the images of this variant and stop; used internally")
    args = parser.parse_args()
    if args.variant:
        VARIANTS[args.variant]()
        folder = Path(args.out) / args.variant.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        for shard in range(-(-args.count // images.IMAGES_PER_SHARD)):
            images.write_shard((str(folder), 11, shard, images.IMAGES_PER_SHARD, 256))
        return
    print("| images | seed | synthetic | photographs |\n|---|---|---|---|")
    here = Path(__file__).parent
    for name in VARIANTS:
        subprocess.run([sys.executable, __file__, "--variant", name, "--out", args.out, "--count", str(args.count)], check=True)
        for seed in range(1, 1 + (args.seeds if name == "everything" else 1)):
            folder = Path(args.out) / name.replace(" ", "-")
            config = folder / f"seed-{seed}.toml"
            config.write_text(CONFIG.format(seed=seed))
            command = [sys.executable, here / "train.py", config, "--pool", folder, "--validation", args.validation, "--out", folder / f"seed-{seed}"]
            command += ["--steps", str(args.steps), "--threads", str(args.threads), "--parts", str(args.threads), "--validate-every", "1e9"]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            means = [np.mean([float(s) for s in line.split(": ")[1].removesuffix(" dB").split(", ")]) for line in said[-2:]]
            print(f"| {name} | {seed} | " + " | ".join(f"{m:.2f}" for m in means) + " |", flush=True)


if __name__ == "__main__":
    main()

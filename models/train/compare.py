"""Compares denoisers' files by PSNR on photographs and by time per megapixel, with ONNX Runtime in one run.

    python compare.py PHOTOS ../denoise-fast/denoise-fast.onnx ../denoise-nano/denoise-nano.onnx
    python compare.py PHOTOS ../camera/camera.onnx out/camera-nano/camera-nano.onnx

Files with three channels get white noise of sigma 15, 25 and 50, unclipped, and clipped as in files. Files with six get planes of 4:2:0: of clipped
white noise of 10, 20 and 35, and of simulated cameras in poor and in medium light; each is conditioned on the errors of luma and of chroma. Means over the
photographs. Times are those of 1280x720, taken in turn, on two threads: the least and the median.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import onnx

import planes
from camera import Camera
from precision import run, session

KINDS = {3: ("15", "25", "50", "15 clipped", "25 clipped", "50 clipped"), 6: ("white 10", "white 20", "white 35", "camera 0.06", "camera 0.2")}


def noisy(kind, clean, rng, channels):
    """The network's inputs and target, of an image [H, W, 3] in [0, 1]."""
    name, _, amount = kind.rpartition(" ") if channels == 6 else ("", "", kind.split()[0])
    if name == "camera":
        shot = Camera(rng, float(amount)).shot(rng, clean)
    else:
        shot = clean + float(amount) / 255 * rng.standard_normal(clean.shape, dtype=np.float32)
    if channels == 3:
        shot = np.clip(shot, 0, 1) if "clipped" in kind else shot
        sigma = np.full((1, 1, *clean.shape[:2]), float(amount) / 255, np.float32)
        return shot.transpose(2, 0, 1)[None], sigma, clean.transpose(2, 0, 1)[None]
    shot, target = planes.rounded(*planes.of_rgb(np.round(np.clip(shot, 0, 1) * 255) / 255), False), planes.of_rgb(clean)
    x, target_planes = planes.pack(*shot)[None], planes.pack(*target)[None]
    sigma = np.stack([np.full(x.shape[2:], np.sqrt(np.mean((a - b) ** 2)), np.float32) for a, b in zip(shot, target)])[None]
    return x, sigma, target_planes


def times(sessions, channels, rounds):
    """Milliseconds per megapixel of the image, [sessions, rounds]."""
    shape = (720, 1280) if channels == 3 else (360, 640)
    inputs = [np.random.default_rng(1).random((1, channels, *shape)), np.full((1, 1 if channels == 3 else 2, *shape), 0.1)]
    inputs = [i.astype(np.float32) for i in inputs]
    taken = np.zeros((len(sessions), rounds + 2))
    for turn in range(rounds + 2):
        for i, running in enumerate(sessions):
            begun = time.perf_counter()
            run(running, inputs)
            taken[i, turn] = time.perf_counter() - begun
    return 1e3 * taken[:, 2:] / (0.720 * 1.280)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of .png or .jpg")
    parser.add_argument("files", type=Path, nargs="+", help=".onnx files of denoisers with equal channels, the one to compare with first")
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    sessions = [session(onnx.load(f)) for f in args.files]
    channels = sessions[0].get_inputs()[0].shape[1]
    taken = times(sessions, channels, args.rounds)
    for file, row in zip(args.files, taken):
        print(f"{file.name}: {row.min():.1f} ms a megapixel at least, {np.median(row):.1f} in the median; {row.min() / taken[0].min():.3f}, {np.median(row / taken[0]):.3f} of the first", flush=True)
    images = [p for p in sorted(args.photos.iterdir()) if p.suffix in (".png", ".jpg")]
    scores = np.zeros((len(sessions), len(images), len(KINDS[channels])))
    for at, path in enumerate(images):
        clean = cv2.imread(str(path))[..., ::-1].astype(np.float32) / 255
        clean = np.ascontiguousarray(clean[: clean.shape[0] // 32 * 32, : clean.shape[1] // 32 * 32])
        for k, kind in enumerate(KINDS[channels]):
            x, sigma, target = noisy(kind, clean, np.random.default_rng([at, k]), channels)
            for i, running in enumerate(sessions):
                scores[i, at, k] = -10 * np.log10(np.mean((np.clip(run(running, [x, sigma]), 0, 1) - target) ** 2))
    print("dB: " + ", ".join(KINDS[channels]))
    for file, rows in zip(args.files, scores):
        print(f"{file.name}: " + " ".join(f"{s:.2f}" for s in rows.mean(0)) + f", mean {rows.mean():.2f}; behind the first {np.mean(scores[0] - rows):.2f}, at most {np.max(np.mean(scores[0] - rows, 1)):.2f}")


if __name__ == "__main__":
    main()

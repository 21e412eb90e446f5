"""Compares denoisers' files by PSNR on photographs and by time per megapixel, with ONNX Runtime in one run.

    python compare.py PHOTOS ../denoise-fast/denoise-fast.onnx ../denoise-nano/denoise-nano.onnx
    python compare.py PHOTOS ../camera/camera.onnx ../camera-nano/camera-nano.onnx --clips out/clips-validation

Files with three channels get white noise of sigma 15, 25 and 50, unclipped, and clipped as in files. Files with six get planes of 4:2:0: of clipped
white noise of 10, 20 and 35, and of simulated cameras in medium and in poor light, and with --clips frames that were encoded; each is
conditioned on the errors of luma and of chroma. Means over the photographs and over the frames. Times are those of 1280x720 on one and on two
threads, taken in turn: the least and the median, of the clock and of the processor.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import onnx

import planes
from camera import Camera
from examples import STEPS
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
    return packed(planes.rounded(*planes.of_rgb(np.round(np.clip(shot, 0, 1) * 255) / 255), False), planes.of_rgb(clean))


def packed(shot, target):
    """The network's inputs and target, of planes."""
    x, target_planes = planes.pack(*shot)[None], planes.pack(*target)[None]
    sigma = np.stack([np.full(x.shape[2:], np.sqrt(np.mean((a - b) ** 2)), np.float32) for a, b in zip(shot, target)])[None]
    return x, sigma, target_planes


def clip_frames(folder):
    """The network's inputs and target of each frame of clips as `clips.py` writes them."""
    for path in sorted(folder.glob("clips-*.npz")):
        shard = dict(np.load(path))
        for at, full in enumerate(shard["full"]):
            steps, zero = STEPS[bool(full)], 0 if full else 16
            for frame in range(shard["luma"].shape[1]):
                values = lambda kind: (
                    (shard[f"{kind}luma"][at, frame].astype(np.float32) - zero) / steps[0],
                    (shard[f"{kind}chroma"][at, frame].astype(np.float32) - 128) / steps[1] + 0.5,
                )
                yield packed(values(""), values("clean_"))


def quality(running, x, sigma, target):
    """PSNR in dB."""
    return -10 * np.log10(np.mean((np.clip(run(running, [x, sigma]), 0, 1) - target) ** 2))


def times(sessions, channels, rounds):
    """Milliseconds per megapixel of the image, of the clock and of the processor, [sessions, 2, rounds]."""
    shape = (720, 1280) if channels == 3 else (360, 640)
    inputs = [np.random.default_rng(1).random((1, channels, *shape)), np.full((1, 1 if channels == 3 else 2, *shape), 0.1)]
    inputs = [i.astype(np.float32) for i in inputs]
    taken = np.zeros((len(sessions), 2, rounds + 2))
    for turn in range(rounds + 2):
        for i, running in enumerate(sessions):
            begun = np.array([time.perf_counter(), time.process_time()])
            run(running, inputs)
            taken[i, :, turn] = [time.perf_counter(), time.process_time()] - begun
    return 1e3 * taken[:, :, 2:] / (0.720 * 1.280)


def print_times(models, names, channels, rounds):
    for threads in (1, 2):
        taken = times([session(m, threads=threads) for m in models], channels, rounds)
        for name, rows in zip(names, taken):
            clock, processor = (
                f"{row.min():.1f} at least, {np.median(row):.1f} in the median, {row.min() / first.min():.3f} and {np.median(row / first):.3f} of the first"
                for row, first in zip(rows, taken[0])
            )
            print(f"{name}, {threads} thread{'s' * (threads > 1)}, ms a megapixel: {clock}; of the processor {processor}", flush=True)


def photograph_scores(sessions, channels, folder):
    """PSNR in dB, [sessions, photographs, kinds]."""
    images = [p for p in sorted(folder.iterdir()) if p.suffix in (".png", ".jpg")]
    scores = np.zeros((len(sessions), len(images), len(KINDS[channels])))
    for at, path in enumerate(images):
        clean = cv2.imread(str(path))[..., ::-1].astype(np.float32) / 255
        clean = np.ascontiguousarray(clean[: clean.shape[0] // 32 * 32, : clean.shape[1] // 32 * 32])
        for k, kind in enumerate(KINDS[channels]):
            example = noisy(kind, clean, np.random.default_rng([at, k]), channels)
            for i, running in enumerate(sessions):
                scores[i, at, k] = quality(running, *example)
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of .png or .jpg")
    parser.add_argument("files", type=Path, nargs="+", help=".onnx files of denoisers with equal channels, the one to compare with first")
    parser.add_argument("--clips", type=Path, help="folder of clips-*.npz, for files with six channels")
    parser.add_argument("--rounds", type=int, default=40, help="of the times; 0 for none")
    args = parser.parse_args()
    models, names = [onnx.load(f) for f in args.files], [f.name for f in args.files]
    sessions = [session(m) for m in models]
    channels = sessions[0].get_inputs()[0].shape[1]
    if args.clips and channels != 6:
        parser.error(f"--clips are planes of 4:2:0, and {names[0]} has {channels} channels; 6 were expected")
    if args.rounds:
        print_times(models, names, channels, args.rounds)
    scores = photograph_scores(sessions, channels, args.photos)
    print("dB: " + ", ".join(KINDS[channels]))
    for name, rows in zip(names, scores):
        print(f"{name}: " + " ".join(f"{s:.2f}" for s in rows.mean(0)) + f", mean {rows.mean():.2f}; behind the first {np.mean(scores[0] - rows):.2f}, at most {np.max(np.mean(scores[0] - rows, 1)):.2f}")
    if args.clips:
        scores = np.array([[quality(running, *example) for running in sessions] for example in clip_frames(args.clips)])
        for name, column in zip(names, scores.T):
            print(f"{name}: {column.mean():.2f} of {len(column)} frames of clips; behind the first {np.mean(scores[:, 0] - column):.2f}")


if __name__ == "__main__":
    main()

"""Makes short clips of a simulated camera through real encoders, for training: shards of 8-bit planes, decoded and clean.

    python clips.py --photos PHOTOS --out out/clips --count 1500 --seed 1

A shard `clips-*.npz` holds, for each clip of 256x256 and three of its frames: `luma` and `chroma` as decoded, `clean_luma` and
`clean_chroma` (all uint8), `full` (whether samples have the full range) and `still` (whether nothing moves, so that frames may be
averaged). Needs ffmpeg with libx264 and libx265.
"""

import argparse
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np

import planes
from camera import Camera

SIZE, FRAMES, KEPT = 256, 7, (1, 3, 6)


def photographs(folder):
    """Images [H, W, 3], uint8, and the share of each by its area; again at half the size if that is large enough."""
    images = []
    for path in sorted(Path(folder).glob("*.jpg")):
        image = cv2.imread(str(path))[..., ::-1]
        if min(image.shape[:2]) < 288:
            image = cv2.copyMakeBorder(image, 0, max(0, 288 - image.shape[0]), 0, max(0, 288 - image.shape[1]), cv2.BORDER_REFLECT_101)
        images.append(image)
        if min(image.shape[:2]) >= 640:
            images.append(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    areas = np.array([p.shape[0] * p.shape[1] for p in images], float)
    return images, areas / areas.sum()


def crop(rng, pool, height, width):
    """A crop, turned and mirrored, uint8."""
    images, shares = pool
    image = images[rng.choice(len(images), p=shares)]
    top, left = (int(rng.integers(0, n - size + 1)) for n, size in zip(image.shape, (height, width)))
    patch = image[top : top + height, left : left + width]
    if height == width:
        patch = np.rot90(patch, rng.integers(4))
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def exposed(rng, image):
    """The image, float32 in [0, 1], with exposure and contrast varied; now and then dark, with strong colors."""
    image = image.astype(np.float32) / 255
    if rng.random() < 0.12:
        gray = image.mean(-1, keepdims=True)
        return (np.clip(gray + rng.uniform(1, 2) * (image - gray), 0, 1) * rng.uniform(0.08, 0.6)).astype(np.float32)
    contrast, middle = np.exp(rng.normal(0, 0.25)), rng.uniform(0, 1)
    return np.clip((image - middle) * contrast + middle, 0, 1).astype(np.float32)


def scene(rng, pool):
    """The clean frames of a clip, and whether nothing moves."""
    kind = rng.choice(["still", "pan", "zoom", "object"], p=[0.4, 0.25, 0.1, 0.25])
    whole = exposed(rng, crop(rng, pool, 288, 288))
    if kind == "still":
        return [whole[16 : 16 + SIZE, 16 : 16 + SIZE]] * FRAMES, True
    if kind == "object":
        thing, at, speed = exposed(rng, crop(rng, pool, 64, 64)), rng.uniform(20, 150, 2), rng.uniform(-6, 6, 2)
        mask = np.zeros((64, 64, 1), np.float32)
        cv2.circle(mask, (32, 32), 30, 1, -1, cv2.LINE_AA)
        frames = []
        for i in range(FRAMES):
            frame = whole[16 : 16 + SIZE, 16 : 16 + SIZE].copy()
            y, x = np.clip(at + i * speed, 0, SIZE - 64).astype(int)
            frame[y : y + 64, x : x + 64] = mask * thing + (1 - mask) * frame[y : y + 64, x : x + 64]
            frames.append(frame)
        return frames, False
    speed, zoom = (rng.uniform(-4, 4, 2), 0.0) if kind == "pan" else (np.zeros(2), rng.uniform(0.002, 0.01))
    frames = []
    for i in range(FRAMES):
        scale = 1 + zoom * i
        move = np.float32([[scale, 0, -16 + speed[0] * (i - 3) - 144 * (scale - 1)], [0, scale, -16 + speed[1] * (i - 3) - 144 * (scale - 1)]])
        frames.append(cv2.warpAffine(whole, move, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101).clip(0, 1))
    return frames, False


def samples(luma, chroma, full):
    """8-bit samples of planes."""
    steps, zero = ((255, 255), 0) if full else ((219, 224), 16)
    return np.clip(np.round(luma * steps[0] + zero), 0, 255).astype(np.uint8), np.clip(np.round((chroma - 0.5) * steps[1] + 128), 0, 255).astype(np.uint8)


def run(arguments, data):
    return subprocess.run(["ffmpeg", "-v", "error", *arguments], input=data, stdout=subprocess.PIPE, check=True).stdout


def coded(rng, codec, frames, full, matrix):
    """Frames after encoding and decoding: luma and chroma, uint8, for each frame."""
    shape = ["-f", "rawvideo", "-s", f"{SIZE}x{SIZE}", "-r", "25"]
    if codec.startswith("mjpeg"):
        wide = codec == "mjpeg422"
        data = []
        for frame in frames:
            luma, chroma = planes.of_rgb(frame, matrix)
            if wide:
                red, blue = planes.WEIGHTS[matrix]
                r, _, b = np.moveaxis(frame, -1, 0)
                chroma = np.stack([(b - luma) * (0.5 / (1 - blue)), (r - luma) * (0.5 / (1 - red))]) + 0.5
                chroma = chroma.reshape(2, SIZE, SIZE // 2, 2).mean(-1)
            data += [p.tobytes() for p in samples(luma, chroma, True)]
        form = "yuvj422p" if wide else "yuvj420p"
        stream = run([*shape, "-pix_fmt", form, "-i", "-", "-c:v", "mjpeg", "-q:v", str(rng.integers(2, 12)), "-f", "nut", "-"], b"".join(data))
        raw = np.frombuffer(run(["-f", "nut", "-i", "-", "-f", "rawvideo", "-pix_fmt", form, "-"], stream), np.uint8)
        raw = raw.reshape(len(frames), -1)
        luma = raw[:, : SIZE * SIZE].reshape(-1, SIZE, SIZE)
        chroma = raw[:, SIZE * SIZE :].reshape(len(frames), 2, -1, SIZE // 2).astype(np.float32)
        if wide:
            chroma = chroma.reshape(len(frames), 2, SIZE // 2, 2, SIZE // 2).mean(3)
        return luma, np.round(chroma).astype(np.uint8)
    data = [p.tobytes() for frame in frames for p in samples(*planes.of_rgb(frame, matrix), full)]
    if codec == "h264":
        preset = rng.choice(["ultrafast", "veryfast", "medium"], p=[0.3, 0.5, 0.2])
        level = ["-crf", f"{rng.uniform(16, 31):.1f}"]
        options = ["-c:v", "libx264", "-preset", preset, *level, "-threads", "1", "-x264-params", "log-level=none"]
        if rng.random() < 0.3:
            options += ["-bf", "0"]
    else:
        options = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", f"{rng.uniform(18, 32):.1f}", "-x265-params", "log-level=none:pools=1:frame-threads=1"]
    stream = run([*shape, "-pix_fmt", "yuv420p", "-i", "-", *options, "-f", "nut", "-"], b"".join(data))
    raw = np.frombuffer(run(["-f", "nut", "-i", "-", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"], stream), np.uint8).reshape(len(frames), -1)
    return raw[:, : SIZE * SIZE].reshape(-1, SIZE, SIZE), raw[:, SIZE * SIZE :].reshape(len(frames), 2, SIZE // 2, SIZE // 2)


def clip(rng, pool):
    frames, still = scene(rng, pool)
    matrix = rng.choice(list(planes.WEIGHTS))
    if rng.random() < 0.08:  # the encoder only
        shots = frames
    elif rng.random() < 0.2:  # white noise in RGB
        sigma = rng.uniform(2, 40) / 255
        shots = [np.clip(f + sigma * rng.standard_normal(f.shape, dtype=np.float32), 0, 1) for f in frames]
    else:
        camera = Camera(rng)
        shots = [camera.shot(rng, f) for f in frames]
    codec = rng.choice(["h264", "h265", "mjpeg420", "mjpeg422"], p=[0.5, 0.15, 0.15, 0.2])
    full = codec.startswith("mjpeg") or bool(rng.random() < 0.3)
    luma, chroma = coded(rng, codec, shots, full, matrix)
    clean = [samples(*planes.of_rgb(frames[i], matrix), full) for i in KEPT]
    kept = list(KEPT)
    return luma[kept], chroma[kept], np.stack([c[0] for c in clean]), np.stack([c[1] for c in clean]), full, still


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, help="folder of .jpg photographs")
    parser.add_argument("--out", default="out/clips")
    parser.add_argument("--count", type=int, default=1500, help="clips")
    parser.add_argument("--shard", type=int, default=60, help="clips of a shard")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    pool, begun = photographs(args.photos), time.monotonic()
    for shard in range(args.count // args.shard):
        path = out / f"clips-{args.seed}-{shard:03}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([args.seed, shard])
        parts = [np.stack(p) for p in zip(*(clip(rng, pool) for _ in range(args.shard)))]
        names = ("luma", "chroma", "clean_luma", "clean_chroma", "full", "still")
        part = path.with_suffix(".part.npz")
        np.savez(part, **dict(zip(names, parts)))
        part.rename(path)
        print(f"{path}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()

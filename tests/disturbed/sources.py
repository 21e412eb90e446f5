"""What the jobs read."""

import random
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"


def png(path, size, seed):
    """A gray ramp with noise of sigma 20."""
    rng = random.Random(seed)
    rows = b"".join(b"\0" + bytes(min(255, max(0, int(64 + x + rng.gauss(0, 20)))) for x in range(size)) for _ in range(size))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def y4m(path, frames, width=96, height=64, seed=1):
    rng = random.Random(seed)
    noise = bytes(100 + i // 8 for i in range(256))
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip C420jpeg\n".encode())
        for _ in range(frames):
            luma = rng.randbytes(width * height).translate(noise)
            file.write(b"FRAME\n" + luma + bytes([128]) * (width * height // 2))


def sources(folder):
    """What all jobs read."""
    (folder / "images").mkdir(parents=True)
    png(folder / "a.png", 160, 1)
    for i in range(10):
        png(folder / f"images/{i}.png", 80, i)
    y4m(folder / "a.y4m", 40)
    y4m(folder / "short.y4m", 6)
    shutil.copy(DATA / "models/identity.onnx", folder / "net.onnx")
    shutil.copytree(DATA / "pipelines/text/folders/sd15", folder / "pipeline")
    if shutil.which("ffmpeg"):
        quiet = ["ffmpeg", "-v", "error", "-y", "-i", folder / "a.y4m"]
        subprocess.run([*quiet, "-c:v", "libx264", "-threads", "1", folder / "a.mp4"], check=True)

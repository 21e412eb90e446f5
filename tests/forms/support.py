"""Common code of tests/forms and tests/third_party: a virtual environment, images, and running a command."""

import importlib.util
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib

VERSIONS = {"numpy": "2.3.5", "onnx": "1.20.0", "onnxruntime": "1.28.0"}


def ensure_packages(*more):
    """Goes on where numpy and onnx are there, and `more`; or else runs this program again in an environment that has them."""
    names = ["numpy", "onnx", *more]
    if all(importlib.util.find_spec(name) for name in names):
        return
    with tempfile.TemporaryDirectory() as folder:
        python = pathlib.Path(folder, "bin/python")
        wanted = [f"{name}=={VERSIONS[name]}" for name in names]
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True)
        except (OSError, subprocess.CalledProcessError):
            print(f"pip does not bring {', '.join(names)}: skipped")
            sys.exit(0)
        sys.exit(subprocess.run([python, *sys.argv]).returncode)


class Failure(Exception):
    """What a test found wrong."""


def command(binary, *arguments, folder=None, code=0, seconds=300):
    """Runs `binary`; `code` is the exit code that is expected, or several. Returns what it said on stderr."""
    codes = {code} if isinstance(code, int) else set(code)
    try:
        run = subprocess.run([binary, *map(str, arguments)], cwd=folder, capture_output=True, text=True, errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failure(f"{arguments[0]}: not done in {seconds} s") from None
    if run.returncode not in codes:
        said = (run.stderr.strip() or run.stdout.strip() or "nothing").replace("\n", " ")[:400]
        raise Failure(f"{arguments[0]}: exit code {run.returncode}, said: {said}")
    return run.stderr


def write_png(path, image):
    """Writes [C, H, W] of 0..1 in 16 bits, and returns what was written, in 0..1."""
    import numpy as np

    samples = np.round(np.clip(image, 0, 1) * 65535).astype(">u2")
    channels, height, width = samples.shape
    rows = samples.transpose(1, 2, 0).reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    return samples.astype(np.float64) / 65535


def read_png(path):
    """A PNG that is not interlaced and has no palette, as [C, H, W] of 0..1; alpha is left out."""
    import numpy as np

    data = path.read_bytes()
    position, body = 8, b""
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position:position + 8])
        content = data[position + 8:position + 8 + length]
        position += length + 12
        if kind == b"IHDR":
            width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", content)
        if kind == b"IDAT":
            body += content
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    assert depth in (8, 16) and not interlaced, path
    step, stride = channels * depth // 8, channels * depth // 8 * width
    raw = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, stride + 1)
    above, rows = np.zeros(stride, np.uint8), []
    for kind, row in ((row[0], row[1:]) for row in raw):
        if kind == 1:
            row = np.cumsum(row.reshape(-1, step), 0, dtype=np.uint8).ravel()
        elif kind == 2:
            row = row + above
        elif kind in (3, 4):
            row = unfilter(kind, row.tolist(), above.tolist(), step)
        above = np.asarray(row, np.uint8)
        rows.append(above)
    samples = np.concatenate(rows).view(np.uint8 if depth == 8 else ">u2").reshape(height, width, channels)
    image = samples.astype(np.float64).transpose(2, 0, 1) / (2**depth - 1)
    return image[:{2: 1, 4: 3}.get(channels, channels)]


def unfilter(kind, row, above, step):
    """PNG's filters of the mean (3) and of Paeth (4)."""
    for i, value in enumerate(row):
        left, corner = (row[i - step], above[i - step]) if i >= step else (0, 0)
        up = above[i]
        if kind == 3:
            predicted = (left + up) // 2
        else:
            p = left + up - corner
            distances = (abs(p - left), abs(p - up), abs(p - corner))
            predicted = (left, up, corner)[distances.index(min(distances))]
        row[i] = (value + predicted) & 255
    return row


def read_y4m(path):
    """The frames of a y4m file of 4:4:4 in 16 bits, BT.601, limited range, as RGB [frames, 3, H, W] of 0..1."""
    import numpy as np

    header, data = path.read_bytes().split(b"\n", 1)
    tags = header.decode().split()
    width, height = (int(next(tag[1:] for tag in tags if tag[0] == key)) for key in "WH")
    if "C444p16" not in tags:
        raise Failure(f"the stream is {header.decode()} and not 4:4:4 in 16 bits")
    size = 3 * width * height * 2
    frames = []
    while data:
        line, data = data.split(b"\n", 1)
        assert line.startswith(b"FRAME"), line
        frames.append(np.frombuffer(data[:size], "<u2").reshape(3, height, width).astype(np.float64))
        data = data[size:]
    y, cb, cr = np.moveaxis(np.stack(frames) / 256, 1, 0)
    y, cb, cr = (y - 16) / 219, (cb - 128) / 112, (cr - 128) / 112
    red, blue = y + 0.701 * cr, y + 0.886 * cb
    return np.stack([red, (y - 0.299 * red - 0.114 * blue) / 0.587, blue], 1)

"""Checks the example `ray_folder.py` with real Ray, as `python ray_folder.py BINARY IMAGES FOLDER`; ray.sh runs it.

A worker is killed in the middle; then every image has one result, which equals that of the binary, and what was written before was
not written again. A second run has nothing to do, and a third names images that are damaged.
"""

import io
import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import time

import numpy as np
from PIL import Image, ImageCms

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
EXAMPLE = REPOSITORY / "bindings/python/examples/ray_folder.py"
WORKERS = 2


def make_images(folder, count):
    """Noisy images of all formats and kinds, in folders with unusual names."""
    photograph = Image.open(REPOSITORY / "tests/data/noisy-chelsea.png").convert("RGB")
    rng, draw = random.Random(5), np.random.default_rng(5)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(count):
        width, height = rng.randrange(90, 160), rng.randrange(90, 130)
        x, y = rng.randrange(photograph.width - width), rng.randrange(photograph.height - height)
        image = photograph.crop((x, y, x + width, y + height))
        place = folder / ("", "2024/März", "a b", "2024/März/very deep")[i % 4]
        place.mkdir(parents=True, exist_ok=True)
        path = str(place / f"image {i} ü")
        kind = i // 4 % 7
        if kind == 0:
            image.save(path + ".png", icc_profile=profile, exif=exif)
        elif kind == 1:
            image.save(path + ".JPG", quality=90, icc_profile=profile, exif=exif)
        elif kind == 2:
            gray = np.asarray(image.convert("L"), np.float64) * 257 + draw.normal(0, 900, (height, width))
            Image.fromarray(gray.clip(0, 65535).astype(np.uint16)).save(path + ".png")
        elif kind == 3:
            image.putalpha(image.convert("L"))
            image.save(path + ".png")
        elif kind == 4:
            image.save(path + ".tif", icc_profile=profile)
        elif kind == 5:
            image.convert("L").save(path + ".jpg", quality=85)
        else:
            image.save(path + ".bmp")


def files(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def identity(path):
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def start(source, output, report, **options):
    """Starts the example, with an environment by which its processes are found."""
    arguments = ["--workers", str(WORKERS), "--report", str(report)]
    environment = dict(os.environ, RAY_TMPDIR=str(report.parent / "ray"), HOME=str(report.parent))
    command = [sys.executable, EXAMPLE, source, output, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def finish(process, exit_code, says):
    out, err = process.communicate(timeout=300)
    assert process.returncode == exit_code, (process.returncode, out, err)
    assert says in out, (out, err)
    return err


def addresses_of(mark):
    """The addresses at which processes with `mark` in their environment listen."""
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening[fields[9]] = fields[1].split(":")[0]
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                links = [os.readlink(link) for link in (process / "fd").iterdir()]
                found += [listening[link[8:-1]] for link in links if link[8:-1] in listening]
        except OSError:
            pass
    return [shown(address) for address in found]


def shown(address):
    words = [struct.pack("=I", int(address[i : i + 8], 16)) for i in range(0, len(address), 8)]
    return socket.inet_ntop(socket.AF_INET6 if len(words) > 1 else socket.AF_INET, b"".join(words))


def rows(report):
    return [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def kill_a_worker(process, output, report, count):
    """Kills a worker when a quarter is done, and returns its process and what was there then."""
    while len(rows(report)) < count // 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    worker = rows(report)[-1]["pid"]
    os.kill(worker, signal.SIGKILL)
    there = {name: identity(path) for name, path in files(output).items() if ".part" not in name}
    assert len(there) < 0.9 * count, "the worker was killed too late"
    return worker, there


def main():
    binary, count, work = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    source, expected, output, report = (work / name for name in ("source", "expected", "output", "report.jsonl"))
    make_images(source, count)
    subprocess.run([binary, "denoise", "-r", "-q", source, "-o", expected], check=True)

    begun = time.monotonic()
    process = start(source, output, report)
    worker, there = kill_a_worker(process, output, report, count)
    open_to = set(addresses_of(str(work / "ray")))
    finish(process, 0, f"{count} images: {count} denoised, 0 already there, 0 failed")
    assert open_to and open_to <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, open_to
    found, wanted = files(output), files(expected)
    assert found.keys() == wanted.keys(), found.keys() ^ wanted.keys()
    for name, path in wanted.items():
        assert found[name].read_bytes() == path.read_bytes(), f"{name} differs from the binary's"
    assert sorted(row["result"] for row in rows(report)) == sorted(wanted), "the report is not complete"
    again = [name for name, known in there.items() if identity(found[name]) != known]
    assert not again, f"written twice: {again}"
    processes = {row["pid"] for row in rows(report)}
    assert len(processes) == WORKERS + 1, f"nobody took the place of {worker}: {processes}"
    print(f"{count} images, {len(there)} when a worker was killed: equal to the binary's ({time.monotonic() - begun:.0f} s)")

    before = {name: identity(path) for name, path in found.items()}
    finish(start(source, output, report), 0, f"{count} images: 0 denoised, {count} already there, 0 failed")
    assert {name: identity(path) for name, path in files(output).items()} == before
    assert len(rows(report)) == count

    jpeg = io.BytesIO()
    Image.open(REPOSITORY / "tests/data/noisy-chelsea.png").convert("RGB").save(jpeg, "jpeg")
    bad = {"a b/cut.jpg": jpeg.getvalue()[:5000], "text.png": b"no image", "moving.gif": b"GIF89a"}
    for name, data in bad.items():
        (source / name).write_bytes(data)
    (source / "good.bmp").write_bytes(next(path for name, path in files(source).items() if name.endswith("bmp")).read_bytes())
    alone = subprocess.run([binary, "denoise", "-r", "-q", source, "-o", expected], capture_output=True)
    said = finish(start(source, output, report), alone.returncode, f"{count + 4} images: 1 denoised, {count} already there, 3 failed")
    assert alone.returncode == 3 and all(f"{source / name}: " in said for name in bad), said
    assert files(output).keys() == before.keys() | {"good.bmp"}
    assert {row["name"] for row in rows(report) if row["code"]} == set(bad)
    print("nothing is done twice, and damaged images are named")


if __name__ == "__main__":
    main()

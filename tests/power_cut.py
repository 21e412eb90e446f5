#!/usr/bin/env python3
"""Tests results after a power cut: `tests/power_cut.py BINARY`.

A file system of its own (ext4 on a loop device) is shut down without writing anything more (FS_IOC_SHUTDOWN, without the
journal) right after a run, and mounted anew. Every result under its final name must then be complete, byte for byte.
Before each cut the journal is written once, so that a file that was renamed and not synced is there and empty, as it is some
seconds after a run. Needs root and loop devices; says so and ends with 0 where they are missing."""

import fcntl
import hashlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHUTDOWN, WITHOUT_JOURNAL = 0x8004587D, 2
ROOT = Path(__file__).resolve().parent.parent
FRAMES = 75


def call(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True)


class Disk:
    """A small ext4 whose power can be cut."""

    def __init__(self, work):
        self.image, self.mount, self.device = work / "disk.img", work / "disk", None
        self.mount.mkdir()

    def make(self):
        """None, or why there can be no such disk here."""
        if os.geteuid() != 0:
            return "it takes root"
        self.image.write_bytes(b"")
        os.truncate(self.image, 256 << 20)
        steps = [["mkfs.ext4", "-q", "-F", self.image], ["losetup", "--find", "--show", self.image]]
        for step in steps:
            if shutil.which(step[0]) is None:
                return f"{step[0]} is missing"
            done = call(*step)
            if done.returncode:
                return f"{step[0]}: {done.stderr.strip()}"
        self.device = done.stdout.strip()
        done = call("mount", "-t", "ext4", self.device, self.mount)
        return done.stderr.strip() if done.returncode else None

    def cut(self):
        """The power goes, and comes back."""
        other = os.open(self.mount / "other", os.O_WRONLY | os.O_CREAT)
        os.write(other, b"x")
        os.fsync(other)
        os.close(other)
        folder = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", WITHOUT_JOURNAL))
        os.close(folder)
        for step in [["umount", self.mount], ["mount", "-t", "ext4", self.device, self.mount]]:
            done = call(*step)
            if done.returncode:
                sys.exit(f"{step[0]}: {done.stderr}")

    def remove(self):
        call("umount", self.mount)
        if self.device:
            call("losetup", "-d", self.device)

    def results(self):
        """Everything under a final name, with its SHA-256."""
        files = [path for path in self.mount.rglob("*") if path.is_file()]
        files = [path for path in files if not path.name.startswith(".eddy-") and ".part." not in path.name]
        return {str(path.relative_to(self.mount)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def y4m(path, frames):
    luma = bytes((x * 7 + y * 13) % 220 + 16 for y in range(120) for x in range(160))
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W160 H120 F25:1 Ip Cmono\n")
        for _ in range(frames):
            file.write(b"FRAME\n" + luma)


def check(name, disk, run, count, whole=True):
    """Runs something on the disk, cuts the power, and compares; `whole` says what is expected."""
    run()
    before = disk.results()
    if len(before) < count:
        sys.exit(f"{name}: {len(before)} results, expected {count} or more")
    disk.cut()
    after = disk.results()
    lost = [path for path, sha in before.items() if after.get(path) != sha]
    if whole == bool(lost):
        sys.exit(f"{name}: of {len(before)} results {len(lost)} are lost or cut off: {lost[:5]}")
    print(f"{name}: {len(before)} results, {len(lost)} lost", flush=True)
    for entry in disk.mount.iterdir():
        if entry.name != "lost+found":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    os.sync()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = Path(sys.argv[1]).resolve()
    work = Path(tempfile.mkdtemp(prefix="eddy-power-"))
    disk = Disk(work)
    try:
        why_not = disk.make()
        if why_not:
            print(f"SKIPPED: no disk whose power can be cut: {why_not}")
            return
        attack(binary, work, disk)
    finally:
        disk.remove()
        shutil.rmtree(work, ignore_errors=True)


def attack(binary, work, disk):
    photograph, film = ROOT / "tests/data/noisy-chelsea.png", work / "in.y4m"
    y4m(film, FRAMES)

    def eddy(*arguments, also=()):
        def run():
            done = call(binary, *arguments, *also)
            if done.returncode:
                sys.exit(f"{arguments} ended with {done.returncode}: {done.stderr}")

        return run

    def interrupted(with_signal, code):
        def run():
            y4m(work / "long.y4m", 3000)
            command = [binary, "denoise", work / "long.y4m", "-o", f"{disk.mount}/frames/", "--sigma", "0"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while len(disk.results()) < 100:
                time.sleep(0.01)
            process.send_signal(with_signal)
            if process.wait() != code:
                sys.exit(f"{with_signal!r}: ended with {process.returncode}")

        return run

    at = disk.mount
    frames = eddy("denoise", film, "-o", f"{at}/new/frames/", "--sigma", "0")
    onnx = ["--task", "denoise", "--prediction", "denoised", "--inputs", "sample=x,sigma=sigma", "--output-name", "denoised"]
    imported = eddy(
        "import", ROOT / "tests/data/models/identity.onnx", "-o", at / "model", "--sigma-range", "0,1", *onnx
    )

    def replaced():
        eddy("denoise", photograph, "-o", at / "a.png", "--sigma", "5")()
        os.sync()
        eddy("denoise", photograph, "-o", at / "a.png", "--sigma", "25")()

    def control():
        (at / "hidden").write_bytes(b"a result" * 1000)
        (at / "hidden").rename(at / "result")

    # What shows that the power was cut: without syncing, results are lost.
    check("a program that does not sync", disk, control, 1, whole=False)
    check("frames, --no-sync", disk, eddy("denoise", film, "-o", f"{at}/new/", "--sigma", "0", "--no-sync"), FRAMES, whole=False)
    check("a new PNG", disk, eddy("denoise", photograph, "-o", at / "a.png"), 1)
    check("a replaced PNG", disk, replaced, 1)
    check("images into a new folder", disk, eddy("denoise", photograph, "-o", f"{at}/new/below/"), 1)
    check("y4m", disk, eddy("denoise", film, "-o", at / "a.y4m", "--sigma", "0"), 1)
    check("numbered frames", disk, frames, FRAMES)
    check("numbered frames, interrupted", disk, interrupted(signal.SIGINT, 130), 100)
    check("numbered frames, killed", disk, interrupted(signal.SIGKILL, -signal.SIGKILL), 100)
    check("import", disk, imported, 4)
    if shutil.which("ffmpeg"):
        check("mp4", disk, eddy("denoise", film, "-o", at / "a.mp4", "--sigma", "0"), 1)
        check("mkv", disk, eddy("denoise", film, "-o", at / "a.mkv", "--sigma", "0"), 1)
    else:
        print("SKIPPED: mp4 and mkv: ffmpeg is not installed")


main()

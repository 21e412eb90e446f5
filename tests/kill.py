#!/usr/bin/env python3
"""Disturbs runs of Eddy at random: `tests/kill.py EDDY [--seed N] [--rounds 500] [--round I] [--seconds S]`.

Each round draws a job (an image, a folder, a stream, `import`, `prepare`, `serve`, ...) and a disturbance (signals at a random
moment or at a random system call, a pause, a full disk, sources or results that vanish, limits of descriptors and memory, errors
of system calls), and then runs the same command again, undisturbed. What must hold:

- a result under its name is whole: equal to that of an undisturbed run, or a stream's first frames where docs/cli.md says so;
- an older result is replaced by a whole one, or not at all;
- the run ends, with an exit code of docs/cli.md, and with one line on stderr where it failed; no panic;
- no program that it started goes on;
- the next run succeeds, and leaves no temporary file of either run.

A round depends on the seed and its number alone (but for the timing of the machine); a violation is printed with the command that
repeats it, and the exit code is 1. Disturbances that cannot be made here are left out, and named: errors of system calls need
strace, a disk of its own needs the right to mount a tmpfs, containers need ffmpeg."""

import argparse
import contextlib
import http.client
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).resolve().parent / "data"
LIMIT = 90  # seconds after which a run hangs
CODES = {0, 1, 2, 3, 4, 5, 6, 130}  # docs/cli.md
MARK = "EDDY_TEST_KILL"  # an environment variable by which the programs of a round are found
ANY_TIME = ["kill", "term", "int", "twice", "term-int", "pause", "paused-term"]
LIMITS = ["descriptors", "fewer-descriptors", "memory", "less-memory"]
DISK = ["full-disk", "file-size", "less-file-size"]
TRACED = ["kill-at-call", "term-at-call", "no-space", "io-error", "no-descriptors", "no-memory", "eintr-write", "eintr-read"]


# Sources.


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


# Jobs. `{in}` and `{out}` are the folders of the sources and of the results.


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


# A run.


class Run:
    """A process, its source if that is fed, and what it prints."""

    def __init__(self, words, place, mark, rng, source=None, before=()):
        environment = {**os.environ, MARK: mark, "XDG_CACHE_HOME": str(place / "out"), "TMPDIR": str(place / "tmp")}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [*map(str, before), *map(str, words)], stdin=pipe if source else subprocess.DEVNULL, stdout=pipe, stderr=pipe,
            env=environment, start_new_session=True, cwd=place,
        )
        self.printed, self.said, self.rng = bytearray(), bytearray(), random.Random(rng.random())
        self.source_gone = self.sink_gone = False
        self.threads = [self.thread(self.read), self.thread(self.hear)]
        if source:
            self.thread(self.feed, source)

    def thread(self, body, *arguments):
        thread = threading.Thread(target=body, args=arguments, daemon=True)
        thread.start()
        return thread

    def feed(self, source):
        """In pieces of any size: short reads."""
        with contextlib.suppress(OSError, ValueError), open(source, "rb", buffering=0) as file, self.process.stdin as pipe:
            while not self.source_gone and (piece := file.read(self.rng.choice([1, 7, 100, 4096, 50000]))):
                pipe.write(piece)
                pipe.flush()

    def read(self):
        """In pieces of any size, so that writes are short, too."""
        while not self.sink_gone and (piece := os.read(self.process.stdout.fileno(), self.rng.choice([10, 512, 65536]))):
            self.printed += piece
        self.process.stdout.close()

    def hear(self):
        while piece := self.process.stderr.read1(65536):
            self.said += piece

    def send(self, number):
        """Whether the process was ready to handle it; unhandled signals end a process at once."""
        try:
            caught = int(re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{self.process.pid}/status").read_text()).group(1), 16)
            self.process.send_signal(number)
            return bool(caught >> (number - 1) & 1)
        except (OSError, AttributeError):
            return True

    def wait(self):
        """The exit code, or None if it hangs."""
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return None
        for thread in self.threads:
            thread.join(10)
        return self.process.returncode


def left_running(mark):
    """Programs of the round that still run after two seconds."""
    text = f"{MARK}={mark}".encode()

    def running():
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and text in (folder / "environ").read_bytes().split(b"\0"):
                    if "State:\tZ" not in (folder / "status").read_text():
                        found.append((int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ")[:60].decode()))
        return found

    for _ in range(40):
        if not (found := running()):
            return []
        time.sleep(0.05)
    for process, _ in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return found


# Disturbances: each returns the exit codes that it allows.


class Disk:
    """A tmpfs in place of the folder of results."""

    def __init__(self, folder, size):
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)

    def grow(self):
        subprocess.run(["mount", "-o", "remount,size=256m", self.folder], check=True)

    def remove(self):
        subprocess.run(["umount", "-l", self.folder], check=True)

    @classmethod
    def works(cls):
        with tempfile.TemporaryDirectory() as folder:
            try:
                cls(folder, "1m").remove()
                return True
            except (OSError, subprocess.CalledProcessError):
                return False


def before_start(kind, rng, job):
    """What goes before the command: limits, or strace with its errors."""
    largest = max(map(len, job.whole.values()))
    at = lambda low, high: int(low * (high / low) ** rng.random())
    trace = lambda calls, what: [
        "strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{what}"
    ]
    calls = "openat|read|write|fsync|rename,renameat,renameat2|unlink,unlinkat|mkdir,mkdirat|close|futex|mmap|statx|execve".split("|")
    write = "write,writev,pwrite64,ftruncate,fallocate"
    match kind:
        case "descriptors":
            return ["prlimit", f"--nofile={at(5, 80)}"]
        case "memory":
            return ["prlimit", f"--as={at(250, 4000) << 20}"]
        case "file-size":
            return ["prlimit", f"--fsize={at(10, 2 * largest)}"]
        case "kill-at-call":
            return trace(rng.choice(calls), f"signal=SIGKILL:when={at(1, 60)}")
        case "term-at-call":
            return trace(rng.choice(calls), f"signal=SIGTERM:when={at(20, 200)}")
        case "no-space":
            return trace(write, f"error=ENOSPC:when={at(1, 60)}+")
        case "io-error":
            return trace("fsync,fdatasync", f"error=EIO:when={rng.randint(1, 3)}+")
        case "no-descriptors":
            return trace("openat,socket,pipe2,memfd_create,dup", f"error=EMFILE:when={at(15, 300)}+")
        case "no-memory":
            return trace("mmap,mremap", f"error=ENOMEM:when={at(30, 400)}+")
        case "eintr-write":
            return trace("write,writev,fsync", f"error=EINTR:when=1+{rng.randint(2, 3)}")
    return []


def disturb(kind, rng, run, job, place):
    """Disturbs a running process at a random moment; returns whether signals found a handler."""
    if kind in TRACED or kind in ("descriptors", "memory", "file-size", "full-disk"):
        return True
    time.sleep(rng.random() * 1.1 * job.seconds)
    gap = rng.choice([0, 0.001, 0.02, 0.3])
    limit = lambda what, value: resource.prlimit(run.process.pid, what, (value, value))
    handled = True
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        match kind:
            case "kill":
                run.send(signal.SIGKILL)
            case "term":
                handled = run.send(signal.SIGTERM)
            case "int":
                handled = run.send(signal.SIGINT)
            case "twice" | "term-int":
                handled = run.send(signal.SIGINT if kind == "twice" else signal.SIGTERM)
                time.sleep(gap)
                run.send(signal.SIGINT)
            case "pause" | "paused-term":
                run.send(signal.SIGSTOP)
                time.sleep(gap)
                handled = kind == "pause" or run.send(signal.SIGTERM)
                run.send(signal.SIGCONT)
            case "fewer-descriptors":
                limit(resource.RLIMIT_NOFILE, rng.randint(0, 30))
            case "less-memory":
                limit(resource.RLIMIT_AS, rng.randint(0, 1500) << 20)
            case "less-file-size":
                limit(resource.RLIMIT_FSIZE, rng.randint(0, max(map(len, job.whole.values()))))
            case "source":
                lose_source(rng, run, job, place / "in" / job.source)
            case "sink":
                if job.prints:
                    run.sink_gone = True
                else:
                    shutil.rmtree(place / "out", ignore_errors=True)
    return handled


def lose_source(rng, run, job, source):
    run.source_gone = True
    if job.feeds:
        return
    if source.is_dir():
        shutil.rmtree(source, ignore_errors=True)
    elif rng.random() < 0.5:
        source.unlink()
    else:
        os.truncate(source, rng.randrange(source.stat().st_size))


def allowed_codes(kind, job, handled):
    if kind in ("kill", "kill-at-call"):
        return {0, -signal.SIGKILL}
    if kind in ("pause", "eintr-write", "eintr-read"):
        return {0}
    if kind in ("term", "int", "twice", "term-int", "paused-term", "term-at-call"):
        unhandled = {-signal.SIGTERM, -signal.SIGINT} if not handled or kind == "term-at-call" else set()
        return {0, 130} | unhandled
    if kind == "source":
        return {0, 3, 4} if job.name in ("import", "prepare") else {0, 3}
    if kind in ("sink", "full-disk", "io-error"):
        return {0, 1}
    if kind in DISK or kind == "no-space":
        # ONNX Runtime is unpacked into a file, in memory.
        return {0, 1, 5}
    return CODES - {2, 130} if job.name not in ("import", "prepare") else CODES - {130}


# What must hold.


def frames_of(stream):
    """A y4m's header and frames; None if it is damaged."""
    head, end, rest = stream.partition(b"\n")
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) ", head)
    if not found or not end:
        return None
    size = 6 + int(found[1]) * int(found[2]) * 3 // 2
    return (head, [rest[i : i + size] for i in range(0, len(rest), size)]) if len(rest) % size == 0 else None


def decoded(content, name):
    """The checksums of a container's frames by ffmpeg, or what is wrong with it."""
    with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
        file.write(content)
        file.flush()
        command = ["ffmpeg", "-v", "error", "-xerror", "-i", file.name, "-map", "0:v", "-f", "framemd5", "-"]
        done = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split(",")[-1].strip() for line in done.stdout.splitlines() if line and line[0] != "#"]
    return done.stderr.strip() or "damaged" if done.returncode else lines


def is_same(name, content, whole):
    """Containers are compared by their frames: Matroska has random numbers inside."""
    is_container = name.endswith(("mp4", "mkv")) and content and whole
    return content == whole or bool(is_container) and decoded(content, name) == decoded(whole, name)


def result_problem(name, content, whole, code, raw_frame):
    """What is wrong with a result that is not equal to the whole one; streams may have fewer frames, see docs/cli.md."""
    if name.endswith(("mp4", "mkv")):
        found, expected = decoded(content, name), decoded(whole, name)
        if isinstance(found, str):
            return found
        return None if found == expected or (code != 0 and len(found) < len(expected)) else f"{len(found)} other frames"
    if code in (1, 3, 130) and name.endswith("y4m"):
        found, expected = frames_of(content), frames_of(whole)
        return None if found and found[0] == expected[0] and found[1] == expected[1][: len(found[1])] else "not whole frames"
    if code in (1, 3, 130) and name.endswith("raw"):
        return None if whole.startswith(content) and len(content) % raw_frame == 0 else "not whole frames"
    return f"{len(content)} bytes, {len(whole)} expected, different"


def check_results(job, found, older, code, kind):
    """Problems of the results under their names."""
    problems = []
    source_gone, sink_gone = kind == "source", kind == "sink"
    for name, content in found.items():
        if is_temporary(name):
            continue
        if is_recording(name):
            if b"moof" in content and isinstance(text := decoded(content, name), str):
                problems.append(f"{name} is not playable: {text}")
            continue
        if name not in job.whole:
            if not (source_gone and job.name == "prepare"):
                problems.append(f"{name}: unexpected")
            continue
        if content == job.whole[name] or (content == older.get(name) and code != 0):
            continue
        # A source that ends between two frames has ended (docs/streams.md).
        effective = 3 if source_gone and code == 0 else code
        if problem := result_problem(name, content, job.whole[name], effective, 96 * 64 * 6):
            problems.append(f"{name}: {problem}")
    missing = [name for name in job.whole if name not in found and name != "-"]
    if code == 0 and missing and not source_gone and not sink_gone:
        problems.append(f"exit code 0 without {missing[:3]}")
    return problems


def check_printed(job, printed, code, kind):
    """Problems of what was written to standard output."""
    whole = job.whole["-"]
    if printed == whole:
        return []
    if kind in ("sink", "kill", "kill-at-call") or code is None or code < 0:
        return [] if whole.startswith(printed) else ["the output is different"]
    if code == 0 and kind != "source":
        return [f"exit code 0, but {len(printed)} of {len(whole)} bytes"]
    if job.name == "image-pipe":
        # The first bytes may be on their way when writing fails or a run is ended.
        return [] if whole.startswith(printed) else ["the output is different"]
    if not printed:
        return []
    problem = result_problem("y4m", printed, whole, 3, 0)
    # A frame is written in pieces: a second signal, or an error of the pipe, may end it.
    is_cut = kind not in ("term", "int", "pause", "paused-term", "source")
    return [] if not problem or (is_cut and whole.startswith(printed)) else [f"the output: {problem}"]


def check_words(said, code, kind):
    """Problems of what was said. A second signal ends a run at once, without a word."""
    text = said.decode(errors="replace")
    problems = []
    if found := re.search(r"panicked|RUST_BACKTRACE|terminate called|stack overflow|core dumped|\x1b", text):
        problems.append(f"says {found[0]!r}")
    if "error while loading shared libraries" in text:
        return problems  # the system could not start the program
    lines = [line for line in text.splitlines() if line.startswith("eddy: ")]
    if code is not None and code > 0 and not lines and not (code == 130 and kind in ("twice", "term-int")):
        problems.append("no line that begins with `eddy: `")
    return problems


# A round.


class Harness:
    def __init__(self, eddy, seed):
        self.eddy, self.seed = Path(eddy).resolve(), seed
        self.work = Path(tempfile.mkdtemp(prefix="eddy-kill-"))
        self.jobs = JOBS + (WITH_FFMPEG if shutil.which("ffmpeg") else [])
        self.counts, self.codes, self.violations = Counter(), Counter(), 0
        self.can_trace = shutil.which("strace") is not None
        self.can_mount = Disk.works()

    def prepare(self):
        sources(self.work / "sources")
        for job in self.jobs:
            for _ in range(2):
                place = self.place(job)
                begun = time.monotonic()
                run = self.start(job, place, "first", random.Random(0))
                code = run.wait()
                job.seconds = time.monotonic() - begun
                if code:
                    sys.exit(f"{job.name}: undisturbed, the exit code is {code}: {run.said.decode()}")
                found = files(place / "out")
                if job.prints:
                    found["-"] = bytes(run.printed)
                if job.whole and job.whole != found:
                    different = [name for name in {**found, **job.whole} if not is_same(name, found.get(name), job.whole.get(name))]
                    if different:
                        sys.exit(f"{job.name}: two undisturbed runs differ in {different}")
                job.whole = found

    def place(self, job):
        place = self.work / "place"
        shutil.rmtree(place, ignore_errors=True)
        (place / "out").mkdir(parents=True)
        (place / "tmp").mkdir()
        self.bring_source(job, place)
        return place

    def bring_source(self, job, place):
        shutil.rmtree(place / "in", ignore_errors=True)
        (place / "in").mkdir()
        source = self.work / "sources" / job.source
        if job.source:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / "in" / job.source)

    def start(self, job, place, mark, rng, before=()):
        words = [self.eddy, *job.words(place), *(["--timeout", "30"] if job.name not in ("import", "generate") else [])]
        source = place / "in" / job.source if job.feeds else None
        return Run(words, place, mark, rng, source, before)

    def kinds(self, job):
        """The disturbances that fit a job."""
        kinds = ANY_TIME * 2 + LIMITS
        kinds += ["source"] * 2 if job.source else []
        kinds += ["sink"] * 2
        if not job.prints:
            kinds += [kind for kind in DISK if kind != "full-disk" or self.can_mount]
        if self.can_trace and "mp4" not in job.name:
            kinds += [kind for kind in TRACED if kind != "eintr-read" or (job.source and not job.feeds)]
        return kinds

    def round(self, number):
        rng = random.Random(f"{self.seed}/{number}")
        name = rng.choice([job.name for job in self.jobs] + ["serve"])
        if name == "serve":
            what, problems = serve_round(self, rng, f"{os.getpid()}-{number}")
        else:
            job = next(job for job in self.jobs if job.name == name)
            what, problems = self.job_round(job, rng, f"{os.getpid()}-{number}")
        self.counts[what.split()[1].strip(",")] += 1
        if problems:
            self.violations += 1
            print(f"VIOLATED in round {number} ({what}):")
            for problem in problems:
                print(f"    {problem}")
            print(f"    repeat: tests/kill.py {self.eddy} --seed {self.seed} --round {number}", flush=True)

    def job_round(self, job, rng, mark):
        kind = rng.choice(self.kinds(job))
        place = self.place(job)
        older = self.older_results(job, place, rng)
        disk = None
        try:
            if kind == "full-disk":
                largest = sum(map(len, job.whole.values()))
                disk = Disk(place / "out", rng.randrange(4096, largest + 8192))
                older = {}
            before = before_start(kind, rng, job)
            if kind == "eintr-read":
                path = place / "in" / job.source
                path = sorted(path.iterdir())[0] if path.is_dir() else path
                before = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e", "inject=read,pread64:error=EINTR:when=1+2"]
            run = self.start(job, place, mark, rng, before)
            handled = disturb(kind, rng, run, job, place)
            code = run.wait()
            self.codes[code] += 1
            what = f"{job.name}: {kind} {' '.join(map(str, before[-2:]))}, exit code {code}"
            problems = self.check(job, run, place, older, code, kind, handled, mark)
            if disk:
                disk.grow()
            problems += self.check_next(job, place, rng, kind, mark)
            return what, problems
        finally:
            if disk:
                disk.remove()

    def older_results(self, job, place, rng):
        """Sometimes there is a result already."""
        if job.name in ("import", "prepare") or job.prints or rng.random() < 0.5:
            return {}
        older = {name: b"an older result" for name in job.whole}
        for name, content in older.items():
            (place / "out" / name).parent.mkdir(exist_ok=True)
            (place / "out" / name).write_bytes(content)
        return older

    def check(self, job, run, place, older, code, kind, handled, mark):
        if code is None:
            return [f"hangs for {LIMIT} s: {run.said.decode(errors='replace')[-300:]}"]
        problems = []
        did_start = b"error while loading shared libraries" not in run.said
        if did_start and code not in allowed_codes(kind, job, handled):
            problems.append(f"exit code {code}, expected one of {sorted(allowed_codes(kind, job, handled))}")
        problems += check_words(run.said, code, kind)
        problems += check_results(job, files(place / "out"), older, code, kind)
        if job.prints:
            problems += check_printed(job, bytes(run.printed), code, kind)
        problems += [f"goes on: {process}" for process in left_running(mark)]
        problems += [f"in TMPDIR: {name}" for name in files(place / "tmp")]
        if problems:
            problems.append(f"it said: {run.said.decode(errors='replace')[-400:]}")
        return problems

    def check_next(self, job, place, rng, kind, mark):
        """The same command again, undisturbed."""
        self.bring_source(job, place)
        (place / "out").mkdir(exist_ok=True)
        if job.name == "import":
            shutil.rmtree(place / "out/model", ignore_errors=True)
        run = self.start(job, place, f"{mark}-next", rng)
        code = run.wait()
        if code != 0:
            return [f"next run: exit code {code}: {run.said.decode(errors='replace')[-400:]}"]
        found = files(place / "out")
        problems = [f"after the next run: {name}" for name in found if is_temporary(name)]
        if kind in ("pause", "source", "term", "int"):
            problems += [f"after the next run: {name}" for name in found if is_recording(name)]
        if job.prints:
            found["-"] = bytes(run.printed)
        problems += [f"next run: {name} is different" for name in job.whole if not is_same(name, found.get(name), job.whole[name])]
        return problems + [f"next run, in TMPDIR: {name}" for name in files(place / "tmp")]


# `eddy serve`.


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=LIMIT)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, body):
    """The answer to an image; None without a whole one."""
    try:
        connection = UnixConnection(path)
        connection.request("PUT", "/v1/denoise?sigma=20&format=png", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def start_server(harness, place, mark, rng):
    words = [harness.eddy, "serve", "-l", f"unix:{place}/out/s", "-m", "denoise-fast", "--timeout", "30", "--log", "off"]
    run = Run(words, place, mark, rng)
    until = time.monotonic() + LIMIT
    while b"ready" not in run.said and run.process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return run


def serve_round(harness, rng, mark):
    kind = rng.choice(ANY_TIME + ["fewer-descriptors", "less-memory"])
    place = harness.work / "place"
    shutil.rmtree(place, ignore_errors=True)
    (place / "out").mkdir(parents=True)
    (place / "tmp").mkdir()
    body = (harness.work / "sources/images/0.png").read_bytes()
    whole = next(job for job in harness.jobs if job.name == "folder").whole["images/0.png"]
    run = start_server(harness, place, mark, rng)
    answers, over = [], threading.Event()

    def client():
        while not over.is_set() and run.process.poll() is None:
            answers.append(ask(place / "out/s", body))

    clients = [run.thread(client) for _ in range(3)]
    time.sleep(rng.random())
    before = resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE)
    job = Job("serve", "", "", whole={"": b""}, seconds=0.3)
    handled = disturb(kind, rng, run, job, place)
    problems = []
    if kind in ("pause", "fewer-descriptors"):
        time.sleep(0.3)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(run.process.pid, resource.RLIMIT_NOFILE, before)
        if ask(place / "out/s", body) != (200, whole):
            problems.append("does not answer afterwards")
    over.set()
    if kind in ("pause", "fewer-descriptors", "less-memory"):
        for thread in clients:
            thread.join(LIMIT)
        run.send(signal.SIGTERM)
    code = run.wait()
    harness.codes[code] += 1
    allowed = {"kill": {-signal.SIGKILL}, "twice": {0, 130}, "term-int": {0, 130}, "less-memory": {0, 1}}.get(kind, {0})
    if code not in allowed | (set() if handled else {-signal.SIGTERM, -signal.SIGINT}):
        problems.append(f"exit code {code}, expected one of {sorted(allowed)}")
    problems += check_words(run.said, code, kind)
    problems += ["an answer of 200 is different" for it in answers if it and it[0] == 200 and it[1] != whole][:1]
    problems += [f"goes on: {process}" for process in left_running(mark)]
    if problems:
        problems.append(f"it said: {run.said.decode(errors='replace')[-400:]}")
    # The next server has the same socket.
    following = start_server(harness, place, f"{mark}-next", rng)
    if ask(place / "out/s", body) != (200, whole):
        problems.append(f"the next server does not answer: {following.said.decode(errors='replace')[-300:]}")
    following.send(signal.SIGTERM)
    if following.wait() != 0:
        problems.append(f"the next server ends with {following.process.returncode}")
    problems += [f"after the next server: {path.name}" for path in (place / "out").iterdir()]
    return f"serve: {kind}, exit code {code}", problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eddy", metavar="EDDY")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--round", type=int, help="only this one")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further round after this time")
    options = parser.parse_args()
    harness = Harness(options.eddy, options.seed)
    for able, what in [(harness.can_trace, "strace is missing: no errors of system calls"),
                       (harness.can_mount, "no tmpfs can be mounted: full disks only by a limit of file sizes"),
                       (shutil.which("ffmpeg"), "ffmpeg is missing: no containers")]:
        if not able:
            print(f"SKIPPED: {what}")
    begun = time.monotonic()
    try:
        harness.prepare()
        rounds = range(options.rounds) if options.round is None else [options.round]
        done = 0
        for number in rounds:
            if time.monotonic() - begun > options.seconds:
                break
            harness.round(number)
            done += 1
        print(f"{done} rounds of seed {options.seed} in {time.monotonic() - begun:.0f} s, {harness.violations} violations")
        print("disturbances:", ", ".join(f"{name} {count}" for name, count in sorted(harness.counts.items())))
        print("exit codes:", ", ".join(f"{code}: {count}" for code, count in sorted(harness.codes.items(), key=str)))
    finally:
        shutil.rmtree(harness.work, ignore_errors=True)
    sys.exit(harness.violations > 0)


main()

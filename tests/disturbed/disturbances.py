"""What happens to a run, and the exit codes that it may then have."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time

CODES = {0, 1, 2, 3, 4, 5, 6, 130}  # docs/cli.md
ANY_TIME = ["kill", "term", "int", "twice", "term-int", "pause", "paused-term"]
LIMITS = ["descriptors", "fewer-descriptors", "memory", "less-memory"]
DISK = ["full-disk", "file-size", "less-file-size"]
TRACED = ["kill-at-call", "term-at-call", "no-space", "io-error", "no-descriptors", "no-memory", "eintr-write", "eintr-read"]


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


def allowed_codes(kind, job, handled, said):
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
    # glibc aborts where it has no memory for itself.
    aborted = {-signal.SIGABRT} if b"Fatal glibc error" in said else set()
    return CODES - {130} | aborted

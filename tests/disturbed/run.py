"""A run of Eddy that is fed and read in pieces of any size."""

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

LIMIT = 90  # seconds after which a run hangs
MARK = "EDDY_TEST_KILL"  # an environment variable by which the programs of a round are found


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

#!/usr/bin/env python3
"""Runs one long stream and measures whether it stays as it is: `tests/soak.py EDDY [--frames N] [--minutes M] [--fps R]
[--size WxH]`.

A source of small, noisy frames serves them over TCP, at a rate, and breaks the connection now and then; `eddy denoise --temporal
--fps R --preview --reconnect` reads it, and a reader takes the result. Clients of the live view come and go, some in the middle of
an answer. Each frame carries its number as a pattern of dark and bright squares, by which the reader measures its latency, from
sending to reading. The run is divided into ten parts; the first is the warm-up. It fails where, after that, memory differs by more
than 2 %, descriptors or threads are more (but for the connections of clients that are open), p99 of the latency is more than twice
that of the other parts, or the run ends with another exit code than 130. Needs ffmpeg, which connects to the source."""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

PARTS = 10
BITS = 16


class Source(threading.Thread):
    """A camera of the network: one client at a time, frames at a rate; a connection lasts some seconds."""

    def __init__(self, width, height, fps, rng):
        super().__init__(daemon=True)
        self.width, self.height, self.fps, self.rng = width, height, fps, rng
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.sent, self.sent_at, self.connections, self.over = 0, {}, 0, False
        noise = bytes(100 + i // 8 for i in range(256))
        self.noise = [rng.randbytes(width * height).translate(noise) for _ in range(16)]
        self.chroma = bytes([128]) * (width * height // 2)

    def frame(self):
        """A static scene with noise; the number is in the top row of squares, the first bit on the left."""
        luma = bytearray(self.noise[self.rng.randrange(16)])
        side = self.width // BITS
        row = b"".join(bytes([220 if self.sent >> bit & 1 else 40]) * side for bit in range(BITS))
        for y in range(side):
            luma[y * self.width : y * self.width + len(row)] = row
        return b"FRAME\n" + bytes(luma) + self.chroma

    def run(self):
        while not self.over:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            ends = time.monotonic() + self.rng.uniform(20, 40)
            with connection, contextlib.suppress(OSError):
                connection.sendall(f"YUV4MPEG2 W{self.width} H{self.height} F{self.fps}:1 Ip C420jpeg\n".encode())
                due = time.monotonic()
                while not self.over and time.monotonic() < ends:
                    frame = self.frame()
                    self.sent_at[self.sent % (1 << BITS)] = time.monotonic()
                    connection.sendall(frame)
                    self.sent += 1
                    due = max(due + 1 / self.fps, time.monotonic() - 1)
                    time.sleep(max(0, due - time.monotonic()))


class Reader(threading.Thread):
    """Reads the result, and measures the latency of each frame."""

    def __init__(self, pipe, source):
        super().__init__(daemon=True)
        self.pipe, self.source = pipe, source
        self.frames, self.latencies, self.unknown = 0, [], 0

    def run(self):
        width, height = self.source.width, self.source.height
        self.pipe.readline()
        side = width // BITS
        middles = [side // 2 * width + bit * side + side // 2 for bit in range(BITS)]
        while len(frame := self.pipe.read(6 + width * height * 3 // 2)) == 6 + width * height * 3 // 2:
            number = sum((frame[6 + at] > 130) << bit for bit, at in enumerate(middles))
            sent = self.source.sent_at.get(number)
            self.frames += 1
            if sent is None or time.monotonic() - sent > 60:
                self.unknown += 1
            else:
                self.latencies.append(time.monotonic() - sent)


class Viewers(threading.Thread):
    """Clients of the live view: pages, metrics, streams of frames, some that leave without reading."""

    def __init__(self, url, rng):
        super().__init__(daemon=True)
        self.url, self.rng, self.requests, self.failures = url, rng, 0, []

    def run(self):
        host, port = re.match(r"http://([^:/]+):(\d+)", self.url).groups()
        paths = ["/", "/page.js", "/status", "/metrics", "/pair", "/pair?seen=0", "/nothing"]
        while True:
            path = self.rng.choice(paths)
            try:
                with socket.create_connection((host, int(port)), timeout=20) as connection:
                    for _ in range(self.rng.choice([1, 1, 5])):
                        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                    if self.rng.random() < 0.7:
                        if not connection.recv(65536).startswith(b"HTTP/1.1"):
                            self.failures.append(f"{path}: no answer")
                self.requests += 1
            except OSError as error:
                self.failures.append(f"{path}: {error}")
            time.sleep(self.rng.uniform(0, 0.2))


def process_figures(process):
    status = Path(f"/proc/{process}/status").read_text()
    figure = lambda name: int(re.search(rf"{name}:\s+(\d+)", status).group(1))
    return {
        "memory": figure("VmRSS") / 1024,
        "anonymous": figure("RssAnon") / 1024,
        "threads": figure("Threads"),
        "descriptors": len(os.listdir(f"/proc/{process}/fd")),
    }


def quantile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def soak(options):
    rng = random.Random(options.seed)
    width, height = map(int, options.size.split("x"))
    source = Source(width, height, options.fps, rng)
    source.start()
    command = [
        options.eddy, "denoise", f"tcp://127.0.0.1:{source.listener.getsockname()[1]}", "-o", "-", "--temporal",
        "--fps", str(options.fps), "--preview=127.0.0.1:0", "--reconnect", "60", "--json",
    ]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = []
    heard = threading.Event()

    def hear():
        for line in run.stderr:
            said.append(line.decode(errors="replace"))
            heard.set()

    threading.Thread(target=hear, daemon=True).start()
    reader = Reader(run.stdout, source)
    reader.start()
    url = None
    while url is None and run.poll() is None:
        heard.wait(1)
        url = next((found[0] for line in said if (found := re.search(r"http://\S+", line))), None)
    if url is None:
        sys.exit(f"it does not start: {''.join(said)}")
    viewers = Viewers(url, rng)
    viewers.start()
    parts = measure(options, run, source, reader)
    run.send_signal(signal.SIGTERM)
    code = run.wait(60)
    source.over = True
    return command, parts, code, said, source, reader, viewers


def measure(options, run, source, reader):
    """The figures of the parts of the run."""
    begun, parts, samples, first = time.monotonic(), [], [], 0
    seconds = options.minutes * 60 if options.minutes else float("inf")
    print("  part  seconds  frames    fps  memory MiB  of it anonymous  threads  descriptors  p50 ms  p99 ms", flush=True)
    while len(parts) < PARTS and run.poll() is None:
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            samples.append(process_figures(run.pid))
        passed = time.monotonic() - begun
        progress = max(reader.frames / options.frames, passed / seconds)
        if progress * PARTS < len(parts) + 1:
            continue
        middle = {name: statistics.median(sample[name] for sample in samples) for name in samples[0]}
        least = {f"least_{name}": min(sample[name] for sample in samples) for name in ("threads", "descriptors")}
        latencies, reader.latencies = reader.latencies, []
        before = sum(part["seconds"] for part in parts)
        part = {**middle, **least, "seconds": passed - before, "frames": reader.frames - first}
        part["p50"], part["p99"] = 1e3 * quantile(latencies, 0.5), 1e3 * quantile(latencies, 0.99)
        first, samples = reader.frames, []
        parts.append(part)
        print(f"{len(parts):6} {part['seconds']:8.0f} {part['frames']:7} {part['frames'] / part['seconds']:6.1f} "
              f"{part['memory']:11.1f} {part['anonymous']:16.1f} {part['threads']:8.0f} {part['descriptors']:12.0f} "
              f"{part['p50']:7.1f} {part['p99']:7.1f}", flush=True)
    return parts


def problems_of(parts, code, said, reader, viewers):
    problems = []
    if len(parts) < PARTS or code != 130:
        problems.append(f"it ended with exit code {code} in part {len(parts) + 1}: {''.join(said[-5:])}")
        return problems
    warm = parts[1:]
    memory = [part["memory"] for part in warm]
    if max(memory) > 1.02 * min(memory):
        problems.append(f"memory is {min(memory):.1f} to {max(memory):.1f} MiB")
    for name in ("threads", "descriptors"):
        # A client may be connected, or the source disconnected, at any moment: the least counts.
        if warm[-1][f"least_{name}"] > warm[0][f"least_{name}"]:
            problems.append(f"{name} grow from {warm[0][f'least_{name}']} to {warm[-1][f'least_{name}']}")
    p99 = [part["p99"] for part in warm]
    if p99[-1] > 2 * statistics.median(p99):
        problems.append(f"p99 of the last part is {p99[-1]:.0f} ms, the median {statistics.median(p99):.0f} ms")
    if reader.unknown > reader.frames / 100:
        problems.append(f"{reader.unknown} of {reader.frames} frames are not recognized")
    if len(viewers.failures) > viewers.requests / 100:
        problems.append(f"{len(viewers.failures)} requests failed: {viewers.failures[-3:]}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("eddy", metavar="EDDY")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, help="end after this time, even with fewer frames")
    parser.add_argument("--fps", type=int, default=100)
    parser.add_argument("--size", default="96x64", help="WxH, even")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    command, parts, code, said, source, reader, viewers = soak(options)
    problems = problems_of(parts, code, said, reader, viewers)
    summary = next((json.loads(line) for line in reversed(said) if line.startswith('{"') and '"summary"' in line), {})
    print(f"{reader.frames} frames, {source.connections} connections to the source, {viewers.requests} requests, "
          f"{len(viewers.failures)} failed {viewers.failures[:3]}, {reader.unknown} frames not recognized")
    names = ("read", "written", "dropped", "late", "reconnected", "changes", "tiles_repeated", "passed_through", "latency_p99_ms")
    print("summary:", ", ".join(f"{name} {summary.get(name)}" for name in names))
    for problem in problems:
        print(f"VIOLATED: {problem}")
    sys.exit(bool(problems))


main()

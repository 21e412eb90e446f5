"""A server that is disturbed while clients ask it."""

import contextlib
import http.client
import resource
import shutil
import signal
import socket
import threading
import time

from .disturbances import ANY_TIME, disturb
from .invariants import check_words
from .jobs import Job
from .run import LIMIT, Run, left_running


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
    whole = harness.run_undisturbed(harness.job("folder")).whole["images/0.png"]
    place = harness.work / "place"
    shutil.rmtree(place, ignore_errors=True)
    (place / "out").mkdir(parents=True)
    (place / "tmp").mkdir()
    body = (harness.work / "sources/images/0.png").read_bytes()
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
    if b"Fatal glibc error" in run.said:
        allowed = allowed | {-signal.SIGABRT}
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

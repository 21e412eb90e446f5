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
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from disturbed.disturbances import ANY_TIME, DISK, LIMITS, TRACED, Disk, allowed_codes, before_start, disturb
from disturbed.invariants import check_printed, check_results, check_words, is_same
from disturbed.jobs import JOBS, WITH_FFMPEG, files, is_recording, is_temporary
from disturbed.run import LIMIT, Run, left_running
from disturbed.serve import serve_round
from disturbed.sources import sources


class Harness:
    def __init__(self, eddy, seed):
        self.eddy, self.seed = Path(eddy).resolve(), seed
        self.work = Path(tempfile.mkdtemp(prefix="eddy-kill-"))
        self.jobs = JOBS + (WITH_FFMPEG if shutil.which("ffmpeg") else [])
        self.counts, self.codes, self.violations = Counter(), Counter(), 0
        self.can_trace = shutil.which("strace") is not None
        self.can_mount = Disk.works()

    def run_undisturbed(self, job):
        """Twice, the first time that a job is needed: two results must be equal."""
        for _ in range(0 if job.whole else 2):
            place = self.place(job)
            begun = time.monotonic()
            run = self.start(job, place, "undisturbed", random.Random(0))
            code = run.wait()
            job.seconds = time.monotonic() - begun
            if code != 0:
                sys.exit(f"{job.name}: undisturbed, the exit code is {code}: {run.said.decode()}")
            found = files(place / "out")
            if job.prints:
                found["-"] = bytes(run.printed)
            names = {**found, **job.whole} if job.whole else {}
            different = [name for name in names if not is_same(name, found.get(name), job.whole.get(name))]
            if different:
                sys.exit(f"{job.name}: two undisturbed runs differ in {different}")
            job.whole = found
        return job

    def job(self, name):
        return next(job for job in self.jobs if job.name == name)

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
            job = self.run_undisturbed(self.job(name))
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
        allowed = allowed_codes(kind, job, handled, run.said)
        if did_start and code not in allowed:
            problems.append(f"exit code {code}, expected one of {sorted(allowed)}")
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
        sources(harness.work / "sources")
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

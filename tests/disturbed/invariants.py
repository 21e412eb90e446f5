"""What must hold after a run."""

import re
import subprocess
import tempfile
from pathlib import Path

from .jobs import is_recording, is_temporary


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
    # Standard error may have no space either.
    is_mute = kind == "no-space" or (code == 130 and kind in ("twice", "term-int"))
    lines = [line for line in text.splitlines() if line.startswith("eddy: ")]
    if code is not None and code > 0 and not lines and not is_mute:
        problems.append("no line that begins with `eddy: `")
    return problems

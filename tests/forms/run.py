#!/usr/bin/env python3
"""Runs networks of many forms (make_forms.py), and compares the results with numpy's.

`run.py EDDY [--only NAME] [--keep FOLDER]`; NAME may have wildcards. Of each form: `eddy import`, `eddy check`, the task's command
with the package, and with `--tile 48`, and of some as a bare .onnx. Prints a table; exit code 1 if anything differs.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import support
from support import Failure, command

HERE = pathlib.Path(__file__).resolve().parent


def source_and_sink(form, output):
    """The arguments but the model, and the file that is written."""
    task, inputs = form["task"], form["inputs"]
    suffix = {"stream": "y4m", "sample": "npy", "generate": "npy"}.get(task, "png")
    output = output.with_suffix(f".{suffix}")
    if task == "sample":
        return ["sample", "--input", inputs[0], "-o", output], output
    if task == "generate":
        return ["generate", "--initial-noise", inputs[0], "-o", output], output
    if task == "stream":
        return ["denoise", *inputs, "-o", output, "--temporal=off"], output
    return [task, *inputs, "-o", output], output


def read(path):
    import numpy as np

    if path.suffix == ".npy":
        return np.load(path).astype(np.float64)
    return support.read_y4m(path) if path.suffix == ".y4m" else support.read_png(path)[None]


def difference(form, folder, output):
    """The largest difference from what is expected, within the crop, as a share of values beyond 1."""
    import numpy as np

    expected, found = np.load(folder / form["expected"]).astype(np.float64), read(output)
    if found.shape != expected.shape:
        raise Failure(f"the result is {list(found.shape)} and not {list(expected.shape)}")
    if form["task"] != "sample":
        found = np.clip(found, 0, 1)
    y0, x0, y1, x1 = form["crop"] or (0, 0, *expected.shape[2:])
    errors = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    return errors[:, :, y0:y1, x0:x1].max()


def run(binary, form, folder, name, model, *more):
    arguments, output = source_and_sink(form, folder / f"{form['name']}.{name}")
    model = [model] if form["task"] == "sample" else ["-m", model]
    command(binary, *arguments, *model, *form["options"], *more, folder=folder)
    error = difference(form, folder, output)
    if not error <= form["tolerance"]:
        raise Failure(f"{name}: differs by {error:.1e}, not {form['tolerance']:.0e}")
    return error


def check_form(binary, form, folder):
    """The largest differences: as a package, in tiles, straight from the file."""
    package = folder / "packages" / form["name"]
    command(binary, "import", form["file"], "-o", package, *form["flags"], folder=folder)
    command(binary, "check", package, folder=folder)
    yield run(binary, form, folder, "package", package)
    yield run(binary, form, folder, "tiles", package, "--tile", 48) if form["tile"] else None
    # A command is a task by itself.
    flags = form["flags"][2:] if "--task" in form["flags"][:1] else form["flags"]
    yield run(binary, form, folder, "direct", form["file"], *flags) if form["direct"] else None


def check_refused(binary, form, folder):
    """Nonsense is refused with a word, and with an exit code of a request or a model, by import and by denoise."""
    package = folder / "packages" / form["name"]
    for arguments in (["import", form["file"], "-o", package], ["denoise", "noisy.png", "-o", "nonsense.png", "-m", form["file"]]):
        said = command(binary, *arguments, folder=folder, code=(2, 3, 4))
        if not said.strip() or "panicked" in said:
            raise Failure(f"{arguments[0]} says: {said.strip()[:200] or 'nothing'}")
    if package.exists():
        raise Failure("import left a package")


def check(binary, form, folder):
    """The cells of a form's line, and what is wrong."""
    cells = []
    try:
        if form["refused"]:
            check_refused(binary, form, folder)
            return ["refused"], ""
        for error in check_form(binary, form, folder):
            cells.append("" if error is None else f"{error:.1e}")
        return cells, ""
    except Failure as failure:
        return [*cells, "FAILED"], f"\n    {failure}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--only", metavar="NAME", default="*", help="forms of this name, which may have wildcards")
    parser.add_argument("--keep", metavar="FOLDER", type=pathlib.Path, help="make the networks there, and keep them")
    options = parser.parse_args()
    support.ensure_packages()
    binary = options.binary.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or pathlib.Path(temporary)).resolve()
        subprocess.run([sys.executable, HERE / "make_forms.py", folder], check=True)
        shutil.rmtree(folder / "packages", ignore_errors=True)
        (folder / "packages").mkdir()
        forms = [form for form in json.loads((folder / "forms.json").read_text()) if fnmatch.fnmatch(form["name"], options.only)]
        failures = 0
        print(f"{'form':18} {'package':>8} {'tiles':>8} {'direct':>8}  flags")
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for form, (cells, problem) in zip(forms, threads.map(lambda form: check(binary, form, folder), forms)):
                failures += bool(problem)
                cells += [""] * (3 - len(cells))
                flags = " ".join(form.get("flags", []))
                print(f"{form['name']:18} {cells[0]:>8} {cells[1]:>8} {cells[2]:>8}  {flags}{problem}", flush=True)
    print(f"{len(forms) - failures} of {len(forms)} forms")
    sys.exit(1 if failures or not forms else 0)


if __name__ == "__main__":
    main()

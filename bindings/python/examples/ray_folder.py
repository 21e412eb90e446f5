#!/usr/bin/env python3
"""Denoises the images below a folder or in a bucket with Ray Data, each to the result that `eddy denoise` gives.

    pip install eddy-diffusion "ray[data]"
    python ray_folder.py photos/ clean/ --workers 4
    python ray_folder.py s3://archive/raw s3://archive/clean --address auto --workers 100 --threads 2

Names and subfolders are kept. What the output holds is skipped, so that a run which was stopped goes on where it was. Images that
fail are named on stderr, and the exit code is that of `eddy denoise`. With --address the workers of that Ray cluster need the package
eddy-diffusion and the same paths or buckets; without it, Ray runs on this machine alone, and only this machine can reach it.
"""

import argparse
import functools
import json
import logging
import os
import posixpath
import shutil
import stat
import sys
import tempfile
import time

import eddy

EXIT_CODES = {eddy.UsageError: 2, eddy.InputError: 3, eddy.ModelError: 4, eddy.DeviceError: 6}
INPUT, OUTPUT = 3, 1
BLOCKS_PER_WORKER = 64
TRIES = 3


class Place:
    """A folder of this machine, or a folder in a bucket. Names below it are bytes, with slashes."""

    def __init__(self, where):
        self.where = where.rstrip("/") or "/"
        self.is_bucket = "://" in where
        if self.is_bucket:
            from pyarrow.fs import FileSystem

            try:
                self.files, self.root = FileSystem.from_uri(self.where)
            except ValueError as error:
                raise eddy.UsageError(f"{where}: {error}") from error
        else:
            self.root = os.path.realpath(where)

    def path(self, name):
        return posixpath.join(self.root, os.fsdecode(name))

    def show(self, name):
        return posixpath.join(self.where, os.fsdecode(name)).encode(errors="replace").decode()

    def listed(self, left_out=None):
        """Yields the name and the size of each file that is not hidden, nor in the folder `left_out` below this one."""
        below = left_out.root + "/" if left_out and left_out.is_below(self) else None
        for name, size in self.objects() if self.is_bucket else self.walk():
            is_hidden = any(part.startswith(".") for part in name.split("/"))
            if not is_hidden and not (below and posixpath.join(self.root, name).startswith(below)):
                yield os.fsencode(name), size

    def is_below(self, other):
        return self.is_bucket == other.is_bucket and self.root.startswith(other.root.rstrip("/") + "/")

    def objects(self):
        from pyarrow.fs import FileSelector, FileType

        for found in self.files.get_file_info(FileSelector(self.root, recursive=True, allow_not_found=True)):
            if found.type == FileType.File:
                yield posixpath.relpath(found.path, self.root), found.size or 0

    def walk(self):
        def fail(error):
            raise error

        for folder, _, files in os.walk(self.root, onerror=fail):
            for path in (os.path.join(folder, name) for name in files):
                name = os.path.relpath(path, self.root)
                try:
                    found = os.stat(path)
                except OSError:
                    # A broken link, which is to be reported.
                    yield name, 0
                    continue
                if stat.S_ISREG(found.st_mode):
                    yield name, found.st_size

    def holds(self, name):
        """Whether a file is there. One without a byte comes from elsewhere, and is replaced."""
        if self.is_bucket:
            return (self.files.get_file_info(self.path(name)).size or 0) > 0
        try:
            return os.stat(self.path(name)).st_size > 0
        except FileNotFoundError:
            return False


class Worker:
    """Denoises files, by one denoiser that stays loaded in a process of Ray."""

    def __init__(self, source, output, settings):
        self.source, self.output = source, output
        self.denoiser = eddy.Denoiser(**settings)

    def __call__(self, batch):
        rows = [self.one(*pair) for pair in zip(batch["name"], batch["result"])]
        return {key: [row[key] for row in rows] for key in ("name", "code", "seconds", "pid", "text")}

    def one(self, name, result):
        begun, code = time.monotonic(), 0
        try:
            # A worker that was killed may have written it.
            text = "" if self.output.holds(result) else self.denoise(name, result)
        except eddy.Error as error:
            code, text = EXIT_CODES.get(type(error), OUTPUT), str(error)
        except OSError as error:
            code, text = OUTPUT, str(error)
        return {"name": name, "code": code, "seconds": time.monotonic() - begun, "pid": os.getpid(), "text": text}

    def denoise(self, name, result):
        with tempfile.TemporaryDirectory(prefix="eddy-") as folder:
            source, output = self.source.path(name), self.output.path(result)
            if self.source.is_bucket:
                source = os.path.join(folder, "source-" + os.path.basename(source))
                with self.source.files.open_input_stream(self.source.path(name)) as data, open(source, "wb") as file:
                    shutil.copyfileobj(data, file)
            if self.output.is_bucket:
                output = os.path.join(folder, "result-" + os.path.basename(output))
            known = self.denoiser.file(source, output)
            if self.output.is_bucket:
                # An object appears when its stream is closed, whole or not at all.
                with open(output, "rb") as file, self.output.files.open_output_stream(self.output.path(result)) as data:
                    shutil.copyfileobj(file, data)
        return "; ".join(known["warnings"])


def jobs(source, output):
    """A dict of the name of each image and that of its result."""
    if source.root == output.root and source.is_bucket == output.is_bucket:
        raise eddy.UsageError(f"{output.where} is the folder that is read; name another for the results")
    try:
        names = sorted(name for name, _ in source.listed(left_out=output))
    except OSError as error:
        raise eddy.InputError(f"{source.where}: the folder cannot be listed: {error}") from error
    found, inputs = {}, {}
    for name in names:
        folder, base = os.path.split(name)
        result = eddy.result_name(os.fsdecode(base))
        if result is None:
            continue
        found[name] = os.path.join(folder, os.fsencode(result))
        if found[name] in inputs:
            both = f"{source.show(inputs[found[name]])} and {source.show(name)}"
            raise eddy.UsageError(f"{both} would have the same result; rename one")
        inputs[found[name]] = name
    if not found:
        raise eddy.InputError(f"{source.where}: the folder holds no image")
    read = {source.path(name) for name in names} if source.is_bucket == output.is_bucket else set()
    for name, result in found.items():
        if output.path(result) in read:
            raise eddy.UsageError(f"{output.show(result)} is read, and would be replaced; name another folder")
    return found


def present(output):
    """The names of the results that are there: one listing, which is faster than asking for each."""
    if output.is_bucket or os.path.isdir(output.root):
        return (name for name, size in output.listed() if size)
    if os.path.exists(output.root):
        raise eddy.UsageError(f"{output.where} is a file; name a folder for the results")
    return ()


def start_ray(options):
    """Connects to a cluster, or starts Ray on this machine, for this process alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not options.address:
        # With this, Ray listens at 127.0.0.1 only.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if options.address:
        ray.init(address=options.address, **quiet)
    else:
        # Only names go through the object store, and it has its least size.
        cpus = options.workers * options.threads
        memory = options.workers * options.max_memory if options.max_memory else None
        store = {"object_store_memory": 80 << 20, "include_dashboard": False}
        ray.init(address="local", num_cpus=cpus, _memory=memory, **store, **quiet)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A block that fails is tried again, image by image, and what fails then is named.
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    return ray.data


def denoise(data, todo, blocks, source, output, options):
    """Yields a row for each image of `todo` that did not lose its worker `TRIES` times."""
    settings = {"model": options.model, "threads": options.threads, "max_memory": options.max_memory}
    rows = [{"name": name, "result": result} for name, result in todo.items()]
    images = data.from_items(rows, override_num_blocks=min(len(rows), blocks))
    results = images.map_batches(
        Worker,
        fn_constructor_args=(source, output, settings),
        batch_size=None,
        compute=data.ActorPoolStrategy(size=min(options.workers, len(rows))),
        num_cpus=options.threads,
        memory=options.max_memory,
        max_task_retries=TRIES - 1,
    )
    yield from results.iter_rows()


def run(options, report):
    """Denoises what is not there yet, and returns the exit code."""
    source, output = Place(options.source), Place(options.output)
    all_jobs = jobs(source, output)
    # Errors of the model are told before Ray starts.
    eddy.Denoiser(options.model, threads=options.threads, max_memory=options.max_memory)
    written = set(present(output))
    todo = {name: result for name, result in all_jobs.items() if result not in written}
    there, failed, done = len(all_jobs) - len(todo), {}, 0
    folders = {os.path.dirname(output.path(result)) for result in todo.values()} if not output.is_bucket else ()
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    data = start_ray(options) if todo else None
    # First in blocks of several images; then one by one those whose block was lost.
    for blocks in (options.workers * BLOCKS_PER_WORKER, len(todo)):
        waiting = dict(todo)
        for row in denoise(data, waiting, blocks, source, output, options) if waiting else ():
            name, code, text = row["name"], row["code"], row["text"]
            result = todo.pop(name)
            if code:
                failed[name] = code
            done += not code
            if text:
                print(f"{source.show(name)}: {text}", file=sys.stderr)
            row |= {"name": os.fsdecode(name), "result": os.fsdecode(result)}
            print(json.dumps(row), file=report, flush=True)
    for name in todo:
        failed[name] = OUTPUT
        text = "every worker that took it was lost; they may lack memory: take fewer, or --max-memory"
        print(f"{source.show(name)}: {text}", file=sys.stderr)
    for folder in folders:
        eddy.delete_leftovers(folder)
    images = "1 image" if len(all_jobs) == 1 else f"{len(all_jobs)} images"
    print(f"{images}: {done} denoised, {there} already there, {len(failed)} failed")
    return failed[min(failed)] if failed else 0


def number(text, least=1):
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} on")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a folder, or the address of one in a bucket (s3://, gs://)")
    parser.add_argument("output", help="the folder or the address for the results")
    parser.add_argument("--workers", type=number, default=2, help="processes that denoise, each with a denoiser (2)")
    parser.add_argument("--threads", type=number, default=1, help="threads and CPUs of each worker (1)")
    parser.add_argument("--max-memory", type=functools.partial(number, least=1 << 20), help="bytes of each worker")
    parser.add_argument("--model", help="a model; by default the noise of each image decides")
    parser.add_argument("--address", help="a Ray cluster, or auto; by default Ray is started on this machine")
    parser.add_argument("--report", default=os.devnull, help="a file for a line of JSON per image of this run")
    options = parser.parse_args()
    try:
        with open(options.report, "a") as report:
            return run(options, report)
    except KeyboardInterrupt:
        print("stopped; finished results are kept, and the same command goes on", file=sys.stderr)
        return 130
    except (eddy.Error, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CODES.get(type(error), OUTPUT)


if __name__ == "__main__":
    sys.exit(main())

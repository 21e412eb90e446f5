"""Prints the licenses of every crate that is linked into the binary for a target: python3 notices.py TARGET."""

import json
import subprocess
import sys
from pathlib import Path


def main(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    # Linked crates only, without build and test dependencies.
    linked, todo = set(), [metadata["resolve"]["root"]]
    while todo:
        node = todo.pop()
        if node in linked:
            continue
        linked.add(node)
        todo += [dep["pkg"] for dep in nodes[node]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    linked.remove(metadata["resolve"]["root"])
    missing = []
    for package in sorted((packages[node] for node in linked), key=lambda package: (package["name"], package["version"])):
        print(f"{'=' * 80}\n{package['name']} {package['version']}: {package['license']}\n{'=' * 80}\n")
        folder = Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE")) and path.is_file())
        for path in files:
            print(path.read_text(errors="replace").strip() + "\n")
        if not files:
            missing.append(package["name"])
            print(f"Its package holds no license text; it says {package['license']}, {package['repository']}.\n")
    print(f"{len(linked)} crates, {len(missing)} without a text: {' '.join(missing)}", file=sys.stderr)


main(*sys.argv[1:])

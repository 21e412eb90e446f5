"""Prints the licenses of every crate that is linked into the binary for a target: python3 notices.py TARGET."""

import sys
from pathlib import Path

from crates import linked_crates


def main(target):
    linked, _ = linked_crates(target)
    missing = []
    for package in linked:
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

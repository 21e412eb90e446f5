"""Makes a Debian package of what cross/package collected: python3 deb.py FOLDER ARCHITECTURE OUT."""

import gzip
import pathlib
import sys

from archive import TIME, archive, entry, version

# Where Debian has what lies elsewhere in the package for any Linux.
PLACES = [
    ("share/zsh/site-functions/", "usr/share/zsh/vendor-completions/"),
    ("lib/systemd/", "usr/lib/systemd/"),
    ("", "usr/"),
]
CONTROL = """Package: eddy
Version: {version}
Architecture: {architecture}
Maintainer: The Eddy project <eddy@localhost>
Installed-Size: {size}
Depends: libc6 (>= 2.28), libgcc-s1 | libgcc1, libstdc++6 (>= 8)
Recommends: ffmpeg
Section: graphics
Priority: optional
Description: Diffusion networks on edge boards
 Denoising, super-resolution and image generation by diffusion networks, for
 images, video files and cameras, from one binary. ONNX Runtime and the models
 are inside.
"""

# What happens to services: after an upgrade they go on with the new binary, and a removal ends them. /etc/eddy is the user's.
SCRIPTS = {
    "postinst": """#!/bin/sh
set -e
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ -n "$2" ]; then
        systemctl try-restart 'eddy@*.service' eddy-serve.service || true
    fi
fi
""",
    "prerm": """#!/bin/sh
set -e
if [ "$1" = remove ] && command -v systemctl >/dev/null; then
    if [ -d /run/systemd/system ]; then
        systemctl stop 'eddy@*.service' eddy-serve.socket eddy-serve.service || true
    fi
    for link in /etc/systemd/system/*.wants/eddy@*.service; do
        [ -L "$link" ] && systemctl --no-reload disable "$(basename "$link")" || true
    done
    systemctl --no-reload disable eddy-serve.socket eddy-serve.service || true
fi
""",
    "postrm": """#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
fi
""",
}


def renamed(name):
    before, after = next(place for place in PLACES if name.startswith(place[0]))
    return after + name[len(before):]


def contents(folder):
    """The files of the package by their names."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name, data = renamed(str(path.relative_to(folder))), path.read_bytes()
        if "/man/" in name:
            name, data = name + ".gz", gzip.compress(data, mtime=0)
        if name.endswith(".service"):
            data = data.replace(b"/usr/local/bin/", b"/usr/bin/")
        files[name] = data
    licenses = [data for name, data in files.items() if "/doc/eddy/LICENSE-" in name]
    files["usr/share/doc/eddy/copyright"] = b"Eddy is licensed under MIT or Apache-2.0.\n\n" + b"\n\n".join(licenses)
    return files


def member(name, data):
    """A member of an ar archive."""
    head = f"{name:<16}{TIME:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return head + data + b"\n" * (len(data) % 2)


def main(folder, architecture, out):
    files = contents(pathlib.Path(folder))
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    entries = [entry("./", 0o755)] + [entry(f"./{name}/", 0o755) for name in folders]
    for name, data in sorted(files.items()):
        entries.append(entry(f"./{name}", 0o755 if name.startswith("usr/bin/") else 0o644, data))
    size = sum(map(len, files.values())) // 1024 + 1
    control = CONTROL.format(version=version(), architecture=architecture, size=size).encode()
    scripts = [entry(f"./{name}", 0o755, script.encode()) for name, script in sorted(SCRIPTS.items())]
    parts = [
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", archive([entry("./", 0o755), entry("./control", 0o644, control), *scripts], "xz")),
        ("data.tar.xz", archive(entries, "xz")),
    ]
    package = pathlib.Path(out) / f"eddy_{version()}_{architecture}.deb"
    package.write_bytes(b"!<arch>\n" + b"".join(member(*part) for part in parts))
    print(package)


main(*sys.argv[1:])

"""Makes a container image: python3 container.py FOLDER ROOT ARCHITECTURE OUT.

FOLDER is what cross/package collected, ROOT a folder with glibc, libgcc and libstdc++. The image has two layers, these
libraries and the binary, no shell, and a user without rights. It is an archive in the layout of the Open Container
Initiative: `podman load -i FILE`, `docker load -i FILE`.
"""

import datetime
import gzip
import hashlib
import json
import pathlib
import sys

from archive import TIME, archive, entry, tree, version

USER = 65532


class Blobs:
    """Files that are named by their SHA-256."""

    def __init__(self):
        self.entries = []

    def add(self, data, media_type):
        digest = hashlib.sha256(data).hexdigest()
        self.entries.append(entry(f"blobs/sha256/{digest}", 0o644, data))
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(data)}


def dump(value):
    return json.dumps(value, sort_keys=True).encode()


def main(folder, root, architecture, out):
    folder, root = pathlib.Path(folder), pathlib.Path(root)
    work, _ = entry("work", 0o755)
    work.uid = work.gid = USER
    # By number, since a name has precedence where an archive is unpacked by tar.
    work.uname = work.gname = ""
    people = f"root:x:0:0::/:/nologin\neddy:x:{USER}:{USER}::/work:/nologin\n".encode()
    libraries = tree(root)
    binary = [
        entry("etc", 0o755),
        entry("etc/passwd", 0o644, people),
        entry("tmp", 0o1777),
        (work, None),
        entry("usr/bin/eddy", 0o755, (folder / "bin/eddy").read_bytes()),
        *tree(folder / "share/doc/eddy", "usr/share/doc/eddy/"),
    ]
    blobs, layers, digests = Blobs(), [], []
    for entries in (libraries, binary):
        plain = archive(entries)
        digests.append("sha256:" + hashlib.sha256(plain).hexdigest())
        layers.append(blobs.add(gzip.compress(plain, 6, mtime=0), "layer.v1.tar+gzip"))
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": datetime.datetime.fromtimestamp(TIME, datetime.timezone.utc).isoformat(),
        "config": {
            "Entrypoint": ["/usr/bin/eddy"],
            "Env": ["HOME=/work", "PATH=/usr/bin"],
            "User": f"{USER}:{USER}",
            "WorkingDir": "/work",
            "Labels": {
                "org.opencontainers.image.title": "eddy",
                "org.opencontainers.image.version": version(),
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blobs.add(dump(config), "config.v1+json"),
        "layers": layers,
    }
    reference = blobs.add(dump(manifest), "manifest.v1+json")
    reference["platform"] = {"architecture": architecture, "os": "linux"}
    reference["annotations"] = {"org.opencontainers.image.ref.name": f"localhost/eddy:{version()}"}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [reference]}
    image = pathlib.Path(out) / f"eddy-{version()}-{architecture}.oci.tar"
    head = [
        entry("oci-layout", 0o644, dump({"imageLayoutVersion": "1.0.0"})),
        entry("index.json", 0o644, dump(index)),
        entry("blobs", 0o755),
        entry("blobs/sha256", 0o755),
    ]
    image.write_bytes(archive(head + blobs.entries))
    print(image)


main(*sys.argv[1:])

"""Archives that depend on nothing but the files in them."""

import io
import os
import pathlib
import re
import tarfile

# Seconds since 1970 that stand in every archive.
TIME = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def version():
    """The version of Eddy."""
    return re.search(r'^version = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.M)[1]


def entry(name, mode, data=None, link=None):
    """A file, a link or a folder of root."""
    info = tarfile.TarInfo(name)
    info.mtime, info.mode = TIME, mode
    info.uname = info.gname = "root"
    if link is not None:
        info.type, info.linkname = tarfile.SYMTYPE, link
    elif data is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(data)
    return info, data


def tree(folder, prefix=""):
    """The entries of all files in a folder, sorted."""
    entries = []
    for path in sorted(folder.rglob("*")):
        name = prefix + str(path.relative_to(folder))
        if path.is_symlink():
            entries.append(entry(name, 0o777, link=os.readlink(path)))
        elif path.is_dir():
            entries.append(entry(name, 0o755))
        else:
            entries.append(entry(name, 0o755 if os.access(path, os.X_OK) else 0o644, path.read_bytes()))
    return entries


def archive(entries, compression=""):
    """The bytes of a tar archive; `compression` is "", "gz" or "xz"."""
    out = io.BytesIO()
    # gzip's own time would be the present.
    options = {"gz": {"compresslevel": 9}, "xz": {"preset": 6}}.get(compression, {})
    with tarfile.open(fileobj=out, mode=f"w:{compression}", format=tarfile.GNU_FORMAT, **options) as tar:
        for info, data in entries:
            tar.addfile(info, None if data is None else io.BytesIO(data))
    return out.getvalue()

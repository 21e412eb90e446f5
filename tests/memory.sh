#!/bin/sh
# `--max-memory` is kept: an image of 6000x4000 within 512 MiB and streams of 1920x1080 within 256: `tests/memory.sh [EDDY]`,
# with target/release/eddy when left out.
#
# Not part of `cargo test`, since it takes minutes. Needs python3 (the standard library only).
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
eddy=$(realpath "${1:-$here/target/release/eddy}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - "$work" <<'PYTHON'
"""Writes a shaded image and a shaded stream with Gaussian noise of sigma 25: rows of a pool of noise, taken at random places."""
import random, struct, sys, zlib

draw = random.Random(25)
pool = [round(draw.gauss(0, 25)) for _ in range(1 << 18)]
levels = [bytes(min(255, max(0, 64 + shade + value)) for value in pool) for shade in range(0, 128, 8)]


def row(y, height, samples):
    at = draw.randrange(len(pool) - samples)
    return levels[y * len(levels) // height][at : at + samples]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


width, height = 6000, 4000
squeeze = zlib.compressobj(1)
with open(f"{sys.argv[1]}/noisy.png", "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
    for y in range(height):
        file.write(chunk(b"IDAT", squeeze.compress(b"\0" + row(y, height, 3 * width))))
    file.write(chunk(b"IDAT", squeeze.flush()) + chunk(b"IEND", b""))

width, height = 1920, 1080
with open(f"{sys.argv[1]}/noisy.y4m", "wb") as file:
    file.write(b"YUV4MPEG2 W1920 H1080 F10:1 Ip C420jpeg XCOLORRANGE=FULL\n")
    for _ in range(10):
        file.write(b"FRAME\n" + b"".join(row(y, height, width) for y in range(height)))
        file.write(b"\x80" * (width * height // 2))
PYTHON

failed=0
# within MEBIBYTES ARGUMENT...
within() {
    limit=$(($1 << 20))
    shift
    # The kernel's count after the process has ended.
    peak=$(python3 - "$eddy" denoise "$@" <<'PYTHON'
import os, sys

process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
    )
    echo "peak resident memory $peak of $limit bytes: eddy denoise $*"
    if [ "$peak" -gt "$limit" ]; then
        failed=1
    fi
}

cd "$work"
for steps in 1 3; do
    within 512 noisy.png -o clean.png --sigma 25 --steps $steps --max-memory 512M
    test -s clean.png
    rm clean.png
done
for how in --temporal=off --temporal=on "--temporal=on --fps 2" "--temporal=on --fps 5"; do
    within 256 noisy.y4m -o clean.y4m --max-memory 256M $how
    test "$(grep -ac 'FRAME$' clean.y4m)" = 10
    rm clean.y4m
done
exit $failed

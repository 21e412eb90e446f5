#!/bin/sh
# A picture of 6000x4000 within 512 MiB: `tests/large.sh [EDDY]`, with target/release/eddy when left out.
#
# Not part of `cargo test`, since it takes minutes. Needs python3 (its standard library alone).
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
eddy=${1:-$here/target/release/eddy}
limit=536870912
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 - "$work/noisy.png" 6000 4000 <<'PYTHON'
"""Writes a shaded picture with Gaussian noise of sigma 25: rows of a pool of noise, taken at random places."""
import random, struct, sys, zlib

path, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(25)
pool = [round(draw.gauss(0, 25)) for _ in range(1 << 18)]
levels = [bytes(min(255, max(0, 64 + shade + value)) for value in pool) for shade in range(0, 128, 8)]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


squeeze = zlib.compressobj(1)
with open(path, "wb") as file:
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
    for y in range(height):
        at = draw.randrange(len(pool) - 3 * width)
        file.write(chunk(b"IDAT", squeeze.compress(b"\0" + levels[y * len(levels) // height][at : at + 3 * width])))
    file.write(chunk(b"IDAT", squeeze.flush()) + chunk(b"IEND", b""))
PYTHON

failed=0
for steps in 1 3; do
    # Sampled by the kernel itself: the peak of the process, read when it has ended.
    peak=$(python3 - "$eddy" denoise "$work/noisy.png" -o "$work/clean.png" --sigma 25 --steps $steps --max-memory 512M \
        <<'PYTHON'
import os, sys

process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
PYTHON
    )
    test -s "$work/clean.png"
    echo "$steps steps: peak resident memory $peak of $limit bytes"
    if [ "$peak" -gt "$limit" ]; then
        failed=1
    fi
    rm "$work/clean.png"
done
exit $failed

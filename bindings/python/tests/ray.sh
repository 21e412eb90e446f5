#!/usr/bin/env bash
# Ray Data with the example `ray_folder.py`: two workers, one of them killed, compared with the binary. Skipped where pip
# does not bring Ray.
#     bindings/python/tests/ray.sh BINARY [PROFILE] [IMAGES]
set -euo pipefail
binary=$(realpath "$1")
profile=${2:-binding}
images=${3:-60}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/use"
timeout 600 "$work/use/bin/pip" install --quiet --disable-pip-version-check 'ray[data]==2.60.0' pillow || {
    echo "pip does not bring Ray: skipped"
    exit 0
}
python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
"$work/build/bin/maturin" build --quiet --locked --profile "$profile" --out "$work/wheels" --interpreter python3
"$work/use/bin/pip" install --quiet --disable-pip-version-check "$work"/wheels/*.whl
"$work/use/bin/python" tests/ray_folder.py "$binary" "$images" "$work"

#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh virtual environment, and tests it there.
#     bindings/python/tests/run.sh [PROFILE]      a profile of cargo, by default the one that wheels have
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-binding}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check 'maturin>=1.9,<2'
"$work/build/bin/maturin" build --quiet --locked --profile "$profile" --out "$work/wheels" --interpreter python3

python3 -m venv "$work/use"
"$work/use/bin/pip" install --quiet --disable-pip-version-check pytest "$work"/wheels/*.whl
cp tests/*.py "$work"
ls -l "$work"/wheels
EDDY_REPOSITORY=$(cd ../.. && pwd) "$work/use/bin/python" -m pytest --quiet -p no:cacheprovider "$work"

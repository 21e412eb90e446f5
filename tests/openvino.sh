#!/usr/bin/env bash
# A network on OpenVINO gives the CPU's image: with the library of the wheel onnxruntime-openvino, which pip downloads.
# Usage: tests/openvino.sh target/release/eddy
set -euo pipefail
cd "$(dirname "$0")/.."
eddy=$(realpath "$1")
wheel=onnxruntime_openvino-1.24.1-cp311-cp311-manylinux_2_28_x86_64.whl
sum=3007c803634cc69c6d52af1dea7ce729d9bb62b9a11070fd2f959119199007a8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_x86_64 -d "$work" onnxruntime-openvino==1.24.1 || { echo "pip cannot download it: skipped"; exit 0; }
echo "$sum  $work/$wheel" | sha256sum --quiet -c
python3 -m zipfile -e "$work/$wheel" "$work/wheel"
library=$work/wheel/onnxruntime/capi/libonnxruntime.so.1.24.1

run() { "$eddy" denoise tests/data/noisy-chelsea.png --sigma 25 --json --runtime "$library" "$@"; }
run --device openvino -o "$work/openvino.bmp" | grep -q '"device":"openvino"'
run --device cpu -o "$work/cpu.bmp" >"$work/record"
"$eddy" doctor --runtime "$library" | grep -q "openvino works"
"$eddy" info denoise-fast --nodes --runtime "$library" --device openvino | tee "$work/nodes"
grep -q "OpenVINOExecutionProvider" "$work/nodes"
python3 - "$work" <<'PYTHON'
import pathlib, sys

openvino, cpu = (pathlib.Path(sys.argv[1], name).read_bytes() for name in ("openvino.bmp", "cpu.bmp"))
differences = [abs(a - b) for a, b in zip(openvino, cpu, strict=True)]
assert max(differences) <= 1, f"largest difference {max(differences)}"
print(f"{sum(map(bool, differences))} of {len(differences)} samples differ, by one level")
PYTHON
# Without OpenVINO in the library, the error says so, with the exit code of devices.
code=0
"$eddy" denoise tests/data/noisy-chelsea.png --device openvino -o "$work/none.png" 2>"$work/said" || code=$?
[ "$code" = 6 ] && grep -q onnxruntime-openvino "$work/said"
echo "OpenVINO gives the CPU's image"

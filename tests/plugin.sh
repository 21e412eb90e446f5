#!/usr/bin/env bash
# A network on a plugin provider (`--ep-library`) gives the CPU's image: with the plugin onnxruntime-ggml, which offers a device
# on any x86-64 CPU, and the ONNX Runtime that it is built for; pip downloads both. It has no
# convolutions in two dimensions, so the network has two other operators.
# Usage: tests/plugin.sh target/release/eddy
set -euo pipefail
cd "$(dirname "$0")/.."
eddy=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.11 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_35_x86_64 -d "$work" "$1" || { echo "pip cannot download $1: skipped"; exit 0; }
    (cd "$work" && echo "$2" | sha256sum --quiet -c)
    python3 -m zipfile -e "$work/${2#*  }" "$work/wheels"
}
fetch onnxruntime==1.29.0 "85f8e8406c52658735fe5c7fbfd3ebaa1ed340768324f6252e4274e374580a23  onnxruntime-1.29.0-cp311-cp311-manylinux_2_28_x86_64.whl"
fetch onnxruntime-ggml==0.2.0 "2342809f3f6dc2d7b6d303f3bcde391ec5ab10177ce45aec9365880aa5914745  onnxruntime_ggml-0.2.0-py3-none-manylinux_2_35_x86_64.whl"
library=$work/wheels/onnxruntime/capi/libonnxruntime.so.1.29.0
plugin=$work/wheels/onnxruntime_ggml/lib/libonnxruntime_ggml.so

"$eddy" import tests/data/models/darker.onnx -o "$work/darker" --task denoise --prediction denoised --value-range 0,1 --sigma-range 0,1 \
    --inputs sample=x,sigma=sigma --output-name denoised --receptive-field 0 -q
run() { "$eddy" denoise tests/data/noisy-chelsea.png -m "$work/darker" --sigma 25 --json "$@" 2>"$work/said"; }
run --runtime "$library" --ep-library "$plugin" -o "$work/plugin.bmp" | grep -q '"device":"plugin:0"'
run --runtime "$library" -o "$work/cpu.bmp" >"$work/record"
# It ends with an error, since the plugin cannot run the bundled models; the CPU works nevertheless.
"$eddy" doctor --runtime "$library" --ep-library "$plugin" >"$work/doctor" 2>/dev/null || true
grep -q "plugin:0 works" "$work/doctor" && grep -q "cpu works" "$work/doctor"
python3 - "$work" <<'PYTHON'
import pathlib, sys

plugin, cpu = (pathlib.Path(sys.argv[1], name).read_bytes() for name in ("plugin.bmp", "cpu.bmp"))
differences = [abs(a - b) for a, b in zip(plugin, cpu, strict=True)]
assert max(differences) <= 1, f"largest difference {max(differences)}"
print(f"{sum(map(bool, differences))} of {len(differences)} samples differ, by at most {max(differences)}")
PYTHON

fails() {
    code=$1 words=$2
    shift 2
    ended=0
    run "$@" -o "$work/none.png" >"$work/record" || ended=$?
    [ "$ended" = "$code" ] && grep -q -- "$words" "$work/said" || { echo "$*: exit code $ended, expected $code and $words"; cat "$work/said"; exit 1; }
}
fails 6 "offers no device" --ep-library "$plugin"                        # it needs a newer ONNX Runtime than the embedded one
fails 6 "offers only device 0" --runtime "$library" --ep-library "$plugin" --device plugin:1
fails 6 "name its library by --ep-library" --device plugin
fails 5 "does not register it" --runtime "$library" --ep-library "$library"
fails 5 "missing.so" --ep-library "$work/missing.so"
echo "the plugin gives the CPU's image"

#!/usr/bin/env bash
# Builds and installs the library, compiles the example and the tests in C against it, and runs them with the address
# sanitizer.
#     bindings/c/tests/run.sh [PROFILE]      a profile of cargo, by default `binding`
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-binding}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
noisy=../../tests/data/noisy-chelsea.png

cargo test --quiet --locked
./install.sh "$work" "$profile"
flags=(-std=c11 -Wall -Wextra -Werror -pedantic -g -fsanitize=address,undefined -I "$work/include")
links=(-L "$work/lib" -leddy "-Wl,-rpath,$work/lib" -pthread)
cc "${flags[@]}" examples/denoise.c "${links[@]}" -o "$work/denoise"
cc "${flags[@]}" tests/calls.c "${links[@]}" -o "$work/calls"
echo '#include <eddy.h>
int main() { return eddy_version() == nullptr; }' > "$work/header.cc"
c++ -std=c++11 -Wall -Wextra -Werror -pedantic -I "$work/include" "$work/header.cc" "${links[@]}" -o "$work/header"
"$work/header"

# ONNX Runtime, which is opened from memory, keeps 80 bytes.
echo 'leak:/proc/self/fd/' > "$work/known"
export LSAN_OPTIONS=suppressions=$work/known:print_suppressions=0
"$work/denoise" $noisy "$work/clean.png" "$work/large.png"
"$work/calls" $noisy "$work/again.png"
cmp "$work/clean.png" "$work/again.png"
echo "the library for C passed all tests"

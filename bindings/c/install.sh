#!/usr/bin/env bash
# Builds the library for C and installs it with its header and pkg-config file.
#     bindings/c/install.sh PREFIX [PROFILE]      a profile of cargo, by default `binding`
# cargo-c does the same: cargo cinstall --manifest-path bindings/c/Cargo.toml --profile binding
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# \?//p' "$0" >&2; exit 2; }
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
profile=${2:-binding}
cd "$(dirname "$0")"
cargo build --locked --profile "$profile"
built=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
[ "$profile" = dev ] && built=$built/debug || built=$built/$profile
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

mkdir -p "$prefix"/{include,lib/pkgconfig}
cp include/eddy.h "$prefix/include/"
cp "$built/libeddy_c.so" "$prefix/lib/libeddy.so.$version"
ln -sf "libeddy.so.$version" "$prefix/lib/libeddy.so.0"
ln -sf libeddy.so.0 "$prefix/lib/libeddy.so"
cat > "$prefix/lib/pkgconfig/eddy.pc" <<PC
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: eddy
Description: Denoising and super-resolution of images and frames
Version: $version
Cflags: -I\${includedir}
Libs: -L\${libdir} -leddy
PC

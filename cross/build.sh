# What the scripts of this folder share: sourced by them with the target's own settings. See each for why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The oldest glibc that the binary is to run on: JetPack 5 has 2.31, Raspberry Pi OS 11 2.31, RHEL 8 and what is built on it
# 2.28, which is also what ONNX Runtime's own library wants.
GLIBC=2.28

# Everything but these is inside the binary. The last three are what ONNX Runtime's library asks for when it is opened.
ALLOWED='^(libc|libm|libdl|libpthread|librt|ld-linux-[a-z0-9-]+|libgcc_s|libstdc\+\+)\.so'

# Runtime and networks included. The runtime is packed by zstd, which costs 20 to 30 ms of a start on a PC; all of it packed
# would be no smaller, since weights hardly pack.
MOST_BYTES=$((45 * 1000 * 1000))

# The same bytes from whatever folder: no path of this machine's is in the binary.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=eddy --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

say() { printf '\n== %s\n' "$*"; }

# Rust's library for the target: rustup's where there is rustup, and else Debian's.
rust_for() {
    local target=$1 debian=$2
    if command -v rustup >/dev/null; then
        rustup target list --installed | grep -qx "$target" && return
        rustup target add "$target" && return
        echo "rustup does not bring it; Debian may" >&2
    fi
    # Debian's newest toolchain, and its library for the other architecture.
    export RUSTC=/usr/bin/rustc
    [ -d "/usr/lib/rustlib/$target" ] && return
    say "Debian's Rust for $target (as root)"
    dpkg --add-architecture "$debian"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends rustc-web cargo-web "libstd-rust-web-dev:$debian" >/dev/null
}

# zig's linker knows the symbols of every glibc, so that the binary asks for none that is newer than GLIBC; the C code of
# dependencies is compiled by it, too.
zig() {
    local place=.cache/zig
    if [ ! -x "$place/bin/cargo-zigbuild" ]; then
        say "cargo-zigbuild and zig, into $place"
        rm -rf "$place.part"
        python3 -m venv "$place.part"
        "$place.part/bin/python" -m pip install --quiet cargo-zigbuild==0.24.1 ziglang==0.17.1
        mv "$place.part" "$place"
    fi
    export PATH=$PWD/$place/bin:$PATH
    # The module finds itself by the interpreter, whatever the folder was called when it was made.
    export CARGO_ZIGBUILD_PYTHON_PATH=$PWD/$place/bin/python
}

# build TARGET DEBIAN-ARCHITECTURE
build() {
    local target=$1 debian=$2
    rust_for "$target" "$debian"
    zig
    say "eddy for $target and glibc $GLIBC"
    cargo zigbuild --release --locked --bin eddy --target "$target.$GLIBC"
    check "target/$target/release/eddy"
}

# Whether a binary asks for nothing that a board may not have.
check() {
    local binary=$1 newest needed bytes
    say "what $binary asks for"
    newest=$(readelf --wide --version-info "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    needed=$(readelf --wide --dynamic "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    bytes=$(stat -c %s "$binary")
    echo "$newest at most; $(echo $needed); $bytes bytes"
    if [ "$(printf '%s\nGLIBC_%s\n' "$newest" "$GLIBC" | sort -V | tail -n 1)" != "GLIBC_$GLIBC" ]; then
        echo "it asks for $newest, which is newer than $GLIBC" >&2
        exit 1
    fi
    if echo "$needed" | grep -Ev "$ALLOWED"; then
        echo "it asks for libraries that a board may not have" >&2
        exit 1
    fi
    if [ "$bytes" -gt "$MOST_BYTES" ]; then
        echo "it is larger than $MOST_BYTES bytes" >&2
        exit 1
    fi
}

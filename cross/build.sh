# Common code of the scripts of this folder, which source it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The oldest supported glibc: JetPack 5 and Raspberry Pi OS 11 have 2.31, RHEL 8 and its derivatives 2.28, which ONNX Runtime's
# library also needs.
GLIBC=2.28

# The only libraries that the binary may link. ONNX Runtime's library needs the last ones when it is opened.
ALLOWED='^(libc|libm|libdl|libpthread|librt|ld-linux-[a-z0-9-]+|libgcc_s|libstdc\+\+)\.so'

# Limit of the size, with runtime and networks. The runtime is compressed by zstd, which costs 20 to 30 ms at start on a PC;
# weights hardly compress.
MOST_BYTES=$((45 * 1000 * 1000))

# The same bytes from any folder: the binary contains no path of this machine.
export RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=eddy --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

say() { printf '\n== %s\n' "$*"; }

# Rust's library for the target: rustup's where there is rustup, and else Debian's.
rust_for() {
    local target=$1 debian=$2
    if command -v rustup >/dev/null; then
        rustup target list --installed | grep -qx "$target" && return
        rustup target add "$target" && return
        echo "rustup cannot add it; trying Debian" >&2
    fi
    # Debian's newest toolchain, and its library for the other architecture.
    export RUSTC=/usr/bin/rustc
    [ -d "/usr/lib/rustlib/$target" ] && return
    say "Debian's Rust for $target (as root)"
    dpkg --add-architecture "$debian"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends rustc-web cargo-web "libstd-rust-web-dev:$debian" >/dev/null
}

# zig's linker knows the symbols of every glibc, so that the binary needs none that is newer than GLIBC; the C code of
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
    # The module is found by the interpreter, independent of the folder's name when it was created.
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

# Checks that a binary needs only what a board has.
check() {
    local binary=$1 newest needed bytes
    say "dependencies of $binary"
    newest=$(readelf --wide --version-info "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    needed=$(readelf --wide --dynamic "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    bytes=$(stat -c %s "$binary")
    echo "$newest at most; $(echo $needed); $bytes bytes"
    if [ "$(printf '%s\nGLIBC_%s\n' "$newest" "$GLIBC" | sort -V | tail -n 1)" != "GLIBC_$GLIBC" ]; then
        echo "it needs $newest, which is newer than $GLIBC" >&2
        exit 1
    fi
    if echo "$needed" | grep -Ev "$ALLOWED"; then
        echo "it needs libraries that a board may not have" >&2
        exit 1
    fi
    if [ "$bytes" -gt "$MOST_BYTES" ]; then
        echo "it is larger than $MOST_BYTES bytes" >&2
        exit 1
    fi
}

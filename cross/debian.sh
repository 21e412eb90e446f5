# Unpacks Debian's packages for any architecture into a folder, without root and without changing the system. To be
# sourced; needs Debian or its like with apt.

# fetch FOLDER ARCHITECTURE PACKAGE...: into FOLDER, unless it is there. BACKPORTS=1 takes them from the release's backports. A
# package `kernel` is the one that Debian calls its kernel now.
fetch() {
    local folder=$1 architecture=$2 package packages=()
    [ -d "$folder" ] && return
    command -v apt-get >/dev/null || { echo "apt is missing: $folder is made of Debian's packages" >&2; return 1; }
    # Separate lists of apt.
    local own
    own=$(mktemp -d)
    (
        trap 'rm -rf "$own"' EXIT
        mkdir "$own/packages"
        touch "$own/status"
        cat >"$own/apt.conf" <<CONFIGURATION
APT { Architecture "$architecture"; Architectures { "$architecture"; }; Sandbox::User "root"; };
Dir { State "$own/apt"; State::status "$own/status"; Cache "$own/apt"; };
CONFIGURATION
        if [ "${BACKPORTS:-}" = 1 ]; then
            # From this machine's own mirror.
            apt-get indextargets 'Identifier: Packages' --format '$(REPO_URI) $(CODENAME)' |
                awk '$2 !~ /-/ && !seen++ { printf "deb %s %s-backports main\n", $1, $2 }' >"$own/sources.list"
            echo "Dir::Etc { SourceList \"$own/sources.list\"; SourceParts \"/dev/null\"; };" >>"$own/apt.conf"
        fi
        export APT_CONFIG=$own/apt.conf
        mkdir -p "$own"/apt/{lists/partial,archives/partial}
        apt-get update -qq
        for package in "${@:3}"; do
            [ "$package" != kernel ] ||
                package=$(apt-cache depends "linux-image-$architecture" | awk '/Depends:/ && !seen++ { print $2 }')
            packages+=("$package")
        done
        (cd "$own/packages" && apt-get download -qq "${packages[@]}")
        rm -rf "$folder.part"
        unpack "$folder.part" "$own"/packages/*.deb
        mv "$folder.part" "$folder"
    )
}

# unpack FOLDER PACKAGE...: /bin and /lib are /usr's, whether a package knows it yet or not.
unpack() {
    local folder=$1 package
    mkdir -p "$folder"/usr/{bin,lib,lib64}
    ln -s usr/{bin,lib,lib64} "$folder"
    for package in "${@:2}"; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$folder" --keep-directory-symlink --exclude=./usr/share --exclude='*/gconv'
    done
}

# What the binary needs: glibc, and the libraries that ONNX Runtime needs when it is opened.
LIBRARIES=(libc6 libgcc-s1 libstdc++6)

# A root for 64-bit ARM, $root, and qemu's user mode, $qemu.
emulator() {
    root=$PWD/.cache/aarch64/root
    fetch "$root" arm64 "${LIBRARIES[@]}"
    # qemu 7.2, Debian 12's own, crashes where ONNX Runtime looks at the processor.
    qemu=$(command -v qemu-aarch64-static || true)
    if [ -z "$qemu" ] || [ "$("$qemu" --version | sed -n '1s/.*version \([0-9]*\).*/\1/p')" -lt 8 ]; then
        BACKPORTS=1 fetch "$PWD/.cache/qemu" "$(dpkg --print-architecture)" qemu-user
        qemu=$PWD/.cache/qemu/bin/qemu-aarch64
    fi
}

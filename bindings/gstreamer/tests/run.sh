#!/usr/bin/env bash
# Builds the plugin, and tests its elements in pipelines.
#     bindings/gstreamer/tests/run.sh [PROFILE]      a profile of cargo, by default the one that plugins have
# It takes the binary of the same profile, GStreamer 1.16 or newer with the plugins base and good, and Python's gi.
set -euo pipefail
cd "$(dirname "$0")/../../.."
profile=${1:-binding}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --quiet --locked --profile "$profile" -p eddy-gstreamer
folder=${CARGO_TARGET_DIR:-target}/$profile
[ "$profile" = dev ] && folder=${CARGO_TARGET_DIR:-target}/debug
if [ ! -x "$folder/eddy" ]; then
    cargo build --quiet --locked --profile "$profile"
fi
ls -l "$folder/libgsteddy.so"

# A registry of its own: the plugin is looked for anew.
mkdir "$work/plugins"
cp "$folder/libgsteddy.so" "$work/plugins/"
export GST_PLUGIN_PATH=$work/plugins GST_REGISTRY=$work/registry
export EDDY_BINARY=$PWD/$folder/eddy EDDY_REPOSITORY=$PWD
[ "${folder:0:1}" = / ] && EDDY_BINARY=$folder/eddy

gst-inspect-1.0 eddy
for element in eddydenoise eddyupscale; do
    # Every property has a help text, and none is printed by the library.
    gst-inspect-1.0 "$element" >"$work/text" 2>"$work/errors"
    grep -q "Klass" "$work/text"
    [ ! -s "$work/errors" ] || { cat "$work/errors"; exit 1; }
done

# Between other elements, with queues and branches.
run() {
    echo "gst-launch-1.0 $*"
    timeout 60 gst-launch-1.0 -q "$@" >"$work/printed" 2>&1 || { cat "$work/printed"; exit 1; }
    [ ! -s "$work/printed" ] || { cat "$work/printed"; exit 1; }
}
noise="videotestsrc pattern=snow num-buffers=6 ! video/x-raw,width=66,height=50,framerate=10/1"
# shellcheck disable=SC2086
{
    run $noise ! identity ! queue ! eddydenoise temporal=true fps=10 ! queue ! videorate ! video/x-raw,framerate=5/1 ! fakesink
    run $noise,format=YUY2 ! tee name=t t. ! queue ! eddydenoise ! fakesink t. ! queue ! eddyupscale ! videoconvert ! fakesink
    run $noise,format=I420 ! eddydenoise ! eddyupscale scale=4 ! video/x-raw,width=264,height=200 ! y4menc ! filesink location="$work/large.y4m"
    run $noise,format=UYVY ! videoconvert ! eddydenoise ! jpegenc ! fakesink
    run $noise,format=NV12 ! videocrop left=1 top=2 ! eddydenoise ! videoscale ! video/x-raw,width=128 ! fakesink
}
[ "$(head -c 24 "$work/large.y4m")" = "YUV4MPEG2 C420 W264 H200" ]

# A killed pipeline leaves nothing behind.
timeout -s KILL 2 gst-launch-1.0 -q videotestsrc ! eddydenoise ! fakesink || [ $? = 137 ]

cd "$(dirname "$EDDY_REPOSITORY/bindings/gstreamer/tests/run.sh")"
# Debian's Python, for which its gi is built.
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -m unittest

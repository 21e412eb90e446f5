#!/usr/bin/env bash
# Frames per second of `eddy denoise` on 4:2:0 video with noise of sigma 10, by size, with and without --temporal, in f32 and int8; and
# the largest resident memory. Prints the table in docs/fps.md. Needs ffmpeg. Usage: tests/fps.sh BINARY [FRAMES]
set -euo pipefail
binary=$(realpath "$1")
frames=${2:-24}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf '| size | network | without `--temporal` | with `--temporal` | memory |\n|---|---|---|---|---|\n'
for size in 640x480 1280x720 1920x1080; do
    # A picture that stands still, with new noise in each frame.
    ffmpeg -v error -f lavfi -i "testsrc2=size=$size:rate=25" -frames:v 1 "$work/still.png" -y
    ffmpeg -v error -loop 1 -i "$work/still.png" -vf "noise=alls=17:allf=t,format=yuv420p" -frames:v "$frames" -r 25 \
        "$work/clip.y4m" -y
    for precision in f32 int8; do
        row="| $size | camera, $precision |"
        memory=0
        for temporal in off on; do
            json=$("$binary" denoise "$work/clip.y4m" -o "$work/out.y4m" --temporal=$temporal --precision $precision \
                --json 2>/dev/null & wait $!)
            fps=$(printf '%s\n' "$json" | tail -1 | python3 -c 'import json,sys; print("%.1f" % json.load(sys.stdin)["rate"])')
            row="$row $fps |"
            held=$( { python3 - "$binary" "$work" "$precision" "$temporal" <<'PY'
import resource, subprocess, sys
binary, work, precision, temporal = sys.argv[1:]
subprocess.run([binary, "denoise", f"{work}/clip.y4m", "-o", f"{work}/out.y4m", f"--temporal={temporal}", "--precision", precision, "--quiet"], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
PY
            } )
            ((held > memory)) && memory=$held
        done
        printf '%s %s MiB |\n' "$row" "$memory"
    done
done

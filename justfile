# What is done often; `just check` is what decides whether work lands.

# Format, lints, documentation, tests, the README's commands
check:
    bash .ci/run

# Licenses, duplicates and sources of the dependencies (needs cargo-deny), and known vulnerabilities (needs the network)
deny:
    cargo deny check

# All benches
bench:
    cargo bench

# How much slower a whole frame is than the bare network
ratio *ARGS:
    cargo run --release -- bench denoise-fast {{ARGS}}

# models/QUALITY.md and docs/: the bundled networks beside CBM3D, NLM and bicubic (needs models/train/requirements.txt)
report:
    python3 models/evaluate.py

# lists the recipes
default:
    @just --list

# all that CI runs
ci:
    .ci/run

# the tests
test:
    cargo nextest run --release

# formats and lints
lint:
    cargo fmt
    cargo clippy --release --all-targets -- -D warnings

# redraws the built-in clip
demo:
    cargo run --release -- generate --output out/test-clip.gif --force

# the ladder on this machine
ladder model="reference-medium":
    cargo run --release -- bench --model {{model}} --stages ladder

# Criterion benchmarks of the ops and of a frame
criterion:
    cargo bench

# type-checks every subset of the stages, with and without CUDA, without a toolkit
subsets:
    .ci/subsets

# this project's kernels under compute-sanitizer, on a GPU of compute capability 9.0, in both storage types, with weights in eight bits, and the code for compute capability 8.0;
# a first run without it measures what the tuner would measure, and the allocation that is meant to fail is no finding
sanitize:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --release --features flash-attn-cuda,all-stages
    check() { "$@" target/release/mirage validate --device cuda --random 30 --seed 5 "${arguments[@]}"; }
    for setup in "--dtype f16" "--dtype bf16" "--dtype f16 --weights-dtype fp8" "--dtype bf16 --weights-dtype fp8" compute_80; do
        if [ "$setup" = compute_80 ]; then export MIRAGE_CUDA_ARCH=compute_80; arguments=(); else read -ra arguments <<< "$setup"; fi
        check env
        for tool in memcheck racecheck synccheck; do
            options=(--tool $tool --kernel-name kns=mirage --error-exitcode 1)
            [ $tool != memcheck ] || options+=(--report-api-errors no)
            check compute-sanitizer "${options[@]}"
        done
    done

# licences and advisories
deny:
    cargo deny check

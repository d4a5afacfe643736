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

# this project's kernels under compute-sanitizer, on a GPU; a first run without it measures what the tuner would measure
sanitize:
    cargo build --release --features flash-attn-cuda,all-stages
    target/release/mirage validate --device cuda --random 30 --seed 5
    for tool in memcheck racecheck synccheck; do compute-sanitizer --tool $tool --kernel-name kns=mirage target/release/mirage validate --device cuda --random 30 --seed 5; done

# licences and advisories
deny:
    cargo deny check

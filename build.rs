//! Stamps the build for `--version` and for results, and compiles the GPU kernels where the build has CUDA.
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is built from: each change may make the tree differ from its commit, and the stamp must say so.
const SOURCES: [&str; 7] = ["Cargo.lock", "Cargo.toml", "assets", "build.rs", "cuda-kernels", "src", "stages"];

fn main() {
    // a path that is not there would count as changed at every build
    for path in SOURCES.into_iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    stamp("MIRAGE_GIT_REVISION", &git_revision());
    stamp("MIRAGE_TARGET", &variable("TARGET"));
    stamp("MIRAGE_PROFILE", &variable("PROFILE"));
    stamp("MIRAGE_RUSTC", &first_line(Command::new(variable("RUSTC")).arg("--version")).unwrap_or_default());
    if !variable("CARGO_FEATURE_CUDA").is_empty() {
        for (name, cards) in KERNELS {
            compile(name, cards);
        }
    }
}

/// Code for compute capability 8 and 9, and PTX of the latter for cards that are newer than this list.
const CARDS: &[&str] = &["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"];
/// Code that only compute capability 9.0 runs.
const HOPPER: &[&str] = &["arch=compute_90a,code=sm_90a"];
/// Files of `cuda-kernels/`, each of which becomes one image for these cards.
const KERNELS: [(&str, &[&str]); 8] = [
    ("attention", CARDS),
    ("conv2d", CARDS),
    ("conv3x3", CARDS),
    ("norm", CARDS),
    ("elementwise", CARDS),
    ("conv2d_fp8", HOPPER),
    ("conv2d_hopper", HOPPER),
    ("conv3x3_hopper", HOPPER),
];

/// Has nvcc make `NAME.fatbin` of `cuda-kernels/NAME.cu`, unless the one that is there is newer than every source.
fn compile(name: &str, cards: &[&str]) {
    let source = PathBuf::from(format!("cuda-kernels/{name}.cu"));
    let image = PathBuf::from(variable("OUT_DIR")).join(format!("{name}.fatbin"));
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let headers = ["common", "ptx", "conv2d", "hopper", "conv2d_hopper"]
        .map(|name| PathBuf::from(format!("cuda-kernels/{name}.cuh")));
    let newest = headers.iter().map(PathBuf::as_path).chain([source.as_path(), Path::new("build.rs")]);
    let newest = newest.filter_map(changed).max();
    if changed(&image).is_some_and(|image| Some(image) > newest) {
        return;
    }
    let nvcc = match variable("CUDA_HOME") {
        home if home.is_empty() => PathBuf::from("nvcc"),
        home => PathBuf::from(home).join("bin/nvcc"),
    };
    let mut command = Command::new(&nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17", "-o"]).arg(&image).arg(&source);
    for card in cards {
        command.args(["-gencode", card]);
    }
    match command.output() {
        Ok(output) if output.status.success() => (),
        Ok(output) => panic!(
            "{} cannot compile {}:\n{}",
            nvcc.display(),
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(e) => panic!(
            "{} cannot be started: {e}; a build with CUDA needs the CUDA toolkit: put nvcc on PATH or set CUDA_HOME",
            nvcc.display()
        ),
    }
}

fn stamp(name: &str, value: &str) {
    println!("cargo::rustc-env={name}={value}");
}

fn variable(name: &str) -> String {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).unwrap_or_default()
}

/// The commit, with `-dirty` where the tree differs from it; `unknown` outside a checkout.
fn git_revision() -> String {
    let Some(revision) = first_line(Command::new("git").args(["rev-parse", "--short=12", "HEAD"])) else {
        return "unknown".to_owned();
    };
    // a new commit moves HEAD or the branch that it names; both are logged here
    if let Some(log) = first_line(Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"])) {
        println!("cargo::rerun-if-changed={log}");
    }
    match first_line(Command::new("git").args(["status", "--porcelain", "--untracked-files=no"])) {
        Some(_) => format!("{revision}-dirty"),
        None => revision,
    }
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

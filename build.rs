//! Stamps the build for `--version` and for results.
use std::path::Path;
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

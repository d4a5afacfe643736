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
            if cards != HOPPER {
                compile(name, &oldest(name), OLDEST);
            }
            compile(name, name, cards);
        }
        for name in PTX {
            assemble(name);
        }
        list_images();
    }
}

/// Code for compute capability 8 and 9, and PTX of the latter for cards that are newer than this list.
const CARDS: &[&str] = &["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"];
/// Code that only compute capability 9.0 runs.
const HOPPER: &[&str] = &["arch=compute_90a,code=sm_90a"];
/// Files of `cuda-kernels/`, each of which becomes one image for these cards.
const KERNELS: [(&str, &[&str]); 9] = [
    ("attention", CARDS),
    ("conv2d", CARDS),
    ("conv3x3", CARDS),
    ("norm", CARDS),
    ("elementwise", CARDS),
    ("conv2d_fp8", HOPPER),
    ("conv2d_hopper", HOPPER),
    ("conv2d_narrow_hopper", HOPPER),
    ("conv3x3_hopper", HOPPER),
];

/// Files of `cuda-kernels/ptx/`, written by hand, each of which becomes one image for compute capability 8 and 9.0.
const PTX: [&str; 12] = [
    "frame_bf16",
    "frame_f16",
    "group_norm_apply_bf16",
    "group_norm_apply_f16",
    "group_norm_sums_bf16",
    "group_norm_sums_f16",
    "layer_norm_bf16",
    "layer_norm_f16",
    "resample_bf16",
    "resample_f16",
    "rgb8_bf16",
    "rgb8_f16",
];
/// What a line of these files begins with, after its indentation, that is for 9.0 only: programmatic dependent launch, which
/// `.target sm_80` may not name. PTX has no conditions of its own.
const ONLY_HOPPER: &str = "//sm_90a ";

/// The oldest generation alone, as PTX: what a newer card is given to show that an older one's code is right.
const OLDEST: &[&str] = &["arch=compute_80,code=compute_80"];

/// Has nvcc make `IMAGE.fatbin` of `cuda-kernels/NAME.cu` for these cards, unless the one that is there is newer than every source.
fn compile(name: &str, image: &str, cards: &[&str]) {
    let source = PathBuf::from(format!("cuda-kernels/{name}.cu"));
    let image = PathBuf::from(variable("OUT_DIR")).join(format!("{image}.fatbin"));
    let headers = ["common", "ptx", "conv2d", "hopper", "conv2d_hopper"]
        .map(|name| PathBuf::from(format!("cuda-kernels/{name}.cuh")));
    if is_newer(&image, headers.iter().map(PathBuf::as_path).chain([source.as_path()])) {
        return warn_again(&image);
    }
    let mut command = toolkit("nvcc");
    command.args(["-fatbin", "-O3", "-std=c++17", "-Xptxas=--warn-on-spills", "-o"]).arg(&image).arg(&source);
    for card in cards {
        command.args(["-gencode", card]);
    }
    let what = format!("{} for {}", source.display(), cards.join(" "));
    warn_of_spills(&image, &[(what, finish(command, &source))]);
}

/// Registers that had to be kept in memory cost time: a warning of the build for each kernel of what was compiled into an image, kept beside it.
fn warn_of_spills(image: &Path, compiled: &[(String, String)]) {
    let spills = compiled.iter().flat_map(|(what, said)| {
        said.lines().filter(|line| line.contains("spill")).map(move |line| format!("{what}: {line}\n"))
    });
    let warnings = image.with_extension("spills");
    std::fs::write(&warnings, spills.collect::<String>())
        .unwrap_or_else(|e| panic!("{} cannot be written: {e}", warnings.display()));
    warn_again(image);
}

/// What there was to warn of when the image was made: a build that finds it made has the same spills.
fn warn_again(image: &Path) {
    for line in std::fs::read_to_string(image.with_extension("spills")).unwrap_or_default().lines() {
        println!("cargo::warning={line}");
    }
}

/// The image of the oldest generation's code.
fn oldest(name: &str) -> String {
    format!("{name}.compute_80")
}

/// Has ptxas make code of `cuda-kernels/ptx/NAME.ptx` for sm_80 and sm_90a, and puts both, and the PTX for later cards, into `NAME.fatbin`,
/// from which the driver takes what fits the card; and the PTX alone into another.
fn assemble(name: &str) {
    let source = PathBuf::from(format!("cuda-kernels/ptx/{name}.ptx"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let image = out.join(format!("{name}.fatbin"));
    if is_newer(&image, [source.as_path()]) {
        return warn_again(&image);
    }
    let text = std::fs::read_to_string(&source).unwrap_or_else(|e| panic!("{} cannot be read: {e}", source.display()));
    let hopper = text.replace(".target sm_80", ".target sm_90a").replace(ONLY_HOPPER, "");
    let join = |image: &Path| {
        let mut command = toolkit("fatbinary");
        command.arg("-64").arg(format!("--create={}", image.display()));
        command.arg(format!("--image3=kind=ptx,sm=80,file={}", source.display()));
        command
    };
    let mut all = join(&image);
    let mut compiled = vec![];
    for (card, text) in [("80", &text), ("90a", &hopper)] {
        let (variant, code) = (out.join(format!("{name}.sm_{card}.ptx")), out.join(format!("{name}.sm_{card}.cubin")));
        std::fs::write(&variant, text).unwrap_or_else(|e| panic!("{} cannot be written: {e}", variant.display()));
        let mut command = toolkit("ptxas");
        command.args(["--warn-on-spills", &format!("-arch=sm_{card}"), "-o"]).arg(&code).arg(&variant);
        compiled.push((format!("{} for sm_{card}", source.display()), finish(command, &source)));
        all.arg(format!("--image3=kind=elf,sm={card},file={}", code.display()));
    }
    finish(join(&out.join(format!("{}.fatbin", oldest(name)))), &source);
    finish(all, &source);
    warn_of_spills(&image, &compiled);
}

/// Writes the images as the array that the program includes: a name, the bytes, and those of the oldest generation's code, which what is
/// for compute capability 9.0 alone has not.
fn list_images() {
    let bytes = |image: &str| format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{image}.fatbin\"))");
    let compiled = KERNELS.map(|(name, cards)| (name, cards == HOPPER));
    let entries = compiled.into_iter().chain(PTX.map(|name| (name, false))).map(|(name, only_hopper)| {
        let old = if only_hopper { "None".to_owned() } else { format!("Some({})", bytes(&oldest(name))) };
        format!("({name:?}, {}, {old}),\n", bytes(name))
    });
    let list = PathBuf::from(variable("OUT_DIR")).join("images.rs");
    std::fs::write(&list, format!("&[\n{}]\n", entries.collect::<String>()))
        .unwrap_or_else(|e| panic!("{} cannot be written: {e}", list.display()));
}

/// Whether an image is newer than all that it is made of.
fn is_newer<'a>(image: &Path, sources: impl IntoIterator<Item = &'a Path>) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let newest = sources.into_iter().chain([Path::new("build.rs")]).filter_map(changed).max();
    changed(image).is_some_and(|image| Some(image) > newest)
}

/// A program of the CUDA toolkit.
fn toolkit(program: &str) -> Command {
    match variable("CUDA_HOME") {
        home if home.is_empty() => Command::new(program),
        home => Command::new(PathBuf::from(home).join("bin").join(program)),
    }
}

/// Runs a program of the toolkit over a kernel's source; what it said.
fn finish(mut command: Command, source: &Path) -> String {
    let output = command.output();
    let program = command.get_program().to_string_lossy();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stderr).into_owned(),
        Ok(output) => {
            panic!("{program} cannot compile {}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr))
        }
        Err(e) => panic!(
            "{program} cannot be started: {e}; a build with CUDA needs the CUDA toolkit: put nvcc on PATH or set CUDA_HOME"
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

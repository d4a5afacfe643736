//! Holds the tree to the house rules: where things may be named, how long a file may be, what must not be left behind.
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folders: &[&str], endings: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("target") && !path.ends_with("__pycache__") {
                    walk(&path, endings, found);
                }
            } else if path.extension().and_then(|e| e.to_str()).is_some_and(|e| endings.contains(&e)) {
                found.push(path);
            }
        }
    }
    let mut found = vec![];
    for folder in folders {
        walk(&root().join(folder), endings, &mut found);
    }
    found.sort();
    assert!(!found.is_empty(), "no files under {folders:?}");
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Lines of `folders` that hold one of `words`, apart from files for which `allowed` says so.
fn mentions(folders: &[&str], words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = vec![];
    for path in files(folders, &["rs"]) {
        let name = name(&path);
        if allowed(&name) {
            continue;
        }
        let text = fs::read_to_string(&path).expect("source files are UTF-8");
        for (i, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|w| line.contains(**w)) {
                found.push(format!("{name}:{}: {word}", i + 1));
            }
        }
    }
    found
}

fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

const SOURCES: &[&str] = &["src", "stages"];

#[test]
fn only_two_files_name_a_cargo_feature() {
    let found = mentions(SOURCES, &["(feature ="], |f| f == "src/cuda/mod.rs" || f == "stages/mod.rs");
    none(&found, "Cargo features are named in stages/mod.rs and src/cuda/mod.rs only");
}

#[test]
fn a_model_names_no_stage_and_a_stage_no_model() {
    none(
        &mentions(&["src/model"], &["stages::", "crate::cuda", "crate::stream", "crate::media", "crate::cli"], |_| {
            false
        }),
        "model may call ops only",
    );
    none(
        &mentions(
            &["stages"],
            &["crate::model", "crate::stream", "crate::cli", "crate::media", "crate::bench"],
            |_| false,
        ),
        "stages may call ops, diffusion and cuda only",
    );
    none(
        &mentions(
            &["src/ops"],
            &["crate::model", "crate::stages", "crate::stream", "crate::cli", "crate::media"],
            |_| false,
        ),
        "ops may call diffusion only",
    );
    none(
        &mentions(&["src/stream"], &["crate::cli", "crate::stages"], |_| false),
        "stream may not call the command line or a stage",
    );
    none(
        &mentions(&["src/drift"], &["crate::cli", "crate::stages", "crate::model"], |_| false),
        "the drift test may not know what it tests",
    );
    none(
        &mentions(
            &["src/media", "src/diffusion"],
            &["crate::cli", "crate::model", "crate::ops", "crate::stages", "crate::stream"],
            |_| false,
        ),
        "media and diffusion stand alone",
    );
}

#[test]
fn an_op_is_timed_in_the_probe_only() {
    none(
        &mentions(&["src/ops", "src/model", "stages"], &["Instant::now"], |f| f == "src/ops/probe.rs"),
        "only the probe looks at the clock",
    );
}

#[test]
fn no_environment_variable_steers_a_model_or_a_stage() {
    none(
        &mentions(&["src/model", "src/ops", "src/stream", "stages"], &["env::var"], |_| false),
        "settings are arguments",
    );
}

#[test]
fn files_stay_short_and_say_what_they_are() {
    let mut found = vec![];
    for path in files(
        &["src", "stages", "tests", "benches", "cuda-kernels", "fuzz", "training", "web"],
        &["rs", "cu", "cuh", "ptx", "py", "js"],
    ) {
        let text = fs::read_to_string(&path).expect("source files are UTF-8");
        let lines = text.lines().count();
        let limit = if name(&path).starts_with("src/model/") { 650 } else { 500 };
        if lines > limit {
            found.push(format!("{}: {lines} lines, the limit is {limit}", name(&path)));
        }
        let is_rust = path.extension().is_some_and(|e| e == "rs");
        if is_rust && !text.starts_with("//! ") {
            found.push(format!("{}: begins without a sentence of //!", name(&path)));
        }
    }
    none(&found, "files end before 500 lines (a network may take 650) and begin with what they are");
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("unimpl", "emented!")];
    none(&mentions(&["src", "stages", "tests", "benches"], &words, |_| false), "nothing unfinished is called done");
}

#[test]
fn every_stage_has_its_page() {
    for stage in mirage::stages::LADDER {
        let page = root().join("stages").join(stage.name.replace('-', "_")).join("README.md");
        let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for heading in ["## Claim", "## Method", "## Result"] {
            assert!(text.contains(heading), "{} lacks {heading}", page.display());
        }
    }
}

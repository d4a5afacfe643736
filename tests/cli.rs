//! The command line as a user meets it: what works, and what is refused in which words.
use assert_cmd::Command;
use std::fs;
use std::path::{Path, PathBuf};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mirage_hello_base16_b1_32x32.safetensors");

fn mirage(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirage"));
    command.args(arguments);
    command
}

/// Runs it, expects exit code 2, and gives what it said.
fn refusal(arguments: &[&str]) -> String {
    let output = mirage(arguments).assert().code(2).get_output().clone();
    let said = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// A safetensors file with this header text and this much data; it says that the header has `length` bytes.
fn safetensors(folder: &tempfile::TempDir, name: &str, length: u64, header: &str, data: usize) -> String {
    let path = folder.path().join(format!("{name}.safetensors"));
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    fs::write(&path, bytes).expect("a temporary file can be written");
    path.display().to_string()
}

fn frames_in(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder).expect("the folder exists").flatten().map(|e| e.path()).collect();
    names.sort();
    names
}

#[test]
fn weights_in_eight_bits_need_the_stage_that_stores_them() {
    let dir = folder();
    let output = path(&dir, "a.gif");
    let said = refusal(&["generate", "--output", &output, "--weights-dtype", "fp8"]);
    assert!(said.contains("add custom-ptx to --stages"), "{said}");
    let said = refusal(&["validate", "--weights-dtype", "fp9"]);
    assert!(said.contains("choose fp8, or storage"), "{said}");
}

#[test]
fn the_test_clip_is_redrawn_the_same_each_time() {
    let dir = folder();
    for name in ["a.gif", "b.gif"] {
        let output = path(&dir, name);
        mirage(&["generate", "--output", &output, "--frames", "4", "--size", "64x48", "--seed", "7"])
            .assert()
            .success();
    }
    let (a, b) = (fs::read(path(&dir, "a.gif")), fs::read(path(&dir, "b.gif")));
    let a = a.expect("the first was written");
    assert!(a.starts_with(b"GIF89a"));
    assert_eq!(a, b.expect("the second was written"));
}

#[test]
fn every_sampler_and_stage_redraws() {
    let dir = folder();
    for sampler in ["sequence", "ddim", "ddpm", "euler", "lcm"] {
        for stages in ["none", "all"] {
            let output = path(&dir, &format!("{sampler}-{stages}/"));
            let arguments =
                ["generate", "--model", "reference-tiny", "--output", &output, "--frames", "2", "--size", "32x32"];
            let with = ["--sampler", sampler, "--stages", stages, "--memory", "2"];
            mirage(&[&arguments[..], &with].concat()).assert().success();
            assert_eq!(frames_in(Path::new(&output)).len(), 2, "{sampler} {stages}");
        }
    }
}

#[test]
fn an_output_that_exists_is_left_alone_unless_forced() {
    let dir = folder();
    let output = path(&dir, "out.gif");
    fs::write(&output, "mine").expect("a temporary file can be written");
    let arguments = ["generate", "--output", &output, "--frames", "1", "--size", "32x32"];
    let said = refusal(&arguments);
    assert!(said.contains("out.gif") && said.contains("--force"), "{said}");
    assert_eq!(fs::read(&output).expect("it is still there"), b"mine");
    mirage(&[&arguments[..], &["--force"]].concat()).assert().success();
    assert!(fs::read(&output).expect("it was replaced").starts_with(b"GIF89a"));
}

#[test]
fn input_that_cannot_be_read_is_named() {
    let dir = folder();
    let output = path(&dir, "out.gif");
    let generate = |input: &str| refusal(&["generate", "--input", input, "--output", &output, "--size", "32x32"]);
    let missing = path(&dir, "missing.gif");
    assert!(generate(&missing).contains("missing.gif"));
    let empty = path(&dir, "empty.gif");
    fs::write(&empty, "").expect("a temporary file can be written");
    assert!(generate(&empty).contains("empty.gif"));
    let no_frames = path(&dir, "no-frames");
    fs::create_dir(&no_frames).expect("a temporary folder can be made");
    assert!(generate(&no_frames).contains("no-frames"));
    assert!(!Path::new(&output).exists(), "nothing is written when there is nothing to draw");
}

#[test]
fn misspelt_names_get_the_nearest_one() {
    let stages = refusal(&["generate", "--output", "x.gif", "--stages", "flash-atn"]);
    assert!(stages.contains("flash-attn"), "{stages}");
    let model = refusal(&["generate", "--output", "x.gif", "--model", "reference-tinny"]);
    assert!(model.contains("reference-tiny"), "{model}");
    let device = refusal(&["generate", "--output", "x.gif", "--device", "gpu"]);
    assert!(device.contains("cuda:NUMBER"), "{device}");
}

#[test]
fn stages_that_cannot_run_say_why() {
    let said = refusal(&["generate", "--output", "x.gif", "--stages", "custom-ptx"]);
    assert!(said.contains("custom-ptx needs an NVIDIA GPU") && said.contains("leave it out of --stages"), "{said}");
    let said = refusal(&["generate", "--output", "x.gif", "--device", "cuda"]);
    assert!(said.contains("--features cuda") || said.contains("cannot be used"), "{said}");
}

#[test]
fn ways_to_draw_are_not_ignored_by_a_network_that_has_its_own() {
    for (option, value) in [("--sampler", "ddim"), ("--schedule", "linear")] {
        let dir = folder();
        let output = path(&dir, "out.gif");
        let said = refusal(&["generate", "--output", &output, "--frames", "1", "--size", "64x64", option, value]);
        assert!(said.contains("mirage-live") && said.contains(&format!("leave out {option}")), "{said}");
    }
}

/// Every set of stages in f32, and the default: within 1e-4 of the largest magnitude.
#[test]
fn eval_draws_what_the_golden_file_holds() {
    let dir = folder();
    let output = path(&dir, "drawn.safetensors");
    let arguments = ["eval", "--model", "reference", "--base-channels", "16", "--inputs", GOLDEN, "--output", &output];
    let load = |path: &str| candle_core::safetensors::load(path, &candle_core::Device::Cpu).expect("a readable file");
    let golden = load(GOLDEN);
    let stages = |list| vec!["--force", "--stages", list];
    let sets = ["none", "flash-attn", "fused-ops", "flash-attn,fused-ops"].map(stages);
    for more in sets.into_iter().chain([vec!["--force"]]) {
        mirage(&arguments).args(&more).assert().success();
        let drawn = load(&output);
        for name in ["step_t25", "sequence"] {
            let (drawn, golden) = (&drawn[name], &golden[name]);
            assert_eq!(drawn.dims(), golden.dims());
            let largest = golden.abs().and_then(|t| t.max_all()?.to_scalar::<f32>()).expect("it holds values in f32");
            let difference = mirage::ops::cases::largest_difference(drawn, golden).expect("shapes agree");
            let error = difference / f64::from(largest);
            assert!(error < 1e-4, "{more:?}: {name}: {error:e}");
        }
    }
    assert!(refusal(&arguments).contains("--force"));
}

#[test]
fn hostile_weights_are_refused_in_words() {
    let dir = folder();
    let output = path(&dir, "out.gif");
    let load = |file: &str| {
        let arguments = ["generate", "--model", "reference-tiny", "--output", &output, "--frames", "1"];
        refusal(&[&arguments[..], &["--weights", file, "--size", "32x32"]].concat())
    };

    let missing = path(&dir, "missing.safetensors");
    assert!(load(&missing).contains("missing.safetensors"));
    let refused = |name: &str, length: u64, header: &str, data: usize, reason: &str| {
        let said = load(&safetensors(&dir, name, length, header, data));
        assert!(said.contains(&format!("{name}.safetensors")) && said.contains(reason), "{name}: {said}");
        assert!(said.contains("damaged"), "{name} is not told what to do: {said}");
    };
    refused("long", u64::MAX, "{}", 0, "header too large");
    refused("longer-than-the-file", 1 << 20, "{}", 0, "invalid header length");
    for (name, header, data, reason) in [
        ("empty", "", 0, "invalid JSON in header"),
        ("not-json", "{{", 0, "invalid JSON in header"),
        (
            "outside",
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
            8,
            "incomplete metadata, file not fully covered",
        ),
        (
            "backwards",
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}}"#,
            16,
            "invalid offset for tensor `a`",
        ),
        (
            "overlapping",
            concat!(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"#,
                r#""b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#
            ),
            6,
            "invalid offset for tensor `b`",
        ),
        (
            "huge-shape",
            r#"{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,16]}}"#,
            16,
            "overflow computing buffer size",
        ),
        (
            "other-shape",
            r#"{"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}}"#,
            16,
            "invalid shape, data type, or offset",
        ),
        ("unknown-dtype", r#"{"a":{"dtype":"F31","shape":[4],"data_offsets":[0,16]}}"#, 16, "unknown variant `F31`"),
    ] {
        refused(name, header.len() as u64, header, data, reason);
    }
    let foreign = load(GOLDEN);
    assert!(foreign.contains("missing (") && foreign.contains("unused ("), "{foreign}");
    assert!(foreign.contains("step_t25"), "{foreign}");
    for p in (mirage::model::ModelSpec::Reference { base: 16 }).parameters().expect("16 channels are possible") {
        assert!(foreign.contains(&format!("\n    {}\n", p.name)), "{} is not listed: {foreign}", p.name);
    }
    assert!(!Path::new(&output).exists());
}

#[test]
fn weights_that_are_not_numbers_name_the_tensor() {
    let dir = folder();
    let file = dir.path().join("bad.safetensors");
    let mut tensors = std::collections::HashMap::new();
    for p in (mirage::model::ModelSpec::Reference { base: 16 }).parameters().expect("16 channels are possible") {
        let t = candle_core::Tensor::zeros(p.shape.clone(), candle_core::DType::F16, &candle_core::Device::Cpu);
        tensors.insert(p.name, t.expect("zeros can be made"));
    }
    let bad = "unets.1.dec2.conv_layers.3.bias";
    let (shape, device) = (tensors[bad].shape().clone(), candle_core::Device::Cpu);
    let nan = candle_core::Tensor::full(f32::NAN, &shape, &device).expect("a tensor can be made");
    let whole = candle_core::Tensor::zeros(&shape, candle_core::DType::I64, &device).expect("zeros can be made");
    let name = file.display().to_string();
    let output = path(&dir, "o.gif");
    for (tensor, reason) in [(nan, "has NaN at index"), (whole, "is I64; convert it to F32, F16 or BF16")] {
        tensors.insert(bad.into(), tensor);
        candle_core::safetensors::save(&tensors, &file).expect("a temporary file can be written");
        let said = refusal(&["generate", "--model", "reference-tiny", "--output", &output, "--weights", &name]);
        assert!(said.contains("bad.safetensors") && said.contains(bad) && said.contains(reason), "{said}");
    }
}

#[test]
fn models_are_listed_with_their_parameters() {
    let output = mirage(&["models"]).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("880,258,653") && said.contains("reference-tiny"), "{said}");
    let json = mirage(&["models", "--json"]).assert().success().get_output().clone();
    let list: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!(list[3]["parameters"], 880_258_653);
    assert_eq!(list[0]["parameters"], 5_715_600);
}

#[test]
fn help_has_an_example_for_every_command() {
    let output = mirage(&["--help"]).assert().success().get_output().clone();
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    for command in ["generate", "bench", "profile", "validate", "drift", "eval", "models", "completions", "man"] {
        assert!(help.contains(command), "{command} is not in the help");
        let output = mirage(&[command, "--help"]).assert().success().get_output().clone();
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(help.contains(&format!("mirage {command}")) && help.contains("Example"), "{command} has no example");
    }
}

#[test]
fn the_version_says_what_was_built() {
    let output = mirage(&["--version"]).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("fp16") && said.contains("custom-ptx") && said.contains("built for"), "{said}");
}

#[test]
fn completions_and_man_pages_are_whole() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = mirage(&["completions", shell]).assert().success().get_output().clone();
        assert!(String::from_utf8_lossy(&output.stdout).contains("generate"), "{shell}");
    }
    let dir = folder();
    mirage(&["man", "--output", &path(&dir, "man")]).assert().success();
    let pages = frames_in(&dir.path().join("man"));
    assert!(pages.iter().any(|p| p.ends_with("mirage-generate.1")), "{pages:?}");
}

#[test]
fn profile_accounts_for_every_layer() {
    let dir = folder();
    let trace = path(&dir, "trace.json");
    let arguments = ["profile", "--size", "32x32", "--calls", "1", "--stages", "all", "--trace", &trace];
    let output = mirage(&arguments).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("conv2d") && said.contains("Peak memory"), "{said}");
    let trace: serde_json::Value =
        serde_json::from_slice(&fs::read(&trace).expect("it was written")).expect("it is JSON");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.len() > 150));
}

#[test]
fn a_roofline_sets_each_layer_beside_its_floor() {
    let dir = folder();
    let json = path(&dir, "roofline.json");
    let arguments = ["profile", "--model", "reference-tiny", "--size", "32x32", "--calls", "1", "--roofline"];
    let storing = [&arguments[..], &["--json", &json]].concat();
    let output = mirage(&storing).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("(measured)") && said.contains("share of floor"), "{said}");
    let stored: serde_json::Value =
        serde_json::from_slice(&fs::read(&json).expect("it was written")).expect("it is JSON");
    assert_eq!(stored["bandwidth_from"], "measured");
    let layers = stored["layers"].as_array().expect("a list");
    assert!(layers.len() > 100);
    let number = |layer: &serde_json::Value, key: &str| layer[key].as_f64().expect("a number");
    for layer in layers.iter().chain([&stored["total"]]) {
        // data in a cache may beat a copy through memory; a wrong unit would be off by a thousand
        let share = number(layer, "share");
        assert!(number(layer, "floor") > 0.0 && share > 0.0 && share < 50.0, "{layer}");
    }
    let lost: Vec<f64> = layers.iter().map(|layer| number(layer, "seconds") - number(layer, "floor")).collect();
    assert!(lost.is_sorted_by(|a, b| a >= b), "{lost:?}");

    let said = refusal(&storing);
    assert!(said.contains("exists") && said.contains("--force"), "{said}");
    for (option, wrong) in
        [("--bandwidth", "0"), ("--bandwidth", "-1"), ("--arithmetic", "NaN"), ("--arithmetic", "1e300")]
    {
        let said = refusal(&[&arguments[..], &[option, wrong]].concat());
        assert!(said.contains(option) && said.contains("give a number above 0"), "{said}");
    }
}

#[test]
fn a_roofline_takes_the_ceilings_that_it_is_given() {
    let arguments = ["profile", "--model", "reference-tiny", "--size", "16x16", "--calls", "1", "--layers", "3"];
    let given = ["--roofline", "--bandwidth", "20", "--arithmetic", "200"];
    let output = mirage(&[&arguments[..], &given].concat()).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("20.0 GB/s (given), 200.0 GFLOP/s (given); they meet at 10.0 flop"), "{said}");
    assert!(!said.contains("(measured)"), "{said}");
    // the layers beyond the third are one row of each table
    assert_eq!(said.lines().filter(|line| line.contains(" others ")).count(), 2, "{said}");
}

#[test]
fn validate_passes_and_advises() {
    let output = mirage(&["validate", "--stages", "all", "--seed", "5"]).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("cases agree"), "{said}");
    assert!(said.contains("unets.0.enc1.conv_layers.0") && said.contains("pad to 8 input channels"), "{said}");
    assert!(!said.contains("WRONG"), "{said}");
    let said = refusal(&["validate", "--size", "8x24"]);
    assert!(said.contains("divide by 16") && said.contains("16x32"), "{said}");
}

#[test]
fn a_paced_run_is_checked_and_told_in_full() {
    let dir = folder();
    let json = path(&dir, "paced.json");
    let paced = ["bench", "--paced", "1000", "--model", "reference-tiny", "--size", "16x16", "--steps", "1"];
    let arguments = [&paced[..], &["--stages", "none", "--frames", "3", "--json", &json]].concat();
    let output = mirage(&arguments).assert().success().get_output().clone();
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("of 3 frames finished") && said.contains("random"), "{said}");
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(&json).expect("it was written")).expect("it is JSON");
    assert_eq!(report["status"]["kind"], "timed");
    assert_eq!(report["paced"]["fed"], 3);
    assert!(report["paced"]["lateness"]["p99"].is_number() && report["machine"]["cpu"].is_string(), "{report}");
    assert!(refusal(&arguments).contains("--force"));
    // what a paced run cannot do is refused, not passed over
    for (option, value) in [("--chart", "x"), ("--peer", "x.py"), ("--compare", "x.json"), ("--runs", "3")] {
        assert!(refusal(&[&paced[..], &[option, value]].concat()).contains(option), "{option}");
    }
    assert!(refusal(&[&paced[..], &["--markdown"]].concat()).contains("--markdown"));
    let said = refusal(&[&paced[..], &["--stages", "ladder"]].concat());
    assert!(said.contains("one set of stages"), "{said}");
}

#[test]
fn a_peer_is_given_no_network_that_it_does_not_have() {
    let said = refusal(&["bench", "--weights", "formula", "--peer", "x.py"]);
    assert!(said.contains("mirage-live") && said.contains("reference-medium"), "{said}");
}

#[test]
fn a_closed_standard_output_is_told_in_words() {
    for arguments in [&["models"][..], &["generate", "--output", "-", "--frames", "2", "--size", "32x32"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe can be made");
        drop(reader);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mirage"));
        let output = command.args(arguments).stdout(writer).stderr(std::process::Stdio::piped()).output();
        let output = output.expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("standard output") && !said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn each_style_of_the_box_draws_another_picture() {
    let dir = folder();
    let mut drawn = std::collections::HashSet::new();
    let styles = ["none", "ink", "oil", "neon", "papercut", "glass", "frost", "ink:0.5,neon:0.5"];
    for (i, style) in styles.iter().enumerate() {
        let output = path(&dir, &format!("{i}.png/"));
        mirage(&["generate", "--output", &output, "--frames", "2", "--size", "64x64", "--style", style])
            .assert()
            .success();
        let last = frames_in(Path::new(&output)).pop().expect("two frames were written");
        drawn.insert(fs::read(last).expect("it can be read"));
    }
    assert_eq!(drawn.len(), styles.len());
    let said = refusal(&["generate", "--output", &path(&dir, "x.gif"), "--style", "frots"]);
    assert!(said.contains("frost") && said.contains("papercut"), "{said}");
}

#[test]
fn drift_judges_and_leaves_its_evidence() {
    let dir = folder();
    let output = path(&dir, "drift");
    let arguments = ["drift", "--model", "reference-tiny", "--frames", "120", "--size", "16x16", "--output", &output];
    let run = mirage(&arguments).assert().get_output().clone();
    let said = String::from_utf8(run.stdout).expect("messages are UTF-8");
    // random weights may drift or not: the verdict, the report and the words must agree
    let code = run.status.code().expect("it ends by itself");
    let json = fs::read(dir.path().join("drift/drift.json")).expect("the report was written");
    let report: mirage::drift::report::Report = serde_json::from_slice(&json).expect("the report is JSON");
    assert_eq!(code, i32::from(!report.passed), "{said}");
    assert_eq!((report.runs[0].inputs.len(), report.engine.len()), (5, 3));
    assert_eq!(said.contains("failed:") || said.contains("FAILED"), code == 1, "{said}");
    for name in ["curves.svg", "curves.png", "frames.png", "naive-curves.png", "naive-frames.png"] {
        assert!(dir.path().join("drift").join(name).exists(), "{name}");
    }
    assert!(refusal(&arguments).contains("--force"));
    assert!(refusal(&["drift", "--frames", "119", "--output", &path(&dir, "b")]).contains("120"));
    assert!(refusal(&["drift", "--variant", "nothing", "--output", &path(&dir, "b")]).contains("no-memory"));
    let unknown = ["drift", "--model", "reference-tiny", "--variant", "no-augmentation", "--size", "16", "--output"];
    let refused = refusal(&[&unknown[..], &[&path(&dir, "b")]].concat());
    assert!(refused.contains("never noised"), "{refused}");
}

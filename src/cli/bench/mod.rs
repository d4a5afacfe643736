//! `mirage bench`: checks each rung against plain Candle, then times it, on the same machine in one run.
mod ops;
mod rungs;
mod work;

use super::options::{HalfType, ModelOptions, Size, WeightsOption};
use super::{Verdict, output};
use crate::bench::compare::{self, Tolerance};
use crate::bench::executor::Plan;
use crate::bench::paced::{self, Paced};
use crate::bench::report::{Build, Report, Row, Status, Work, machine};
use crate::bench::statistics::{MANY, Summary};
use crate::bench::{chart, peers, present};
use crate::media::FrameRate;
use crate::model::{ModelSpec, PRESETS};
use crate::ops::WeightsType;
use crate::stages::StageSpec;
use crate::stream::pacing::SystemClock;
use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use clap::Args;
use rungs::{Rung, RungSpec};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Options of a table, which a paced run does not make.
const TABLE_OPTIONS: [&str; 7] = ["chart", "markdown", "compare", "peer", "runs", "limit", "warmup"];

/// Checks each rung of the ladder against plain Candle, then times it.
///
/// A rung whose result is wrong, or whose newest stage ran no call, is shown as such and not timed. Weights by formula
/// are random: they measure speed, what is drawn is not video.
#[derive(Args)]
#[command(after_help = "Exit code 1 when --compare finds a regression or a rung is wrong.

Examples:
  mirage bench --model reference-medium --stages ladder --json run.json --chart run
  mirage bench --model reference-medium --stages all --compare run.json --tolerance 5%
  mirage bench --model reference-medium --stages ladder --peer benches/peers/pytorch.py
  mirage bench --ops conv2d --stages fused-ops --peer benches/peers/pytorch.py
  mirage bench --from run.json --markdown README.md --chart run")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    /// The rungs: ladder (each prefix), ablate (all, one left out at a time), alone (each by itself), none, all, or a list.
    /// By default ladder, with --paced all.
    #[arg(long, value_name = "RUNGS")]
    stages: Option<RungSpec>,
    /// The half-precision type that fp16 stores: f16, or on a GPU bf16, which holds the range of f32 with 8 bits of precision.
    #[arg(long, default_value = "f16", value_name = "TYPE")]
    dtype: HalfType,
    /// Add a rung on which custom-ptx stores weights so: fp8, in eight bits (e4m3) with a scale for each output, in layers that have 4
    /// million or more, with --ops in all. With --paced, the rung that is fed.
    #[arg(long, default_value = "storage", value_name = "TYPE")]
    weights_dtype: WeightsType,
    /// Measure single ops instead of a network: those whose case holds this text, such as conv2d.
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["model", "weights", "paced"])]
    ops: Option<String>,
    /// The size of a frame, WIDTHxHEIGHT, sides that divide by 16.
    #[arg(long, default_value = "64x64", value_name = "SIZE")]
    size: Size,
    /// Frames in a batch.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Calls of the network in one sequence.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    steps: u16,
    /// Work out for all calls of a sequence at once what does not depend on what they draw, as `generate` does; else one call after another.
    #[arg(long, conflicts_with = "ops")]
    together: bool,
    /// Counted sequences of each rung.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Sequences before them that are not counted.
    #[arg(long, default_value_t = 2, value_name = "N")]
    warmup: u32,
    /// Seconds after which a rung has been measured enough, once it has three runs.
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    limit: f64,
    /// Seed of the inputs of check and timing; without it, a fresh one.
    #[arg(long)]
    seed: Option<u64>,
    /// Show a stored report instead of measuring: its table, chart, markdown, comparison.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "peer", "paced"])]
    from: Option<PathBuf>,
    /// Write the report here, anew after each row.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a chart as NAME.svg and NAME.png.
    #[arg(long, value_name = "NAME")]
    chart: Option<PathBuf>,
    /// Print the table as markdown, or put it between the markers `<!-- bench:begin NAME -->` and `<!-- bench:end NAME
    /// -->` of a page, NAME being that of the report's file, as in NAME.json.
    #[arg(long, value_name = "PAGE", num_args = 0..=1, default_missing_value = "-")]
    markdown: Option<PathBuf>,
    /// Compare with an earlier report; exit 1 when a row became slower.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// How much slower a row may be, beyond its noise.
    #[arg(long, default_value = "5%", value_name = "SHARE")]
    tolerance: Tolerance,
    /// A script that does the same work in another engine, for the reference network and single ops; may be given more
    /// than once.
    #[arg(long, value_name = "SCRIPT")]
    peer: Vec<PathBuf>,
    /// The Python that runs peers.
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: PathBuf,
    /// Feed frames on the clock at this rate to one set of stages, and report lateness and drops; there is no table
    /// then, so nothing to chart or to compare.
    #[arg(long, value_name = "RATE", conflicts_with_all = TABLE_OPTIONS)]
    paced: Option<FrameRate>,
    /// Frames of a paced run.
    #[arg(long, default_value_t = 120, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: u64,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    let old = arguments.compare.as_deref().map(Report::load).transpose()?;
    for path in arguments.json.iter().cloned().chain(chart_files(arguments)) {
        output::refuse_existing(&path, arguments.force)?;
    }
    if let Some(path) = &arguments.from {
        let report = Report::load(path)?;
        say!("{}\n{}", present::caption(&report), header(&report));
        for i in 0..report.rows.len() {
            say!("{}", line(&report, i));
        }
        return finish(arguments, &report, old.as_ref());
    }
    refuse_foreign_work(arguments)?;
    let seed = arguments.seed.unwrap_or_else(rand::random);
    let mut report = Report {
        machine: machine().with(&arguments.model.device.open()?),
        build: Build { version: super::version().replace('\n', "; ") },
        command: super::command_line(),
        unix_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        work: work(arguments),
        rows: vec![],
    };
    if let Some(rate) = arguments.paced {
        return run_paced(arguments, rate, seed, report);
    }
    say!("{}\n{}", present::caption(&report), header(&report));
    match &arguments.ops {
        Some(filter) => ops::run(arguments, filter, seed, |row| push(&mut report, row, arguments))?,
        None => {
            let bench = work::Bench::new(arguments, seed)?;
            for rung in arguments.rungs(arguments.weights_dtype, &bench.device) {
                push(&mut report, bench.row(&rung)?, arguments)?;
            }
        }
    }
    for script in &arguments.peer {
        let mut saved = Ok(());
        peers::run(&script.display().to_string(), &mut peer(arguments, script, seed), |row| {
            if saved.is_ok() {
                saved = push(&mut report, row, arguments);
            }
        });
        saved?;
    }
    finish(arguments, &report, old.as_ref())
}

impl Arguments {
    /// What the rows of the table are.
    fn rungs(&self, weights: WeightsType, device: &Device) -> Vec<Rung> {
        self.stages.as_ref().unwrap_or(&RungSpec::Ladder).rungs_on(weights, device)
    }
}

/// Peers know the reference network by the number of its channels, with weights by their formula, and the live model as it lies
/// in the box.
fn refuse_foreign_work(arguments: &Arguments) -> Result<()> {
    let (model, weights) = (arguments.model.model, arguments.model.weights());
    let reference = |model: ModelSpec| matches!(model, ModelSpec::Reference { .. });
    let known = match model {
        ModelSpec::Live => weights == WeightsOption::Trained,
        ModelSpec::Reference { .. } => weights == WeightsOption::Formula,
    };
    let names: Vec<&str> = PRESETS.iter().filter(|p| reference(p.spec)).map(|p| p.name).collect();
    ensure!(
        arguments.peer.is_empty() || arguments.ops.is_some() || known,
        "--peer: other engines do not have {model} on weights {weights}, so there is nothing to compare: choose \
         --model mirage-live on its own weights, or {} or reference:CHANNELS on weights by formula",
        names.join(", ")
    );
    Ok(())
}

fn work(arguments: &Arguments) -> Work {
    Work {
        model: if arguments.ops.is_some() { present::OPS.to_owned() } else { arguments.model.model.to_string() },
        weights: if arguments.ops.is_some() { "random".to_owned() } else { arguments.model.weights().to_string() },
        width: arguments.size.width as usize,
        height: arguments.size.height as usize,
        batch: arguments.batch.into(),
        steps: arguments.steps.into(),
        together: arguments.together,
        device: arguments.model.device.to_string(),
    }
}

fn plan(arguments: &Arguments) -> Plan {
    Plan {
        warmup: arguments.warmup as usize,
        runs: arguments.runs as usize,
        limit: Duration::try_from_secs_f64(arguments.limit).unwrap_or(Duration::MAX),
    }
}

/// Shows a row and keeps it, at once: what comes later may fail.
fn push(report: &mut Report, row: Row, arguments: &Arguments) -> Result<()> {
    report.rows.push(row);
    let i = report.rows.len() - 1;
    say!("{}", line(report, i));
    if let Some(path) = &arguments.json {
        report.save(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Columns of a row's name: that of the longest op case.
fn name_columns(report: &Report) -> usize {
    if report.work.model == present::OPS { 72 } else { 34 }
}

fn header(report: &Report) -> String {
    columns(name_columns(report), present::titles(report), &present::titles(report).join("\t"))
}

fn line(report: &Report, i: usize) -> String {
    columns(name_columns(report), present::titles(report), &present::cells(report, i).join("\t"))
}

/// Cells in columns as wide as their titles need; an untimed row's reason runs across.
fn columns(name_columns: usize, titles: &[&str], cells: &str) -> String {
    let (name, numbers) = cells.split_once('\t').unwrap_or((cells, ""));
    if !numbers.contains('\t') {
        return format!("{name:<name_columns$}  {numbers}");
    }
    let numbers: Vec<String> = numbers
        .split('\t')
        .zip(&titles[1..])
        .map(|(c, t)| format!("{c:>width$}", width = t.chars().count().max(8)))
        .collect();
    format!("{name:<name_columns$}  {}", numbers.join("  "))
}

fn peer(arguments: &Arguments, script: &Path, seed: u64) -> Command {
    let mut command = Command::new(&arguments.python);
    command.arg(script).arg("--json");
    if arguments.ops.is_some() {
        command.arg("--ops");
    }
    match arguments.model.model {
        ModelSpec::Live => command.args(["--model", "mirage-live"]),
        ModelSpec::Reference { base } => command.args(["--base", &base.to_string()]),
    };
    if arguments.together {
        command.arg("--together");
    }
    for (name, value) in [
        ("--width", arguments.size.width.to_string()),
        ("--height", arguments.size.height.to_string()),
        ("--batch", arguments.batch.to_string()),
        ("--calls", arguments.steps.to_string()),
        ("--runs", arguments.runs.to_string()),
        ("--warmup", arguments.warmup.to_string()),
        ("--limit", arguments.limit.to_string()),
        ("--seed", seed.to_string()),
        ("--threads", rayon::current_num_threads().to_string()),
        ("--device", arguments.model.device.to_string()),
    ] {
        command.args([name, &value]);
    }
    command
}

fn chart_files(arguments: &Arguments) -> Vec<PathBuf> {
    let name = arguments.chart.iter();
    name.flat_map(|name| ["svg", "png"].map(|ending| PathBuf::from(format!("{}.{ending}", name.display())))).collect()
}

fn finish(arguments: &Arguments, report: &Report, old: Option<&Report>) -> Result<Verdict> {
    for row in &report.rows {
        if !row.calls.is_empty() {
            say!("{} ran {}", row.title(), present::callers(row));
        }
        for warning in &row.warnings {
            say!("warning: {}: {warning}", row.title());
        }
    }
    if present::has_peer_error(report) {
        say!("{}", present::PEER_ERROR);
    }
    for error in report.rows.iter().filter_map(present::stored_error) {
        say!("{error}");
    }
    if report.rows.iter().any(|row| row.sequence.as_ref().is_some_and(|s| s.count < MANY)) {
        say!(
            "warning: p95 and p99 of fewer than {MANY} runs say little more than the slowest; raise --runs and --limit"
        );
    }
    if let [svg_file, png_file] = &chart_files(arguments)[..] {
        let svg = chart::svg(report);
        output::write(svg_file, svg.as_bytes(), arguments.force)?;
        output::write(png_file, &chart::png(&svg)?, arguments.force)?;
        say!("Chart: {} and {}", svg_file.display(), png_file.display());
    }
    let file = arguments.from.as_deref().or(arguments.json.as_deref());
    match arguments.markdown.as_deref() {
        Some(page) if page == Path::new("-") => say!("\n{}", present::markdown(report, file)),
        Some(page) => {
            let text = std::fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
            let name = file.and_then(Path::file_stem).and_then(|name| name.to_str());
            let name = name.context("--markdown PAGE needs the report's file: give --json FILE, or --from FILE")?;
            let text = present::insert(&text, name, &present::markdown(report, file))
                .with_context(|| page.display().to_string())?;
            output::write(page, text.as_bytes(), true)?;
            say!("Table: {}", page.display());
        }
        None => (),
    }
    let wrong = report.rows.iter().any(|r| matches!(r.status, Status::Wrong(_)));
    let regressed = old.map_or(Ok(false), |old| show_changes(old, report, arguments.tolerance))?;
    Ok(if wrong || regressed { Verdict::Failed } else { Verdict::Passed })
}

fn show_changes(old: &Report, new: &Report, tolerance: Tolerance) -> Result<bool> {
    if old.machine != new.machine {
        say!("warning: the earlier report is of another machine ({}): what follows compares machines", old.machine.cpu);
    }
    let changes = compare::compare(old, new, tolerance)?;
    for change in &changes {
        let verdict = if change.regressed { "SLOWER" } else { "ok" };
        let (before, now) = change.medians;
        let now = now.map_or("gone".to_owned(), |now| format!("{now:.2} ms ({:+.1} %)", 100.0 * (now / before - 1.0)));
        say!("{:<34}  {before:.2} ms before, {now} now  {verdict}", change.name);
    }
    Ok(changes.iter().any(|c| c.regressed))
}

/// Feeds one set of stages by the clock, if it is right; `head` says of what, where and when.
fn run_paced(arguments: &Arguments, rate: FrameRate, seed: u64, head: Report) -> Result<Verdict> {
    let spec = match &arguments.stages {
        None => StageSpec::All,
        Some(RungSpec::Set(spec)) => spec.clone(),
        Some(_) => bail!("--paced feeds one set of stages by the clock: give --stages none, all or a list of stages"),
    };
    let bench = work::Bench::new(arguments, seed)?;
    let set = spec.resolve(&bench.device);
    let ops = set.install_over(arguments.dtype.reference(arguments.weights_dtype, &bench.device))?;
    let network = arguments.model.load(&ops)?;
    let inputs = bench.inputs(&ops)?;
    let check = bench.check(&*network, &ops, &inputs, set.names().last().copied())?;
    let (mut inputs, recorder) = (inputs, ops.recorder());
    let mut frame = || -> Result<()> {
        inputs[1] = bench.whole_sequence(&*network, &ops, recorder.as_deref(), &inputs)?;
        Ok(bench.device.synchronize()?)
    };
    let paced = if check.status == Status::Timed {
        frame()?;
        Some(paced::run(rate, arguments.frames, SystemClock::default(), |_| frame())?)
    } else {
        None
    };
    let Report { machine, build, command, unix_time, work, .. } = head;
    let report = paced::Report {
        machine,
        build,
        command,
        unix_time,
        work,
        stages: set.names().iter().map(|s| (*s).to_owned()).collect(),
        weights_dtype: ops.weights.to_string(),
        status: check.status,
        error: check.error,
        rate: rate.as_f64(),
        paced,
    };
    let (work, note) = (present::work(&report.work), ops.weights.note());
    say!("{work}, stages {set}{note} on {}, fed at {:.2} frames/s", report.work.device, report.rate);
    if let Some(why) = present::reason(&report.status) {
        say!("{why}");
    }
    if let Some(Paced { fed, finished, late, dropped, lateness }) = &report.paced {
        say!("{finished} of {fed} frames finished, {dropped} dropped for newer ones, {late} late");
        if let Some(Summary { median, p95, p99, max, .. }) = lateness {
            say!("lateness: median {median:.2} ms, p95 {p95:.2}, p99 {p99:.2}, worst {max:.2}");
        }
    }
    if report.work.weights == "formula" {
        say!("{}", present::RANDOM_WEIGHTS);
    }
    if let Some(path) = &arguments.json {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        output::write(path, &json, arguments.force)?;
    }
    Ok(if report.status == Status::Timed { Verdict::Passed } else { Verdict::Failed })
}

//! `mirage bench`: checks each rung against plain Candle, then times it, on the same machine in one run.
mod ops;
mod rungs;
mod work;

use super::options::{ModelOptions, Size, StageOptions};
use super::{Verdict, output};
use crate::bench::compare::{self, Tolerance};
use crate::bench::executor::Plan;
use crate::bench::report::{Build, Report, Row, Status, Work, machine};
use crate::bench::statistics::MANY;
use crate::bench::{chart, paced, peers, present};
use crate::media::FrameRate;
use crate::model::ModelSpec;
use crate::stages::StageSpec;
use crate::stream::pacing::SystemClock;
use anyhow::{Context, Result, ensure};
use clap::Args;
use rungs::RungSpec;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

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
    #[arg(long, default_value = "ladder", value_name = "RUNGS")]
    stages: RungSpec,
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
    /// A script that does the same work in another engine; may be given more than once.
    #[arg(long, value_name = "SCRIPT")]
    peer: Vec<PathBuf>,
    /// The Python that runs peers.
    #[arg(long, default_value = "python3", value_name = "PROGRAM")]
    python: PathBuf,
    /// Feed frames on the clock at this rate, through all stages, and report lateness and drops.
    #[arg(long, value_name = "RATE")]
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
    if let Some(rate) = arguments.paced {
        return run_paced(arguments, rate);
    }
    if let Some(path) = &arguments.from {
        let report = Report::load(path)?;
        say!("{}\n{}", present::caption(&report), header(&report));
        for i in 0..report.rows.len() {
            say!("{}", line(&report, i));
        }
        return finish(arguments, &report, old.as_ref());
    }
    let mut report = Report {
        machine: machine(),
        build: Build { version: super::version().replace('\n', "; ") },
        command: super::command_line(),
        unix_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        work: work(arguments),
        rows: vec![],
    };
    say!("{}\n{}", present::caption(&report), header(&report));
    match &arguments.ops {
        Some(filter) => ops::run(arguments, filter, |row| push(&mut report, row, arguments))?,
        None => {
            let bench = work::Bench::new(arguments)?;
            for rung in arguments.stages.rungs(&bench.device) {
                push(&mut report, bench.row(&rung)?, arguments)?;
            }
        }
    }
    for script in &arguments.peer {
        let mut saved = Ok(());
        peers::run(&script.display().to_string(), &mut peer(arguments, script), |row| {
            if saved.is_ok() {
                saved = push(&mut report, row, arguments);
            }
        });
        saved?;
    }
    finish(arguments, &report, old.as_ref())
}

fn work(arguments: &Arguments) -> Work {
    Work {
        model: if arguments.ops.is_some() { present::OPS.to_owned() } else { arguments.model.model.to_string() },
        weights: if arguments.ops.is_some() { "random".to_owned() } else { arguments.model.weights().to_string() },
        width: arguments.size.width as usize,
        height: arguments.size.height as usize,
        batch: arguments.batch.into(),
        steps: arguments.steps.into(),
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

fn peer(arguments: &Arguments, script: &Path) -> Command {
    let mut command = Command::new(&arguments.python);
    command.arg(script).arg("--json");
    if arguments.ops.is_some() {
        command.arg("--ops");
    }
    if let ModelSpec::Reference { base } = arguments.model.model {
        command.args(["--base", &base.to_string()]);
    }
    for (name, value) in [
        ("--width", arguments.size.width.to_string()),
        ("--height", arguments.size.height.to_string()),
        ("--batch", arguments.batch.to_string()),
        ("--calls", arguments.steps.to_string()),
        ("--runs", arguments.runs.to_string()),
        ("--warmup", arguments.warmup.to_string()),
        ("--limit", arguments.limit.to_string()),
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

fn run_paced(arguments: &Arguments, rate: FrameRate) -> Result<Verdict> {
    let RungSpec::Set(spec) = &arguments.stages else {
        // one set of stages can be fed by the clock, and by default it is all of them
        return run_paced_with(arguments, rate, &StageSpec::All);
    };
    run_paced_with(arguments, rate, spec)
}

fn run_paced_with(arguments: &Arguments, rate: FrameRate, stages: &StageSpec) -> Result<Verdict> {
    let device = arguments.model.device.open()?;
    let (set, ops) = StageOptions { stages: stages.clone() }.install(&device)?;
    let network = arguments.model.load(&ops)?;
    let [x, mut previous] = work::inputs(arguments, &ops)?;
    let mut frame = || -> Result<()> {
        previous = work::sequence(&*network, &ops, &x, &previous, arguments.steps, |_| ())?;
        Ok(device.synchronize()?)
    };
    frame()?;
    let paced = paced::run(rate, arguments.frames, SystemClock::default(), |_| frame())?;
    let lateness = paced.lateness.context("no frame was finished")?;
    ensure!(paced.pacing.finished > 0, "no frame was finished");
    say!(
        "{} at {}, {} calls a frame, stages {set} on {}, fed at {:.2} frames/s",
        arguments.model.model,
        arguments.size,
        arguments.steps,
        arguments.model.device,
        f64::from(rate.numerator) / f64::from(rate.denominator)
    );
    say!(
        "{} of {} frames finished, {} dropped for newer ones, {} late",
        paced.pacing.finished,
        arguments.frames,
        paced.pacing.dropped,
        paced.pacing.late
    );
    say!(
        "lateness: median {:.2} ms, p95 {:.2}, p99 {:.2}, worst {:.2}",
        lateness.median,
        lateness.p95,
        lateness.p99,
        lateness.max
    );
    say!("{}", present::RANDOM_WEIGHTS);
    Ok(Verdict::Passed)
}

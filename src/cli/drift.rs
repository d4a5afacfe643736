//! `mirage drift`: lets a stream run free for thousands of frames and asks whether it still draws as at the start.
use super::options::{ModelOptions, Size, StageOptions};
use super::table::table;
use super::{Verdict, output};
use crate::bench::chart;
use crate::bench::report::{Build, machine};
use crate::diffusion::{BetaSchedule, Sampler};
use crate::drift::engine::{self, EngineDrift};
use crate::drift::inputs::{FEWEST_FRAMES, Inputs, Script};
use crate::drift::report::{Input, Report, Run, Work};
use crate::drift::trace::{self, Trace};
use crate::drift::{Redraw, Subject, Variant, curves, sheet};
use crate::media::fit::{Fit, FitPlan, network_size};
use crate::media::{self, Frame, OpenOptions};
use crate::model::{FrameNetwork, StyleMix};
use crate::ops::{Ops, WeightsType};
use crate::stages::StageSet;
use crate::stream::{BlendRule, Sampling, Stream, StreamConfig};
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The pictures of each variant.
const PICTURES: [&str; 3] = ["curves.svg", "curves.png", "frames.png"];
/// Frames over which the stages are compared with plain f32.
const ENGINE_FRAMES: u64 = 100;

/// Tests whether a stream drifts: runs it free on its own output, never reset, and judges what becomes of the picture.
///
/// Inputs are a moving clip, a still, cuts, black, a clip that freezes and, where the model has styles, a switch of
/// style. Frames are compared with earlier ones on the same input and with fresh streams. The naive variant, with every
/// remedy off, runs beside and must fail: else the test could not see drift. Each set of stages is compared with plain
/// f32; with --weights-dtype fp8 all layers are stored so, whatever their size. Writes drift.json, curves.svg, curves.png and frames.png, and the same of the naive variant, into a folder.
#[derive(Args)]
#[command(after_help = "Exit code 1 when a check fails, or when the naive variant does not.

Examples:
  mirage drift --frames 1000 --output out/drift
  mirage drift --input clip.mp4 --size 256x144 --frames 10000 --device cuda --output out/drift
  mirage drift --variant no-memory --output out/no-memory")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    stages: StageOptions,
    /// Frames of each input, at least 120.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u64).range(FEWEST_FRAMES..))]
    frames: u64,
    /// A clip to run forth and back in place of the built-in one; a few seconds of it are used.
    #[arg(long, short, value_name = "VIDEO")]
    input: Option<String>,
    /// The size that is drawn at, WIDTHxHEIGHT, rounded to what the network takes.
    #[arg(long, default_value = "64x64", value_name = "SIZE")]
    size: Size,
    /// Seed of the streams.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Judge this variant alone: full, naive, no-augmentation, no-memory or no-blend.
    #[arg(long, value_name = "NAME")]
    variant: Option<Variant>,
    /// The folder to write into.
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
}

/// What is tested: the network on one set of stages, with the steps, strength and blend of `generate`, and noise, so that
/// the seed matters. Only this type and [`Restyled`] know what draws; the harness sees a [`Subject`].
struct Engine {
    network: Arc<dyn FrameNetwork>,
    ops: Ops,
}

/// A stream of an [`Engine`].
struct Restyled {
    stream: Stream,
    styles: Vec<String>,
}

impl Engine {
    fn load(model: &ModelOptions, ops: Ops) -> Result<Self> {
        Ok(Self { network: model.load(&ops)?, ops })
    }
}

impl Subject for Engine {
    fn start(&self, variant: Variant, seed: u64) -> crate::Result<Box<dyn Redraw>> {
        let mut config = StreamConfig { seed, ..StreamConfig::usual(&*self.network) };
        if self.network.restyling().is_some() {
            // a history without noise is one that the network trusts blindly
            config.history_timestep = if variant.augments() { None } else { Some(0) };
        } else if variant == Variant::NoAugmentation {
            return Err(crate::Error::Stream(
                "this network's history is never noised: leave out another remedy".into(),
            ));
        } else {
            config.sampling = Sampling::Diffusion(Sampler::Ddim { eta: 0.0 }, BetaSchedule::Cosine);
            config.memory.frames = 4;
        }
        if !variant.remembers() {
            config.memory.frames = 0;
        }
        if !variant.blends() {
            config.blend = BlendRule::Fixed(1.0);
        }
        let stream = Stream::new(self.network.clone(), self.ops.clone(), config)?;
        let styles = self.network.restyling().map_or(vec![], |r| r.styles.clone());
        Ok(Box::new(Restyled { stream, styles }))
    }

    fn styles(&self) -> Option<[String; 2]> {
        let styles = &self.network.restyling()?.styles;
        Some([styles.get(1)?.clone(), styles.get(2)?.clone()])
    }
}

impl Redraw for Restyled {
    fn step(&mut self, frame: &Tensor) -> crate::Result<Tensor> {
        self.stream.step(frame)
    }

    fn set_style(&mut self, style: &str) -> crate::Result<()> {
        let (weights, _) = style.parse::<StyleMix>()?.resolve(&self.styles)?;
        self.stream.restyle(weights)
    }
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot make the folder {}", arguments.output.display()))?;
    let pictures_of_naive: &[&str] = if arguments.variant.is_none() { &["naive-"] } else { &[] };
    for prefix in [&[""], pictures_of_naive].concat() {
        for name in PICTURES {
            output::refuse_existing(&arguments.output.join(format!("{prefix}{name}")), arguments.force)?;
        }
    }
    let json_file = arguments.output.join("drift.json");
    output::refuse_existing(&json_file, arguments.force)?;
    let device = arguments.model.device.open()?;
    let (set, ops) = arguments.stages.of_any_size().install(&device)?;
    let engine = Engine::load(&arguments.model, ops)?;
    let wanted = (arguments.size.width, arguments.size.height);
    let size = network_size(wanted, engine.network.multiple() as u32, wanted.0.max(wanted.1), Some(wanted));
    let styles = engine.styles();
    let mut inputs = Inputs { frames: arguments.frames, size, clip: &[], styles: styles.as_ref(), device: &device };
    let clip = arguments.input.as_deref().map(|path| read(path, inputs.clip_frames(), size)).transpose()?;
    inputs.clip = clip.as_deref().unwrap_or(&[]);
    let scripts = inputs.scripts()?;

    let variant = arguments.variant.unwrap_or(Variant::Full);
    let progress = Progress::new(arguments, &scripts, &set);
    let traces = scripts
        .iter()
        .map(|script| progress.run(&engine, variant, script, arguments.seed))
        .collect::<Result<Vec<_>>>()?;
    let inputs = traces.iter().map(Input::new).collect();
    let mut report = Report {
        machine: machine().with(&device),
        build: Build { version: super::version().replace('\n', "; ") },
        command: super::command_line(),
        unix_time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        work: work(arguments, &set, size),
        passed: false,
        runs: vec![Run::new(variant, inputs)],
        engine: vec![],
    };
    pictures(&traces, arguments, &report.work, variant, "")?;
    if arguments.variant.is_none() {
        let (naive, traces) = naive(&engine, &scripts, arguments.seed, &progress)?;
        report.runs.push(naive);
        pictures(&traces, arguments, &report.work, Variant::Naive, "naive-")?;
        report.engine = stages(arguments, &set, &scripts[0], &progress)?;
    }
    progress.bar.finish_and_clear();
    report.judge();
    let mut json = serde_json::to_vec_pretty(&report)?;
    json.push(b'\n');
    output::write(&json_file, &json, arguments.force)?;
    if !arguments.quiet {
        show(&report)?;
        say!("Written: drift.json, curves.svg, curves.png and frames.png in {}", arguments.output.display());
    }
    Ok(if report.passed { Verdict::Passed } else { Verdict::Failed })
}

/// The first frames of a clip, cropped to the size.
fn read(path: &str, count: usize, size: (u32, u32)) -> Result<Vec<Frame>> {
    let mut reader = media::open(path, &OpenOptions::default())?;
    let plan = FitPlan::new((reader.info().width, reader.info().height), size, Fit::Crop);
    let mut frames = vec![];
    while frames.len() < count
        && let Some(frame) = reader.next_frame()?
    {
        frames.push(plan.apply(&frame)?);
    }
    ensure!(!frames.is_empty(), "{path} has no frames");
    Ok(frames)
}

fn work(arguments: &Arguments, set: &StageSet, (width, height): (u32, u32)) -> Work {
    Work {
        model: arguments.model.model.to_string(),
        weights: arguments.model.weights().to_string(),
        stages: format!("{set}{}", arguments.stages.weights_dtype.note()),
        device: arguments.model.device.to_string(),
        input: arguments.input.clone(),
        width,
        height,
        frames: arguments.frames,
        seed: arguments.seed,
    }
}

/// The naive variant, script by script until one fails: that is what it is run for.
fn naive(engine: &Engine, scripts: &[Script], seed: u64, progress: &Progress) -> Result<(Run, Vec<Trace>)> {
    let (mut inputs, mut traces) = (vec![], vec![]);
    for script in scripts {
        let trace = progress.run(engine, Variant::Naive, script, seed)?;
        inputs.push(Input::new(&trace));
        traces.push(trace);
        if inputs.iter().any(|i| !i.passed()) {
            break;
        }
    }
    Ok((Run::new(Variant::Naive, inputs), traces))
}

/// Each prefix of the stages against plain f32.
fn stages(arguments: &Arguments, set: &StageSet, script: &Script, progress: &Progress) -> Result<Vec<EngineDrift>> {
    let device = arguments.model.device.open()?;
    let options = arguments.stages.of_any_size();
    let prefixes = set.prefixes();
    // a stage that stores weights otherwise is compared with plain f32 on the weights that it stores
    let (stored_otherwise, usual): (Vec<_>, Vec<_>) =
        prefixes[1..].iter().partition(|set| options.weights_of(set) != WeightsType::Storage);
    progress.bar.set_message("stages against f32");
    let mut drifts = vec![];
    for (weights, sets) in [(WeightsType::Storage, usual), (options.weights_dtype, stored_otherwise)] {
        if sets.is_empty() {
            continue;
        }
        let plain = Engine::load(&arguments.model, Ops::reference(&device).on_weights(weights))?;
        let load = |set: &&StageSet| Engine::load(&arguments.model, options.install_part(set, &device)?);
        let engines = sets.iter().map(load).collect::<Result<Vec<_>>>()?;
        let names = sets.iter().map(|set| format!("{set}{}", weights.note()));
        let staged: Vec<(String, &dyn Subject)> = names.zip(engines.iter().map(|e| e as &dyn Subject)).collect();
        let part = (script, ENGINE_FRAMES, arguments.seed);
        drifts.extend(engine::compare(&plain, &staged, part, &mut || progress.bar.inc(1))?);
    }
    Ok(drifts)
}

fn pictures(traces: &[Trace], arguments: &Arguments, work: &Work, variant: Variant, prefix: &str) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        let path: &Path = &arguments.output.join(format!("{prefix}{name}"));
        output::write(path, bytes, arguments.force)
    };
    let title = format!("{}, variant {variant}, {} frames at {}x{}", work.model, work.frames, work.width, work.height);
    let about = format!(
        "Change since the start on the same input; green is what is accepted from start to end. Stages {}.",
        work.stages
    );
    let svg = curves::svg(traces, &title, &about);
    let contents = [svg.as_bytes().to_vec(), chart::png(&svg)?, sheet::png(traces, &title)?];
    PICTURES.iter().zip(contents).try_for_each(|(name, bytes)| write(name, &bytes))
}

fn show(report: &Report) -> Result<()> {
    for run in &report.runs {
        say!("Variant {}: {}", run.variant, if run.passed { "no drift" } else { "DRIFTS" });
        let mut table = table(&["input", "passed", "nearest to its limit", "measured", "limit"], 3);
        for input in &run.inputs {
            let passed = input.checks.iter().filter(|c| c.passed).count();
            let Some(worst) = input.checks.iter().max_by(|a, b| a.strain().total_cmp(&b.strain())) else { continue };
            let (measured, limit) = (format!("{:.3}", worst.measured), format!("{:.3}", worst.limit));
            let passed = format!("{passed} of {}", input.checks.len());
            table.add_row([&input.name, &passed, &worst.name, &measured, &limit]);
        }
        say!("{table}");
    }
    if let Some(judged) = report.runs.first() {
        for check in judged.failures() {
            say!("failed: {}, {}: {}", check.input, check.name, check.sentence);
        }
    }
    for naive in report.runs.iter().skip(1) {
        match naive.failures().max_by(|a, b| a.strain().total_cmp(&b.strain())) {
            Some(check) => say!(
                "The harness can see drift: with every remedy off it found {}, {}. {}",
                check.input,
                check.name,
                check.sentence
            ),
            None => say!("failed: the naive variant passed every check, so this test proves nothing"),
        }
    }
    for e in &report.engine {
        say!(
            "Stages {} against f32 over {} frames: largest difference {:.4}, mean {:.5}, worst frame {:.5} of {:.2}{}",
            e.stages,
            e.frames,
            e.largest,
            e.mean,
            e.worst_frame,
            e.limit,
            if e.passed { "" } else { ": FAILED" }
        );
    }
    Ok(())
}

/// A bar over all frames of all inputs, on standard error.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new(arguments: &Arguments, scripts: &[Script], set: &StageSet) -> Self {
        if arguments.quiet {
            return Self { bar: ProgressBar::hidden() };
        }
        // the naive variant is expected to fail on its first input
        let beside = if arguments.variant.is_some() { 0 } else { arguments.frames };
        // once against plain f32, and once more on weights that are stored otherwise
        let comparisons = match set.names().len() {
            0 => 0,
            _ if arguments.stages.of_any_size().weights_of(set) == WeightsType::Storage => 1,
            _ => 2,
        };
        let engine = if arguments.variant.is_some() { 0 } else { comparisons * ENGINE_FRAMES };
        let bar = ProgressBar::new(arguments.frames * scripts.len() as u64 + beside + engine);
        // a template that does not parse leaves the default bar
        if let Ok(style) = ProgressStyle::with_template("{bar:32.cyan/blue} {pos}/{len} frames  {msg}  {eta} left") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar }
    }

    fn run(&self, engine: &Engine, variant: Variant, script: &Script, seed: u64) -> Result<Trace> {
        self.bar.set_message(format!("{} {variant}", script.name));
        Ok(trace::run(engine, variant, script, seed, &mut || self.bar.inc(1))?)
    }
}

//! `mirage generate`: redraws a video, a camera or a built-in test clip.
use super::Verdict;
use super::awaited::Awaited;
use super::options::{ModelOptions, Size, StageOptions};
use crate::diffusion::{BetaSchedule, LCM_ORIGINAL_STEPS, Sampler};
use crate::media::fit::{Fit, FitPlan, network_size};
use crate::media::{self, FrameRate, FrameReader, FrameWriter, OpenOptions, OutputSpec, TestClip, VideoInfo};
use crate::model::{FrameNetwork, StyleMix};
use crate::ops::Ops;
use crate::ops::probe::Mode;
use crate::stages::StageSet;
use crate::stream::{BlendRule, Sampling, Stream, StreamConfig};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Frames of the built-in clip when `--frames` does not say.
const TEST_CLIP_FRAMES: u64 = 48;

/// Redraws a video frame by frame, each frame conditioned on the one drawn before.
///
/// Reads PNG, JPEG, WebP, GIF, APNG, a folder of frames, Y4M, Y4M on standard input (`-`), and through an installed
/// ffmpeg MP4, WebM, MOV, /dev/video0, rtsp:// and the rest. Writes GIF, APNG, a folder of PNGs, Y4M, Y4M on standard
/// output (`-`), and through ffmpeg MP4, WebM, MOV and MKV with the sound of the input. Without an input, a built-in
/// moving test clip is redrawn. Ctrl-C ends the output after the last whole frame.
#[derive(Args)]
#[command(after_help = "Examples:
  mirage generate --input clip.mp4 --output out.gif
  mirage generate --input /dev/video0 --output live.mp4 --size 256x144 --stages all
  ffmpeg -i clip.mp4 -f yuv4mpegpipe - | mirage generate --input - --output - | ffplay -")]
pub struct Arguments {
    /// The video: a file, a folder of frames, a camera, an address, or `-` for Y4M on standard input.
    #[arg(long, short, value_name = "VIDEO")]
    input: Option<String>,
    /// What to write: a file, a folder (ending in /), or `-` for Y4M on standard output.
    #[arg(long, short, value_name = "VIDEO")]
    output: String,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    stages: StageOptions,
    /// Calls of the network for each frame.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// How much is redrawn, from 0 (the input as it is) to 1; by default 1 for a network with styles, else 0.7.
    #[arg(long, value_name = "SHARE")]
    strength: Option<f64>,
    /// The style of a network that has styles, or several with their shares: ink, or ink:0.6,neon:0.4.
    #[arg(long, value_name = "STYLE")]
    style: Option<StyleMix>,
    /// How each frame is drawn; a network with styles has a way of its own.
    #[arg(long, value_enum)]
    sampler: Option<SamplerName>,
    /// How noise grows over the timesteps, by default cosine; all samplers but `sequence` read it.
    #[arg(long, value_enum)]
    schedule: Option<ScheduleName>,
    /// The size that the network draws at, WIDTHxHEIGHT, rounded to what it takes; by default the input's aspect
    /// at the network's usual size. The reference network's work grows with the square of the pixels.
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,
    /// What to do with an input of another aspect than --size.
    #[arg(long, value_enum, default_value_t = FitName::Letterbox)]
    fit: FitName,
    /// Seed of the noise: the same seed draws the same bytes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Frames a second: the rate to read the input at; by default its own.
    #[arg(long, value_name = "RATE")]
    fps: Option<FrameRate>,
    /// Stop after this many frames.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Share of each new frame in the output, from 0 to 1; the rest stays from the frame before. By default it goes by
    /// how much the input moves for a network with styles, else 0.8.
    #[arg(long, value_name = "SHARE")]
    blend: Option<f64>,
    /// Past frames that the context memory keeps; 0 turns it off. By default 4 for a network with styles, else 0.
    #[arg(long, value_name = "N")]
    memory: Option<u8>,
    /// Show input and output side by side.
    #[arg(long)]
    compare: bool,
    /// Replace the output if it exists.
    #[arg(long)]
    force: bool,
    /// Print nothing but errors.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FitName {
    /// Keep the whole picture, with bars that are cut off again.
    Letterbox,
    /// Fill the size, cutting what stands over.
    Crop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SamplerName {
    /// As the reference network's project counts a frame: no noise, each call's output feeds the next.
    Sequence,
    /// DDIM without fresh noise (eta 0).
    Ddim,
    /// DDIM with as much fresh noise as DDPM (eta 1).
    Ddpm,
    /// Euler steps over sigmas.
    Euler,
    /// Latent consistency sampling.
    Lcm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScheduleName {
    /// Betas evenly spaced (DDPM).
    Linear,
    /// Square roots of the betas evenly spaced (Stable Diffusion).
    ScaledLinear,
    /// Signal falling as a squared cosine (improved DDPM).
    Cosine,
}

pub fn run(arguments: &Arguments) -> Result<Verdict> {
    let begin = Instant::now();
    let device = arguments.model.device.open()?;
    let (set, ops) = arguments.stages.install(&device)?;
    let reader = open(arguments)?;
    let network = arguments.model.load(&ops)?;

    let source = (reader.info().width, reader.info().height);
    let requested = arguments.size.map(|s| (s.width, s.height));
    let target = network_size(source, network.multiple() as u32, network.usual_side() as u32, requested);
    let plan = FitPlan::new(source, target, arguments.fit.into());
    let output_size = plan.restored_size();
    let mut writer = media::create(
        &arguments.output,
        &OutputSpec {
            width: if arguments.compare { 2 * output_size.0 } else { output_size.0 },
            height: output_size.1,
            frame_rate: reader.info().frame_rate,
            force: arguments.force,
            audio_from: arguments.input.clone().filter(|_| reader.info().has_audio),
        },
    )?;
    let mut reader = Awaited::new(reader);
    let (config, style_note) = config(arguments, &*network)?;
    let mut stream = Stream::new(network, ops, config)?;

    let stop = stop_on_interrupt()?;
    let progress = Progress::new(arguments, reader.info());
    progress.say(&format!(
        "{} with stages {set}{} on {}, drawing at {}x{}",
        arguments.model.model,
        arguments.stages.weights_dtype.note(),
        arguments.model.device,
        target.0,
        target.1
    ));
    for note in style_note.as_deref().into_iter().chain(writer.note()) {
        progress.say(note);
    }
    let (mut seconds, mut first) = (vec![], None);
    let outcome = redraw(arguments, &mut reader, &mut *writer, &mut stream, &plan, stop, |time| {
        first.get_or_insert_with(|| begin.elapsed());
        seconds.push(time.as_secs_f64());
        progress.step();
    });
    progress.close();
    // whole frames are kept, whatever ended the stream; what ended it is told first
    let finished = if stream.frames() > 0 {
        if outcome.is_err() {
            keep_older(Path::new(&arguments.output), &progress)?;
        }
        writer.finish()
    } else {
        Ok(())
    };
    outcome?;
    finished?;
    ensure!(stream.frames() > 0, "no frame was drawn, nothing was written: the input ended at once");
    if let Some(dropped @ 1..) = reader.dropped() {
        progress.say(&format!("{dropped} frames of the input were dropped for newer ones"));
    }
    progress.say(&summary(arguments, &mut seconds, &set, stream.ops(), first, stop.load(Relaxed)));
    Ok(Verdict::Passed)
}

/// A part of a video must not take the place of an older whole one, even where `--force` allows to replace it.
fn keep_older(output: &Path, progress: &Progress) -> Result<()> {
    let Some(name) = output.file_name().filter(|_| output.is_file()) else { return Ok(()) };
    let aside = (1..).map(|n| output.with_file_name(format!("{}.old{n}", name.display()))).find(|p| !p.exists());
    let aside = aside.context("no name is free")?;
    std::fs::rename(output, &aside).with_context(|| format!("cannot move the older {} aside", output.display()))?;
    progress.say(&format!("the older {} is now {}", output.display(), aside.display()));
    Ok(())
}

/// Frame after frame, until the input ends, enough are drawn or somebody stops it.
fn redraw(
    arguments: &Arguments,
    reader: &mut Awaited,
    writer: &mut dyn FrameWriter,
    stream: &mut Stream,
    plan: &FitPlan,
    stop: &AtomicBool,
    mut done: impl FnMut(Duration),
) -> Result<()> {
    // while calls are counted, no frame is replayed from a recording
    stream.ops().probe.set(Mode::Count);
    let rate = reader.info().frame_rate;
    let mut written = 0;
    while !stop.load(Relaxed) && arguments.frames.is_none_or(|n| stream.frames() < n) {
        let Some(frame) = reader.next(stop)? else { break };
        let begin = Instant::now();
        let fitted = plan.apply(&frame)?;
        let drawn = stream.step_frame(&fitted)?;
        let mut restored = plan.restore(&drawn)?;
        if arguments.compare {
            restored = plan.restore(&fitted)?.beside(&restored);
        }
        let time = begin.elapsed();
        stream.ops().probe.stop();
        // a camera's frames come when they come: the last one stands until the clock asks for the next
        let due = if reader.dropped().is_some() { rate.frames_until(frame.timestamp) } else { written + 1 };
        while written < due.max(1) {
            writer.write_frame(&restored)?;
            written += 1;
        }
        done(time);
    }
    Ok(())
}

fn open(arguments: &Arguments) -> Result<Box<dyn FrameReader>> {
    match &arguments.input {
        Some(input) => {
            let same = std::fs::canonicalize(input).ok().filter(|p| p.is_file());
            ensure!(
                same.is_none() || same != std::fs::canonicalize(&arguments.output).ok(),
                "{input} is both the input and the output: choose another name for the output"
            );
            Ok(media::open(input, &OpenOptions { frame_rate: arguments.fps })?)
        }
        None => {
            let size = arguments.size.unwrap_or(Size { width: 64, height: 48 });
            let rate = arguments.fps.unwrap_or(FrameRate { numerator: 24, denominator: 1 });
            let frames = arguments.frames.unwrap_or(TEST_CLIP_FRAMES);
            Ok(Box::new(TestClip::new(size.width, size.height, rate, Some(frames), arguments.seed)))
        }
    }
}

/// The stream's settings: a network with styles is run as it was trained unless something else is asked for.
fn config(arguments: &Arguments, network: &dyn FrameNetwork) -> Result<(StreamConfig, Option<String>)> {
    let restyling = network.restyling();
    for (given, option) in [(arguments.sampler.is_some(), "--sampler"), (arguments.schedule.is_some(), "--schedule")] {
        ensure!(
            restyling.is_none() || !given,
            "{} has a way of its own to draw a frame: leave out {option}",
            arguments.model.model
        );
    }
    let mut config =
        StreamConfig { steps: arguments.steps.into(), seed: arguments.seed, ..StreamConfig::usual(network) };
    let mut note = None;
    if let Some(mix) = &arguments.style {
        (config.style, note) = mix.resolve(restyling.map_or(&[][..], |r| &r.styles))?;
    }
    if let Some(name) = arguments.sampler {
        config.sampling = sampling(name, arguments.schedule.unwrap_or(ScheduleName::Cosine));
    }
    if let Some(share) = arguments.blend {
        config.blend = BlendRule::Fixed(share);
    }
    config.strength = arguments.strength.unwrap_or(config.strength);
    config.memory.frames = arguments.memory.map_or(config.memory.frames, usize::from);
    Ok((config, note))
}

/// A flag that Ctrl-C, a polite kill and a closed terminal set.
fn stop_on_interrupt() -> Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        // asked twice, it does not wait for the frame to end
        if STOP.swap(true, Relaxed) {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(&STOP)
}

/// One line about what was done: how many frames, how fast, after how long the first, who ran the ops.
fn summary(
    arguments: &Arguments,
    seconds: &mut [f64],
    set: &StageSet,
    ops: &Ops,
    first: Option<Duration>,
    stopped: bool,
) -> String {
    seconds.sort_by(f64::total_cmp);
    let total: f64 = seconds.iter().sum();
    let median = seconds[seconds.len() / 2];
    let mut calls = std::collections::BTreeMap::<&str, u64>::new();
    for ((_, stage), n) in ops.probe.counts() {
        *calls.entry(stage).or_default() += n;
    }
    let who: Vec<String> = calls.iter().map(|(stage, n)| format!("{stage} {n}")).collect();
    format!(
        "{} frames to {}{}: {:.2} frames/s, median {:.1} ms a frame, the first after {:.2} s; stages {set}{}, op calls of the first frame: {}",
        seconds.len(),
        arguments.output,
        if stopped { " (stopped)" } else { "" },
        seconds.len() as f64 / total,
        median * 1e3,
        first.unwrap_or_default().as_secs_f64(),
        ops.weights.note(),
        who.join(", "),
    )
}

/// A bar with the rate and the time left where the number of frames is known, else a count; on standard error.
struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    fn new(arguments: &Arguments, info: &VideoInfo) -> Self {
        let total = match (info.frames, arguments.frames) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let bar = match total {
            _ if arguments.quiet => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        let template = if total.is_some() {
            "{bar:32.cyan/blue} {pos}/{len} frames  {per_sec}  {eta} left"
        } else {
            "{spinner} {pos} frames  {per_sec}  {elapsed}"
        };
        // a template that does not parse leaves the default bar
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                let _ = write!(w, "{:.1} fps", state.per_sec());
            };
            bar.set_style(style.with_key("per_sec", rate).progress_chars("━╸─"));
        }
        Self { bar, quiet: arguments.quiet }
    }

    fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    fn step(&self) {
        self.bar.inc(1);
    }

    fn close(&self) {
        self.bar.finish_and_clear();
    }
}

impl From<FitName> for Fit {
    fn from(name: FitName) -> Self {
        match name {
            FitName::Letterbox => Self::Letterbox,
            FitName::Crop => Self::Crop,
        }
    }
}

fn sampling(sampler: SamplerName, schedule: ScheduleName) -> Sampling {
    let betas = match schedule {
        // the bounds that diffusers and Stable Diffusion use
        ScheduleName::Linear => BetaSchedule::Linear { start: 1e-4, end: 0.02 },
        ScheduleName::ScaledLinear => BetaSchedule::ScaledLinear { start: 0.00085, end: 0.012 },
        ScheduleName::Cosine => BetaSchedule::Cosine,
    };
    let sampler = match sampler {
        SamplerName::Sequence => return Sampling::Sequence,
        SamplerName::Ddim => Sampler::Ddim { eta: 0.0 },
        SamplerName::Ddpm => Sampler::Ddim { eta: 1.0 },
        SamplerName::Euler => Sampler::Euler,
        SamplerName::Lcm => Sampler::Lcm { original_steps: LCM_ORIGINAL_STEPS },
    };
    Sampling::Diffusion(sampler, betas)
}

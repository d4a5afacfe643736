//! Which kernel a layer runs with which tile and split: measured once on the card for each size, and remembered.
use super::{hopper, lock, plan};
use crate::cuda;
use candle_core::{DType, Device, Result, Tensor};
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The kernel of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Choice {
    /// `conv2d.cu`, or `conv2d_fp8.cu` for weights in eight bits.
    Any(plan::Plan),
    /// `conv2d_hopper.cu`, `conv3x3_hopper.cu` or `conv2d_narrow_hopper.cu`.
    Hopper(hopper::Plan),
}

impl Choice {
    /// With the next kernel beginning after this one's sums, and at once where the kernel can do that.
    fn both(self) -> Vec<Self> {
        match self {
            Self::Any(_) => vec![self],
            Self::Hopper(plan) => [false, true].map(|early| Self::Hopper(hopper::Plan { early, ..plan })).to_vec(),
        }
    }
}

/// What a choice holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Work {
    /// Of the input.
    pub batch: usize,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub skip_channels: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    /// Whether a pixel of the first input is read as four.
    pub upsample: bool,
    /// Whether there is a residual and a shift to read.
    pub residual: bool,
    pub shift: bool,
    /// Whether bare sums are written, in f32.
    pub wide: bool,
    /// Whether neighbouring outputs become one.
    pub geglu: bool,
    /// Whether weights are stored in eight bits.
    pub fp8: bool,
}

/// Candidates are run so often each on their own.
const ROUNDS: usize = 2;
/// Those that come next: as many at most, and at most so much slower than the best.
const FINALISTS: usize = 10;
/// See `FINALISTS`.
const FAR: f64 = 1.4;
/// Runs of a finalist that follow each other.
const TURNS: usize = 8;
/// Bytes that push everything else out of the second-level cache, as the rest of a network does between two runs of a layer.
const EVICTION: usize = 96 << 20;

/// What choices hold for, besides the work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    /// The card, its multiprocessors and the driver.
    card: String,
    /// A digest of the kernels, and of the tables that a choice is a place in.
    kernels: String,
    /// Of which some were to choose from.
    family: String,
    dtype: String,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    origin: Origin,
    choices: Vec<(Work, Choice)>,
}

/// Runs a choice with the given weights, and fetches those of the next layer ahead.
type Run<'a> = dyn Fn(Choice, &Tensor, Option<&Tensor>) -> Result<()> + 'a;

#[derive(Default)]
struct Known {
    choices: HashMap<Work, Choice>,
    /// What an earlier run left, whose choices are taken where they are among the candidates.
    kept: HashMap<Work, Choice>,
    /// Whether there is more than in the file.
    more: bool,
}

/// What is known, and where it is kept.
pub(super) struct Tuner {
    device: Device,
    origin: Origin,
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

impl Tuner {
    /// With what an earlier run found out, where it left something for this card and this family of kernels.
    pub fn new(device: &Device, dtype: DType, family: &str) -> Self {
        let card = format!(
            "{}, {} multiprocessors, {}",
            cuda::card(device).unwrap_or_default(),
            cuda::processors(device).unwrap_or_default(),
            driver_release(Path::new("/proc/driver/nvidia/version"))
        );
        let dtype = format!("{dtype:?}").to_lowercase();
        let mut tables = DefaultHasher::new();
        format!("{:?}{:?}{:?}", plan::TILES, (plan::WORKSPACE_BYTES, plan::WORKSPACE_TILES), hopper::TILES)
            .hash(&mut tables);
        let kernels = format!("{}-{:016x}", cuda::kernels_digest(), tables.finish());
        let origin = Origin { card, kernels, family: family.to_owned(), dtype };
        let folders = etcetera::choose_base_strategy().ok();
        let file = folders.map(|folders| folders.cache_dir().join("mirage").join(origin.file_name()));
        let kept = file.as_deref().map(|file| load(file, &origin)).unwrap_or_default();
        Self { device: device.clone(), origin, file, known: Mutex::new(Known { kept, ..Known::default() }) }
    }

    /// The choice for `work`: a known one, or of `candidates`, best guess first, the one that `run` takes least time for with the given
    /// weights while it fetches others ahead. `input` is what all of them read besides. While work is recorded nothing can be timed: then the
    /// best guess.
    ///
    /// # Errors
    /// Candidates of which none can be launched.
    pub fn choose(
        &self,
        work: Work,
        input: &Tensor,
        weights: &Tensor,
        candidates: &dyn Fn() -> Vec<Choice>,
        run: &Run<'_>,
    ) -> Result<Choice> {
        if let Some(choice) = cuda::whose_turn(|| candidates().into_iter().flat_map(Choice::both).collect()) {
            return Ok(choice);
        }
        if let Some(choice) = lock(&self.known).choices.get(&work) {
            return Ok(*choice);
        }
        let candidates = candidates();
        if let Some(choice) = lock(&self.known).take(work, &candidates) {
            return Ok(choice);
        }
        let Some(guess) = candidates.first().copied() else {
            candle_core::bail!("no kernel takes {work:?}");
        };
        if cuda::recording(&self.device)? {
            return Ok(guess);
        }
        let finalists = self.fastest_alone(input, candidates, &|choice| run(choice, weights, None))?;
        let choice = self.fastest_in_turns(weights, &finalists, run)?.unwrap_or(guess);
        let mut known = lock(&self.known);
        known.choices.insert(work, choice);
        known.more = true;
        Ok(choice)
    }

    /// The candidates that are fastest on their own, the fastest first, without those that this card cannot launch.
    fn fastest_alone(
        &self,
        input: &Tensor,
        candidates: Vec<Choice>,
        run: &dyn Fn(Choice) -> Result<()>,
    ) -> Result<Vec<Choice>> {
        let mut timed: Vec<(f64, Choice)> = candidates.into_iter().map(|choice| (f64::INFINITY, choice)).collect();
        let mut refused = None;
        for _ in 0..ROUNDS {
            for (time, choice) in &mut timed {
                // weights come from memory, as they do in a network that is larger than the cache, and the input does not
                Tensor::zeros(EVICTION, DType::U8, &self.device)?;
                input.copy()?;
                let Some(timer) = cuda::Timer::start(&self.device)? else { return Ok(vec![*choice]) };
                match run(*choice) {
                    Ok(()) => *time = time.min(timer.stop()?.as_secs_f64()),
                    Err(why) => refused = Some(why),
                }
            }
        }
        timed.retain(|(time, _)| time.is_finite());
        if let (true, Some(why)) = (timed.is_empty(), refused) {
            return Err(why);
        }
        timed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let far = FAR * timed.first().map_or(0.0, |(time, _)| *time);
        Ok(timed.into_iter().take_while(|(time, _)| *time <= far).map(|(_, choice)| choice).take(FINALISTS).collect())
    }

    /// Of the finalists the one that is fastest where launches follow each other as in a recorded frame: what counts there is when the
    /// next may begin, and how much of its weights it finds in the second-level cache.
    fn fastest_in_turns(&self, weights: &Tensor, finalists: &[Choice], run: &Run<'_>) -> Result<Option<Choice>> {
        // each turn has weights of its own, which come from memory, or as many as the cache cannot hold
        let bytes = weights.elem_count() * weights.dtype().size_in_bytes();
        let count = EVICTION.div_ceil(bytes.max(1)).min(TURNS);
        let copies = (1..count).map(|_| weights.copy()).collect::<Result<Vec<_>>>()?;
        let of_turn = |turn: usize| match turn % count {
            0 => weights,
            other => &copies[other - 1],
        };
        let evict = || Tensor::zeros(EVICTION, DType::U8, &self.device).map(drop);
        let mut best: Option<(f64, Choice)> = None;
        for choice in finalists.iter().flat_map(|choice| choice.both()) {
            let turn = |turn: usize| run(choice, of_turn(turn), Some(of_turn(turn + 1)));
            // what cannot be recorded here leaves the choice to the runs alone
            let Ok(Some(time)) = cuda::time_in_turns(&self.device, TURNS, &evict, &turn) else { break };
            let time = time.as_secs_f64();
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, choice));
            }
        }
        Ok(best.map(|(_, choice)| choice).or(finalists.first().copied()))
    }
}

impl Known {
    /// The choice of an earlier run, from now on a known one, if it is one of those that there are: nobody else vouches for a file.
    fn take(&mut self, work: Work, candidates: &[Choice]) -> Option<Choice> {
        let kept = *self.kept.get(&work)?;
        let there = candidates.iter().any(|candidate| candidate.both().contains(&kept));
        there.then(|| *self.choices.entry(work).or_insert(kept))
    }
}

impl Drop for Tuner {
    /// Keeps what was found out; where that cannot be written, the next run finds it out again.
    fn drop(&mut self) {
        let known = lock(&self.known);
        if let (true, Some(file)) = (known.more, &self.file) {
            // others may have found out more since
            let mut all = load(file, &self.origin);
            all.extend(&known.choices);
            drop(save(file, &Kept { origin: self.origin.clone(), choices: all.into_iter().collect() }));
        }
    }
}

impl Origin {
    fn file_name(&self) -> String {
        let word: String = self.card.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("layers-{word}-{}-{}-{}.json", self.family, self.dtype, self.kernels)
    }
}

/// What the driver says of its release, such as `580.159.04`: more than the CUDA that it knows, which does not change with every release. Empty where
/// there is no such file, which is so outside Linux.
fn driver_release(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let number = |word: &&str| word.contains('.') && word.chars().all(|c| c == '.' || c.is_ascii_digit());
    text.split_whitespace().find(number).unwrap_or_default().to_owned()
}

/// What a file holds for `origin`; nothing where there is none or it is not one of ours.
fn load(file: &Path, origin: &Origin) -> HashMap<Work, Choice> {
    let kept: Option<Kept> = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    kept.filter(|kept| kept.origin == *origin).map(|kept| kept.choices.into_iter().collect()).unwrap_or_default()
}

fn save(file: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut part = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut part, kept)?;
    part.flush()?;
    part.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(card: &str) -> Origin {
        Origin { card: card.to_owned(), kernels: "0123".to_owned(), family: "mma".to_owned(), dtype: "f16".to_owned() }
    }

    const WORK: Work = Work {
        batch: 1,
        height: 8,
        width: 8,
        channels: 64,
        skip_channels: 0,
        outputs: 64,
        kernel: 3,
        stride: 1,
        padding: 1,
        upsample: false,
        residual: false,
        shift: false,
        wide: false,
        geglu: false,
        fp8: false,
    };

    #[test]
    fn choices_are_kept_for_the_card_that_they_were_measured_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache").join(origin("a card, CUDA 13.0").file_name());
        let choice = Choice::Any(plan::Plan { tile: 1, splits: 2, tiles_per_split: 5 });
        save(&file, &Kept { origin: origin("a card, CUDA 13.0"), choices: vec![(WORK, choice)] }).unwrap();
        assert_eq!(load(&file, &origin("a card, CUDA 13.0")), HashMap::from([(WORK, choice)]));
        assert!(load(&file, &origin("a card, CUDA 13.1")).is_empty(), "another driver");
        std::fs::write(&file, "{").unwrap();
        assert!(load(&file, &origin("a card, CUDA 13.0")).is_empty(), "a damaged file");
    }

    #[test]
    fn a_kept_choice_counts_only_where_it_is_one_of_the_candidates() {
        let plan = plan::Plan { tile: 1, splits: 2, tiles_per_split: 5 };
        let candidates = [Choice::Any(plan)];
        let from_file = |choice| Known { kept: HashMap::from([(WORK, choice)]), ..Known::default() };
        let mut known = from_file(Choice::Any(plan));
        assert_eq!(known.take(WORK, &candidates), Some(Choice::Any(plan)));
        assert_eq!(known.choices, HashMap::from([(WORK, Choice::Any(plan))]));
        let mut edited = from_file(Choice::Any(plan::Plan { tile: 1 << 40, ..plan }));
        assert_eq!(edited.take(WORK, &candidates), None);
        assert!(edited.choices.is_empty());
    }

    #[test]
    fn a_drivers_release_is_the_first_number_with_points() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("version");
        std::fs::write(&file, "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version:  gcc 13.2.0\n").unwrap();
        assert_eq!(driver_release(&file), "580.159.04");
        assert_eq!(driver_release(&folder.path().join("none")), "");
    }

    #[test]
    fn each_kernel_that_can_is_tried_with_the_next_beginning_at_once() {
        let any = Choice::Any(plan::Plan { tile: 1, splits: 2, tiles_per_split: 5 });
        assert_eq!(any.both(), [any]);
        let boxes = hopper::Boxes { width: 16, height: 1, samples: 1 };
        let plan = hopper::Plan { tile: 3, splits: 1, steps_per_split: 9, boxes, early: false };
        let early = hopper::Plan { early: true, ..plan };
        assert_eq!(Choice::Hopper(plan).both(), [Choice::Hopper(plan), Choice::Hopper(early)]);
    }
}

//! A benchmark's results: what was run, on what, by whom, and what came out. Written to JSON row by row.
use super::statistics::Summary;
use crate::cuda;
use crate::media::pending::PendingFile;
use candle_core::Device;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// A whole benchmark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What ran.
    pub build: Build,
    /// The command line.
    pub command: String,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// What every row did.
    pub work: Work,
    /// One for each rung and peer, in the order in which they ran.
    pub rows: Vec<Row>,
}

/// The work of every row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The network.
    pub model: String,
    /// Where its weights came from; `formula` weights are random: a benchmark, not video.
    pub weights: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames in a batch.
    pub batch: usize,
    /// Calls of the network in one sequence.
    pub steps: usize,
    /// Whether what does not depend on what the calls draw was worked out for all of them at once.
    #[serde(default)]
    pub together: bool,
    /// The device.
    pub device: String,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Threads that the work may use.
    pub threads: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// The operating system.
    pub system: String,
    /// The GPU that did the work, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
}

/// The program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// As `--version` gives it.
    pub version: String,
}

/// One rung or peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The rung (`none`, `+fp16` …), the set of stages, or the peer's name.
    pub name: String,
    /// The op case, in a benchmark of single ops: its rows are compared with each other alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case: Option<String>,
    /// Multiplications and additions of one run, in a benchmark of single ops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<u64>,
    /// The stages; empty for plain Candle and for peers.
    pub stages: Vec<String>,
    /// What became of it.
    pub status: Status,
    /// Milliseconds for one call of the network.
    pub call: Option<Summary>,
    /// Milliseconds for one sequence.
    pub sequence: Option<Summary>,
    /// The most bytes in use while it ran, beyond the weights.
    pub activations: Option<u64>,
    /// Bytes that the weights occupy as prepared.
    pub weights: Option<u64>,
    /// Largest difference as a share of the largest magnitude: of a rung from plain Candle in f32, of a peer from that
    /// engine's own f32, which says nothing of how far it is from Candle.
    pub error: Option<f64>,
    /// The same from plain Candle on the weights that the rung stores, where it stores them in fewer bits than everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_error: Option<f64>,
    /// Calls in one sequence by op and stage, as `conv2d:fused-ops`.
    pub calls: Vec<(String, u64)>,
    /// Reasons not to believe the timings.
    pub warnings: Vec<String>,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "reason")]
pub enum Status {
    /// It was right and has timings.
    Timed,
    /// Its newest stage ran no call, so it was not timed.
    NoCall,
    /// It could not run, and this is why.
    Refused(String),
    /// Its results were wrong, so it was not timed.
    Wrong(String),
}

impl Build {
    /// The program with its revision, without what it was built by and with.
    pub fn program(&self) -> &str {
        self.version.split(';').next().unwrap_or_default()
    }
}

impl Row {
    /// A row that was not timed.
    pub fn untimed(name: String, stages: Vec<String>, status: Status) -> Self {
        Self {
            name,
            case: None,
            flops: None,
            stages,
            status,
            call: None,
            sequence: None,
            activations: None,
            weights: None,
            error: None,
            stored_error: None,
            calls: vec![],
            warnings: vec![],
        }
    }

    /// Whether another engine did the work.
    pub fn is_peer(&self) -> bool {
        self.stages.is_empty() && self.name != "none"
    }

    /// The row's name, with its case where there are several.
    pub fn title(&self) -> String {
        self.case.as_ref().map_or_else(|| self.name.clone(), |case| format!("{case}: {}", self.name))
    }

    /// Frames a second, when a sequence is a frame's work.
    pub fn frames_per_second(&self, batch: usize) -> Option<f64> {
        self.sequence.as_ref().map(|s| 1e3 * batch as f64 / s.median)
    }
}

impl Report {
    /// How many times faster row `i` is than row `j`, by their medians.
    pub fn speedup(&self, i: usize, j: usize) -> Option<f64> {
        let median = |k: usize| self.rows.get(k)?.sequence.as_ref().map(|s| s.median);
        Some(median(j)? / median(i)?)
    }

    /// The last timed row before `i`, of the same case.
    pub fn before(&self, i: usize) -> Option<usize> {
        (0..i).rev().find(|j| self.rows[*j].sequence.is_some() && self.rows[*j].case == self.rows[i].case)
    }

    /// The row of plain Candle for the case of row `i`.
    pub fn none(&self, i: usize) -> Option<usize> {
        self.rows.iter().position(|r| r.name == "none" && r.case == self.rows[i].case)
    }

    /// Writes the report so far, whole: into a file beside `path`, which then takes its place.
    ///
    /// # Errors
    /// A folder that is not there, a full disk.
    pub fn save(&self, path: &Path) -> anyhow::Result<()> {
        let file = PendingFile::create(path, true)?;
        let mut writer = file.writer()?;
        serde_json::to_writer_pretty(&mut writer, self)?;
        writer.write_all(b"\n")?;
        writer.flush()?;
        file.place()?;
        Ok(())
    }

    /// Reads a report.
    ///
    /// # Errors
    /// A file that is not there or not a report.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        use anyhow::Context;
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is not a report of `mirage bench`", path.display()))
    }
}

/// Reads what the operating system says of this machine.
pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> Option<String> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let kibibytes = |text: String| text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        threads: rayon::current_num_threads(),
        memory: field(&read("/proc/meminfo"), "MemTotal").and_then(kibibytes).unwrap_or(0) * 1024,
        system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
        gpu: None,
    }
}

impl Machine {
    /// The machine with the GPU that `device` is, if it is one.
    pub fn with(self, device: &Device) -> Self {
        Self { gpu: cuda::card(device), ..self }
    }

    /// The processor, and the GPU where one does the work.
    pub fn processors(&self) -> String {
        let cpu = format!("{}, {} threads", self.cpu, self.threads);
        self.gpu.as_ref().map_or(cpu.clone(), |gpu| format!("{gpu}; {cpu}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(name: &str, ms: f64) -> Row {
        let timings = [ms, ms * 1.01, ms * 0.99];
        let summary = Summary::new(&timings);
        let stages = name.strip_prefix('+').map(str::to_owned).into_iter().collect();
        Row { call: summary.clone(), sequence: summary, ..Row::untimed(name.into(), stages, Status::Timed) }
    }

    pub(crate) fn report(rows: Vec<Row>) -> Report {
        let work = Work {
            model: "reference-tiny".into(),
            weights: "formula".into(),
            width: 64,
            height: 64,
            batch: 1,
            steps: 5,
            together: false,
            device: "cpu".into(),
        };
        let build = Build { version: "0.1.0 (abc)".into() };
        Report { machine: machine(), build, command: "mirage bench".into(), unix_time: 1, work, rows }
    }

    #[test]
    fn speed_ups_pass_over_rows_without_a_time() {
        let refused = Row::untimed("+x".into(), vec![], Status::Refused("no GPU".into()));
        let report = report(vec![row("none", 10.0), refused, row("+y", 4.0)]);
        assert_eq!(report.before(2), Some(0));
        assert_eq!(report.speedup(2, 0), Some(2.5));
        assert_eq!(report.speedup(1, 0), None);
        assert_eq!(report.rows[2].frames_per_second(2), Some(500.0));
    }

    #[test]
    fn a_saved_report_reads_back_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let report = report(vec![row("none", 10.0), Row::untimed("b".into(), vec![], Status::NoCall)]);
        report.save(&path).unwrap();
        assert_eq!(Report::load(&path).unwrap(), report);
        std::fs::write(&path, "{}").unwrap();
        assert!(Report::load(&path).unwrap_err().to_string().contains("not a report"));
    }
}

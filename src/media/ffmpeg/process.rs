//! Finding the programs, starting them, and keeping what they complain of.
use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::FfmpegError;

/// Bytes of complaints that are kept: the last ones say most.
const KEPT: usize = 2048;
/// Lines of complaints that an error quotes.
const QUOTED: usize = 3;

/// Where the two programs lie.
#[derive(Debug)]
pub struct Programs {
    pub ffmpeg: PathBuf,
    pub ffprobe: PathBuf,
}

impl Programs {
    /// Looks on `PATH`; `doing` and `path` say what cannot do without.
    pub fn find(doing: &'static str, path: &Path) -> Result<Self, FfmpegError> {
        Self::find_in(std::env::var_os("PATH").as_deref(), doing, path)
    }

    /// Looks in the folders of `search`, written as `PATH` is.
    pub fn find_in(search: Option<&OsStr>, doing: &'static str, path: &Path) -> Result<Self, FfmpegError> {
        let find = |name: &str| {
            let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
            std::env::split_paths(search.unwrap_or_default())
                // A relative folder would run what lies beside a downloaded video.
                .filter(|folder| folder.is_absolute())
                .map(|folder| folder.join(&name))
                .find(|file| file.is_file())
        };
        match (find("ffmpeg"), find("ffprobe")) {
            (Some(ffmpeg), Some(ffprobe)) => Ok(Self { ffmpeg, ffprobe }),
            _ => Err(FfmpegError::NotInstalled { doing, path: path.to_owned() }),
        }
    }
}

/// The handle by which a process is ended from another thread.
#[derive(Clone, Debug)]
pub struct Process(Arc<Mutex<Child>>);

impl Process {
    /// Ends the process at once.
    pub fn kill(&self) {
        // It fails only for a process that has ended.
        let _ = self.child(Child::kill);
    }

    fn child<T>(&self, act: impl FnOnce(&mut Child) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A child whose complaints are collected; it is killed when dropped.
pub struct Running {
    process: Process,
    complaints: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a command with its standard error collected, in a process group of its own: Ctrl-C in a terminal reaches
    /// every process of the group, and an encoder must live to finish its file.
    pub fn start(mut command: Command, path: &Path) -> Result<Self, FfmpegError> {
        command.stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        #[cfg(windows)]
        {
            const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
            std::os::windows::process::CommandExt::creation_flags(&mut command, CREATE_NEW_PROCESS_GROUP);
        }
        let mut child = command.spawn().map_err(|source| {
            let (program, path) = (PathBuf::from(command.get_program()), path.to_owned());
            FfmpegError::NotStarted { program, path, source }
        })?;
        let complaints = child.stderr.take().map(|stderr| thread::spawn(move || last_of(stderr)));
        Ok(Self { process: Process(Arc::new(Mutex::new(child))), complaints })
    }

    /// A handle to end it with.
    pub fn process(&self) -> Process {
        self.process.clone()
    }

    /// Its standard input, once, where that was piped.
    pub fn stdin(&self) -> Option<ChildStdin> {
        self.process.child(|child| child.stdin.take())
    }

    /// Its standard output, once, where that was piped.
    pub fn stdout(&self) -> Option<ChildStdout> {
        self.process.child(|child| child.stdout.take())
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> Ended {
        let good = self.status().is_some_and(|status| status.success());
        let said = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ended { good, said }
    }

    /// Asks again and again, so that the lock stays free for who wants to end the process.
    fn status(&self) -> Option<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            match self.process.child(Child::try_wait) {
                Ok(None) => thread::sleep(pause),
                ended => return ended.ok().flatten(),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill();
        self.status();
    }
}

/// How a process ended.
pub struct Ended {
    /// Whether by its own word all is well.
    pub good: bool,
    /// The last complaints.
    pub said: String,
}

impl Ended {
    /// Whether there was no complaint.
    pub fn is_silent(&self) -> bool {
        self.said.trim().is_empty()
    }

    /// The last lines as one, without the addresses of the parts that speak and without control characters, which
    /// could paint over a terminal.
    pub fn quote(&self) -> String {
        let lines: Vec<&str> = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let mut last: Vec<Cow<str>> = lines.into_iter().rev().map(without_address).collect();
        last.dedup();
        last.truncate(QUOTED);
        last.reverse();
        last.join("; ").chars().filter(|c| !c.is_control()).collect()
    }
}

/// `[h264 @ 0x5599f0f71c40] text` as `h264: text`.
fn without_address(line: &str) -> Cow<'_, str> {
    let parts = line.strip_prefix('[').and_then(|line| line.split_once(" @ 0x"));
    match parts.and_then(|(name, rest)| Some((name, rest.split_once("] ")?.1))) {
        Some((name, text)) => Cow::from(format!("{name}: {text}")),
        None => Cow::from(line),
    }
}

/// What a command has printed.
pub struct Answer {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output.
    pub output: Vec<u8>,
}

/// What a command prints, up to `limit` bytes, if it ends within `patience`; `None` if it took longer.
pub fn ask(mut command: Command, path: &Path, limit: u64, patience: Duration) -> Result<Option<Answer>, FfmpegError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(command, path)?;
    let stdout = running.stdout();
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            // What was read until a failure is all there is.
            let _ = stdout.take(limit).read_to_end(&mut text);
        }
        let _ = sender.send(text);
    });
    let Ok(output) = answer.recv_timeout(patience) else { return Ok(None) };
    Ok(Some(Answer { ended: running.wait(), output }))
}

/// Reads to the end, so that the child never blocks, and keeps the last bytes.
fn last_of(mut stream: impl Read) -> String {
    let mut kept = Vec::with_capacity(2 * KEPT);
    let mut chunk = [0; KEPT];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..n]);
        kept.drain(..kept.len().saturating_sub(KEPT));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_complaints_are_kept_and_quoted() {
        let long = "x".repeat(100_000) + "\none\n\n two\x1b[2J\nthree\nfour\n";
        let kept = last_of(long.as_bytes());
        assert_eq!(kept.len(), KEPT);
        assert_eq!(Ended { good: false, said: kept }.quote(), "two[2J; three; four");
        let said = "[h264 @ 0x1] bad\n[h264 @ 0x2] bad\n[x] y\n".to_owned();
        assert_eq!(Ended { good: false, said }.quote(), "h264: bad; [x] y");
        assert!(Ended { good: true, said: "\n".to_owned() }.is_silent());
    }

    #[test]
    fn relative_folders_are_not_searched() {
        assert!(Programs::find_in(Some(OsStr::new(".:bin:")), "reading", Path::new("x")).is_err());
        assert!(Programs::find_in(None, "reading", Path::new("x")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_hangs_is_ended() {
        let begin = std::time::Instant::now();
        let mut command = Command::new("sleep");
        command.arg("60");
        let answer = ask(command, Path::new("x"), 10, Duration::from_millis(50)).unwrap();
        assert!(answer.is_none() && begin.elapsed() < Duration::from_secs(30));
    }
}

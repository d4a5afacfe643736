//! Finding `ffmpeg`, starting it, and keeping what it complains of.
use super::super::{Error, Result};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// Bytes of complaints that are kept: the last ones say most.
const KEPT: usize = 4096;

/// Where the two programs lie.
pub struct Programs {
    pub ffmpeg: PathBuf,
    pub ffprobe: PathBuf,
}

impl Programs {
    /// Looks on `PATH`; `needed_for` is the file that cannot do without.
    pub fn find(needed_for: &Path) -> Result<Self> {
        Self::find_in(std::env::var_os("PATH").as_deref(), needed_for)
    }

    fn find_in(path: Option<&OsStr>, needed_for: &Path) -> Result<Self> {
        let find = |name: &str| {
            let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
            std::env::split_paths(path.unwrap_or_default()).map(|folder| folder.join(&name)).find(|file| file.is_file())
        };
        match (find("ffmpeg"), find("ffprobe")) {
            (Some(ffmpeg), Some(ffprobe)) => Ok(Self { ffmpeg, ffprobe }),
            _ => Err(Error::NoFfmpeg { path: needed_for.to_owned() }),
        }
    }
}

/// A running child whose complaints are collected; it is killed when dropped.
pub struct Running {
    pub child: Child,
    complaints: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a command with its standard error collected, in a process group of its own: Ctrl-C in a terminal reaches
    /// every process of the group, and an encoder must live to finish its file.
    pub fn start(mut command: Command, path: &Path) -> Result<Self> {
        command.stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child =
            command.spawn().map_err(|source| Error::Io { doing: "start ffmpeg for", path: path.to_owned(), source })?;
        let complaints = child.stderr.take().map(|stderr| std::thread::spawn(move || last_of(stderr)));
        Ok(Self { child, complaints })
    }

    /// Waits for the end: whether it was a good one, and the last complaints.
    pub fn wait(&mut self) -> (bool, String) {
        let good = self.child.wait().is_ok_and(|status| status.success());
        let said = self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        (good, said.trim().to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // already ended is as good as killed
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads to the end, so that the child never blocks, and keeps the last bytes.
fn last_of(mut stream: impl Read) -> String {
    let mut kept = Vec::with_capacity(2 * KEPT);
    let mut chunk = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        kept.extend_from_slice(&chunk[..n]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ffmpeg_the_error_says_what_to_do() {
        let error = Programs::find_in(Some(OsStr::new("/no/such/folder")), Path::new("clip.mp4")).err().unwrap();
        let said = error.to_string();
        assert!(said.contains("clip.mp4") && said.contains("install") && said.contains("GIF"), "{said}");
    }

    #[test]
    fn only_the_last_complaints_are_kept() {
        let long = "x".repeat(100_000) + "the end";
        let kept = last_of(long.as_bytes());
        assert!(kept.ends_with("the end") && kept.len() <= 3 * KEPT);
    }
}

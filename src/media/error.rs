//! What can go wrong with frames: which file, what is the matter, what to do.
use std::io;
use std::path::{Path, PathBuf};

use super::frame::MAX_SIDE;

/// A media failure. Each message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // Either side.
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The attempted action, as a verb: `read`, `create`.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A frame differs in size from the first.
    #[error(
        "frame {frame} of {} is {}x{} pixels, the frames before it are {}x{}: \
         bring all frames to one size first",
        path.display(), found.0, found.1, expected.0, expected.1
    )]
    SizeChanged {
        /// The video, or the one picture of a folder.
        path: PathBuf,
        /// Which frame, the first being 1.
        frame: u64,
        /// Width and height of the first frame.
        expected: (u32, u32),
        /// Width and height of this one.
        found: (u32, u32),
    },
    /// A frame is larger than [`MAX_SIDE`] allows.
    #[error(
        "{} has frames of {width}x{height} pixels, the limit is {MAX_SIDE}x{MAX_SIDE}: \
         scale it down first", path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Pixels in a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// A frame rate that is zero or not a number.
    #[error("{text:?} is no frame rate: give frames a second, such as 24, 23.976 or 30000/1001")]
    BadFrameRate {
        /// What was given.
        text: String,
    },

    /// What goes through `ffmpeg` failed.
    #[error(transparent)]
    Ffmpeg(#[from] super::ffmpeg::FfmpegError),

    // Reading.
    /// There is no such input.
    #[error("there is no file or folder {}: check the name", path.display())]
    Missing {
        /// The name that was given.
        path: PathBuf,
    },
    /// The input holds no frame at all.
    #[error("{} has no frames: check that it is the right one and was written completely", path.display())]
    NoFrames {
        /// The input.
        path: PathBuf,
    },
    /// The input ends before it should.
    #[error(
        "{} is cut off: the {format} data ends after {frames} whole {}; copy or make it again",
        path.display(), if *frames == 1 { "frame" } else { "frames" }
    )]
    Truncated {
        /// The input.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// How many frames were whole.
        frames: u64,
    },
    /// The input breaks the rules of its format.
    #[error(
        "{} is damaged after {frames} whole {}: {reason}; check that it is a {format} file, and copy or make it again",
        path.display(), if *frames == 1 { "frame" } else { "frames" }
    )]
    Corrupt {
        /// The input.
        path: PathBuf,
        /// The format's name.
        format: &'static str,
        /// How many frames were whole.
        frames: u64,
        /// What the decoder found.
        reason: String,
    },
    /// The input is sound but of a kind that is not read here.
    #[error("{} cannot be read: {reason}", path.display())]
    UnsupportedInput {
        /// The input.
        path: PathBuf,
        /// What is not supported, and what to use instead.
        reason: String,
    },

    // Writing.
    /// The output's name does not say what to write.
    #[error(
        "cannot tell what to write to {}: end the name in .gif, .png, .apng, .y4m, .mp4, .webm, .mov or .mkv, \
         or in / for a folder of pictures, or use - for Y4M on standard output", path.display()
    )]
    UnknownOutput {
        /// The output.
        path: PathBuf,
    },
    /// There is already something of that name.
    #[error("{} exists: choose another name, or force it to be replaced (--force)", path.display())]
    OutputExists {
        /// The output.
        path: PathBuf,
    },
    /// A folder that already holds pictures would get more.
    #[error(
        "the folder {} already holds pictures ({example}): choose an empty folder, or force its frames to be replaced (--force)",
        path.display()
    )]
    FolderHasFrames {
        /// The folder.
        path: PathBuf,
        /// One of the pictures.
        example: String,
    },
    /// No frame was written, so there is nothing to keep.
    #[error("no frame was written, so {} was not made", path.display())]
    NothingWritten {
        /// The output.
        path: PathBuf,
    },
    /// A frame whose bytes are not `width * height * 3`, or with a side of zero.
    #[error("frame {frame} for {} has {bytes} bytes for {width}x{height} pixels", path.display())]
    BadFrame {
        /// The output.
        path: PathBuf,
        /// Which frame, the first being 1.
        frame: u64,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// How many bytes it has.
        bytes: usize,
    },
    /// No space is left.
    #[error("the disk is full while writing {}: free some space or write elsewhere", path.display())]
    DiskFull {
        /// The output.
        path: PathBuf,
    },
    /// Whoever read our standard output has stopped; a program may end quietly on this.
    #[error("the reader of standard output has closed it")]
    OutputClosed,
    /// Standard output is a screen.
    #[error("standard output is a terminal, which cannot show video: send it to a file or into a player")]
    OutputIsTerminal,
    /// The output is complete but could not get its name.
    #[error("cannot move the finished output to {}: {source}; it is kept as {}", path.display(), kept.display())]
    NotMoved {
        /// The name that it should have.
        path: PathBuf,
        /// The name that it has.
        kept: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    /// A failed read of `path`.
    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { doing: "read", path, source },
        }
    }

    /// A failed write to `path`.
    pub(super) fn writing(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Io { doing: "write", path, source },
        }
    }
}

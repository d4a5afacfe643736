//! What can go wrong with the `ffmpeg` process: which file, what is the matter, what to do.
use std::io;
use std::path::PathBuf;

/// A failure of `ffmpeg` or `ffprobe`. Each message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FfmpegError {
    /// The programs are not there.
    #[error(
        "{doing} {} needs the programs ffmpeg and ffprobe, which are not on the PATH: install them \
         (apt install ffmpeg, brew install ffmpeg, winget install ffmpeg). Without them GIF, PNG, JPEG, WebP, \
         folders of PNG pictures and Y4M work", path.display()
    )]
    NotInstalled {
        /// What needed them: `reading`, `writing`.
        doing: &'static str,
        /// The file that cannot do without.
        path: PathBuf,
    },
    /// The programs are there but do not run.
    #[error("cannot start {} for {}: {source}; reinstall ffmpeg", program.display(), path.display())]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// The file at hand.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The address begins with a protocol that is not used here.
    #[error(
        "{input} begins with {scheme}://, which is not read: give a file, or an address that begins with {allowed}"
    )]
    UnknownProtocol {
        /// What was given.
        input: String,
        /// What it begins with.
        scheme: String,
        /// What is read.
        allowed: String,
    },
    /// `ffmpeg` cannot make sense of the input.
    #[error("{} cannot be read: {said}; check the name, and that it is a complete video", path.display())]
    Unreadable {
        /// The input.
        path: PathBuf,
        /// The program's last words.
        said: String,
    },
    /// There is sound at most.
    #[error("{} has no pictures: name a file with a video stream", path.display())]
    NoVideo {
        /// The input.
        path: PathBuf,
    },
    /// The input is cut off or corrupt.
    #[error(
        "{} is damaged or cut off: it gave {frames} whole {}; copy or make it again. ffmpeg says: {said}",
        path.display(), if *frames == 1 { "frame" } else { "frames" }
    )]
    Damaged {
        /// The input.
        path: PathBuf,
        /// How many frames came before the end.
        frames: u64,
        /// The program's last words.
        said: String,
    },
    /// The pictures become larger or smaller in mid-stream.
    #[error(
        "the pictures of {} change their size after about {frames} frames, from {}x{} pixels: \
         bring all frames to one size first", path.display(), size.0, size.1
    )]
    SizeChanged {
        /// The input.
        path: PathBuf,
        /// How many frames came before; a few more may have been of the first size.
        frames: u64,
        /// Width and height of the first ones, as stored.
        size: (u32, u32),
    },
    /// A camera, an address or a file gives nothing any more.
    #[error("nothing came from {} for {seconds} seconds: check that it is connected and free", path.display())]
    Stalled {
        /// The input.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// None of the encoders that the output's format can hold.
    #[error("this ffmpeg has none of the encoders {tried} for {}: install a full build of it", path.display())]
    NoEncoder {
        /// The output.
        path: PathBuf,
        /// Their names.
        tried: String,
    },
    /// Encoding failed.
    #[error(
        "ffmpeg failed to write {} after {frames} {}: choose another place or format for the output, \
         or install a full build of ffmpeg. ffmpeg says: {said}",
        path.display(), if *frames == 1 { "frame" } else { "frames" }
    )]
    Unwritable {
        /// The output.
        path: PathBuf,
        /// How many frames it had taken.
        frames: u64,
        /// The program's last words.
        said: String,
    },
    /// The pictures are complete and in their place, the sound could not be added.
    #[error("{} is complete but silent: the sound of {audio_from} could not be added: {said}", path.display())]
    SoundLost {
        /// The output.
        path: PathBuf,
        /// Where the sound is.
        audio_from: String,
        /// The program's last words.
        said: String,
    },
}

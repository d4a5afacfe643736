//! Frames in and out: stills, animations, folders, raw streams, and everything else through an `ffmpeg` process.
//!
//! ```no_run
//! use mirage::media::{OpenOptions, OutputSpec, create, open};
//!
//! let mut reader = open("in.gif", &OpenOptions::default())?;
//! let info = reader.info();
//! let mut writer = create("out.y4m", &OutputSpec::new(info.width, info.height, info.frame_rate))?;
//! while let Some(frame) = reader.next_frame()? {
//!     writer.write_frame(&frame)?;
//! }
//! writer.finish()?;
//! # Ok::<(), mirage::media::Error>(())
//! ```

mod animation;
mod checked;
mod create;
mod error;
mod ffmpeg;
pub mod fit;
mod folder_reader;
mod folder_writer;
mod frame;
mod gif_writer;
mod open;
pub(crate) mod pending;
mod png_writer;
mod rate;
mod scan;
mod still;
mod test_clip;
mod y4m_reader;
mod y4m_writer;
mod yuv;

pub use create::{OutputSpec, create};
pub use error::Error;
pub use ffmpeg::FfmpegError;
pub use frame::{Frame, FrameRate, MAX_SIDE, VideoInfo};
pub use open::{OpenOptions, open};
pub use test_clip::TestClip;

/// What this module returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Yields the frames of one video, in presentation order.
pub trait FrameReader: Send {
    /// What is known of the video before its first frame is read.
    fn info(&self) -> &VideoInfo;
    /// The next frame, or `None` after the last. Every frame has the size that [`info`](Self::info) states.
    /// Of a damaged video the whole frames come first, then the error.
    ///
    /// # Errors
    /// Input that cannot be read any more, is damaged, or changes its size.
    fn next_frame(&mut self) -> Result<Option<Frame>>;
    /// How many frames were dropped so far because newer ones came before anybody asked; `None` for an input that
    /// waits, of which every frame is given.
    fn dropped(&self) -> Option<u64> {
        None
    }
}

/// Takes the frames of one video, in presentation order.
pub trait FrameWriter: Send {
    /// Appends one frame. The size must be that of the first frame.
    ///
    /// # Errors
    /// A frame of another size, or an output that cannot be written any more.
    fn write_frame(&mut self, frame: &Frame) -> Result<()>;
    /// Completes the file and puts it in its place. A writer dropped before this leaves an older file untouched and
    /// removes what it had begun; ending the process without a drop leaves that lying as a hidden `.part` file.
    ///
    /// # Errors
    /// An output that cannot be completed or put in its place.
    fn finish(self: Box<Self>) -> Result<()>;
    /// What whoever ordered the file should know before it is written, such as a lesser encoder than usual.
    fn note(&self) -> Option<&str> {
        None
    }
}

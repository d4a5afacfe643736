//! Reading on a thread of its own, so that whoever waits for a frame can stop waiting: a camera or a pipe may fall silent.
use crate::media::{Frame, FrameReader, VideoInfo};
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long a wish to stop may go unheard.
const PATIENCE: Duration = Duration::from_millis(50);

type Read = (crate::media::Result<Option<Frame>>, Option<u64>);

/// A reader that is asked for one frame at a time: reading ahead would make a camera's picture old.
pub struct Awaited {
    info: VideoInfo,
    dropped: Option<u64>,
    ask: Sender<()>,
    frames: Receiver<Read>,
}

impl Awaited {
    pub fn new(mut reader: Box<dyn FrameReader>) -> Self {
        let (info, dropped) = (reader.info().clone(), reader.dropped());
        let (ask, asked) = channel();
        let (give, frames) = channel();
        std::thread::spawn(move || {
            for () in asked {
                let next = reader.next_frame();
                if give.send((next, reader.dropped())).is_err() {
                    return;
                }
            }
        });
        Self { info, dropped, ask, frames }
    }

    pub fn info(&self) -> &VideoInfo {
        &self.info
    }

    /// As [`FrameReader::dropped`].
    pub fn dropped(&self) -> Option<u64> {
        self.dropped
    }

    /// The next frame, or `None` after the last and once `stop` is set.
    pub fn next(&mut self, stop: &AtomicBool) -> Result<Option<Frame>> {
        if self.ask.send(()).is_err() {
            bail!("the input's reader broke off");
        }
        loop {
            match self.frames.recv_timeout(PATIENCE) {
                Ok((next, dropped)) => {
                    self.dropped = dropped;
                    return Ok(next?);
                }
                Err(RecvTimeoutError::Timeout) if stop.load(Relaxed) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => bail!("the input's reader broke off"),
            }
        }
    }
}

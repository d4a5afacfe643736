//! A camera does not wait: a thread reads on, and whoever asks gets the newest frame.
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::{Error, Frame, FrameReader, Result, VideoInfo};
use super::FfmpegError;

/// How long a live input may give nothing.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Room for one frame; a newer one takes its place.
#[derive(Default)]
struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<Frame>,
    dropped: u64,
    end: Option<Result<()>>,
    abandoned: bool,
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // No change of the state can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a frame in, stamped with when it came; whether anybody may still want it.
    fn put(&self, frame: Frame, begin: Instant) -> bool {
        let mut state = self.state();
        let older = state.newest.replace(Frame { timestamp: begin.elapsed(), ..frame });
        state.dropped += u64::from(older.is_some());
        self.changed.notify_one();
        !state.abandoned
    }
}

/// Reads on in a thread and gives the newest frame; older ones that nobody asked for are dropped and counted.
pub struct Newest {
    info: VideoInfo,
    path: PathBuf,
    mailbox: Arc<Mailbox>,
    patience: Duration,
    stop: Box<dyn Fn() + Send>,
    thread: Option<JoinHandle<()>>,
}

impl Newest {
    /// Takes over a reader, named `input`, that gives up after `patience` without a frame. `stop` must make a read
    /// that is under way return.
    pub fn new(
        mut reader: impl FrameReader + 'static,
        input: &str,
        patience: Duration,
        stop: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let (info, path) = (reader.info().clone(), PathBuf::from(input));
        let mailbox = Arc::new(Mailbox::default());
        let (theirs, begin) = (mailbox.clone(), Instant::now());
        let thread = thread::Builder::new().name("live input".to_owned()).spawn(move || {
            let end = loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => {
                        if !theirs.put(frame, begin) {
                            break Ok(());
                        }
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            theirs.state().end = Some(end);
            theirs.changed.notify_one();
        });
        let thread = thread.map_err(|source| thread_error(&path, source))?;
        Ok(Self { info, path, mailbox, patience, stop: Box::new(stop), thread: Some(thread) })
    }
}

fn thread_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { doing: "start a thread to read", path: path.to_owned(), source }
}

impl FrameReader for Newest {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let state = self.mailbox.state();
        let waiting = |state: &mut State| state.newest.is_none() && state.end.is_none();
        let waited = self.mailbox.changed.wait_timeout_while(state, self.patience, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match (state.newest.take(), &mut state.end) {
            (Some(frame), _) => Ok(Some(frame)),
            (None, Some(end)) => std::mem::replace(end, Ok(())).map(|()| None),
            (None, None) => {
                let (path, seconds) = (self.path.clone(), self.patience.as_secs());
                Err(FfmpegError::Stalled { path, seconds }.into())
            }
        }
    }

    fn dropped(&self) -> Option<u64> {
        Some(self.mailbox.state().dropped)
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        self.mailbox.state().abandoned = true;
        (self.stop)();
        if let Some(thread) = self.thread.take() {
            // A panic in the reader has nothing more to tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::super::FrameRate;
    use super::*;

    /// Gives a frame for each number it is sent, and says when it is asked for one; 0 is a failure.
    struct Camera {
        film: Receiver<u8>,
        asked: Sender<()>,
        info: VideoInfo,
    }

    impl FrameReader for Camera {
        fn info(&self) -> &VideoInfo {
            &self.info
        }

        fn next_frame(&mut self) -> Result<Option<Frame>> {
            // The test may have stopped listening.
            let _ = self.asked.send(());
            match self.film.recv() {
                Ok(0) => Err(Error::NoFrames { path: "camera".into() }),
                Ok(n) => Ok(Some(Frame { width: 1, height: 1, rgb: vec![n; 3], timestamp: Duration::ZERO })),
                Err(_) => Ok(None),
            }
        }
    }

    fn camera(patience: Duration) -> (Sender<u8>, Receiver<()>, Newest) {
        let (shutter, film) = channel();
        let (asked, asks) = channel();
        let info = VideoInfo { width: 1, height: 1, frame_rate: FrameRate::DEFAULT, frames: None, has_audio: false };
        // Stopping lets the camera's read return, as the end of a process does.
        let stopper = Mutex::new(Some(shutter.clone()));
        let stop = move || {
            let _ = stopper.lock().unwrap().take().map(|shutter| shutter.send(1));
        };
        (shutter, asks, Newest::new(Camera { film, asked, info }, "camera", patience, stop).unwrap())
    }

    #[test]
    fn the_newest_frame_wins_and_the_others_are_counted() {
        let (shutter, asks, mut newest) = camera(PATIENCE);
        for n in 1..=3 {
            shutter.send(n).unwrap();
        }
        // Asked for the fourth, it has stored the third.
        for _ in 0..4 {
            asks.recv().unwrap();
        }
        let first = newest.next_frame().unwrap().unwrap();
        assert_eq!((first.rgb, newest.dropped()), (vec![3; 3], Some(2)));
        shutter.send(9).unwrap();
        let second = newest.next_frame().unwrap().unwrap();
        assert_eq!((second.rgb, newest.dropped()), (vec![9; 3], Some(2)));
        assert!(second.timestamp >= first.timestamp);
    }

    #[test]
    fn a_failure_comes_after_the_last_frame_and_once() {
        let (shutter, asks, mut newest) = camera(PATIENCE);
        shutter.send(5).unwrap();
        shutter.send(0).unwrap();
        for _ in 0..2 {
            asks.recv().unwrap();
        }
        assert_eq!(newest.next_frame().unwrap().unwrap().rgb, [5; 3]);
        assert!(newest.next_frame().is_err());
        assert_eq!(newest.next_frame().unwrap(), None);
    }

    #[test]
    fn a_camera_that_falls_silent_is_an_error_and_can_be_dropped() {
        let (_shutter, _asks, mut newest) = camera(Duration::from_millis(30));
        let error = newest.next_frame().unwrap_err();
        assert!(matches!(error, Error::Ffmpeg(FfmpegError::Stalled { .. })), "{error}");
    }
}

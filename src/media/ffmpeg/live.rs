//! A camera does not wait: a thread reads on, and whoever asks gets the newest frame.
use super::super::{Frame, FrameReader, Result, VideoInfo};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Room for one frame; a newer one takes its place.
#[derive(Default)]
struct Mailbox {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    newest: Option<Frame>,
    end: Option<Result<()>>,
    abandoned: bool,
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // no change of the state can panic half-way
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads on in a thread and gives the newest frame; older ones that nobody asked for are dropped.
pub struct Newest {
    info: VideoInfo,
    mailbox: Arc<Mailbox>,
    begin: Instant,
}

impl Newest {
    /// Takes over a reader. Its thread ends with the reader, or with the first frame after this is dropped.
    pub fn new(mut reader: impl FrameReader + 'static) -> Self {
        let info = reader.info().clone();
        let mailbox = Arc::new(Mailbox::default());
        let theirs = mailbox.clone();
        std::thread::spawn(move || {
            let end = loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => {
                        let mut state = theirs.state();
                        if state.abandoned {
                            break Ok(());
                        }
                        state.newest = Some(frame);
                    }
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
                theirs.arrived.notify_one();
            };
            theirs.state().end = Some(end);
            theirs.arrived.notify_one();
        });
        Self { info, mailbox, begin: Instant::now() }
    }
}

impl FrameReader for Newest {
    fn info(&self) -> &VideoInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        let mut state = self.mailbox.state();
        loop {
            if let Some(frame) = state.newest.take() {
                return Ok(Some(Frame { timestamp: self.begin.elapsed(), ..frame }));
            }
            match &mut state.end {
                Some(end) => return std::mem::replace(end, Ok(())).map(|()| None),
                None => state = self.mailbox.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Drop for Newest {
    fn drop(&mut self) {
        self.mailbox.state().abandoned = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::FrameRate;
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// Gives a frame for each number it is sent, and says when it has.
    struct Camera(Receiver<u8>, Sender<()>, VideoInfo);

    impl FrameReader for Camera {
        fn info(&self) -> &VideoInfo {
            &self.2
        }

        fn next_frame(&mut self) -> Result<Option<Frame>> {
            let _ = self.1.send(()); // the test may have stopped listening
            Ok(self.0.recv().ok().map(|n| Frame { width: 1, height: 1, rgb: vec![n; 3], timestamp: Duration::ZERO }))
        }
    }

    #[test]
    fn the_newest_frame_wins_and_the_end_is_seen() {
        let (shutter, film) = channel();
        let (asked, asks) = channel();
        let info = VideoInfo { width: 1, height: 1, frame_rate: FrameRate::DEFAULT, frames: None, has_audio: false };
        let mut newest = Newest::new(Camera(film, asked, info));
        for n in 1..=3 {
            shutter.send(n).unwrap();
        }
        // asked for the fourth, it has stored the third
        for _ in 0..4 {
            asks.recv().unwrap();
        }
        assert_eq!(newest.next_frame().unwrap().unwrap().rgb, [3, 3, 3]);
        shutter.send(9).unwrap();
        assert_eq!(newest.next_frame().unwrap().unwrap().rgb, [9, 9, 9]);
        drop(shutter);
        assert_eq!(newest.next_frame().unwrap(), None);
        assert_eq!(newest.next_frame().unwrap(), None);
    }
}

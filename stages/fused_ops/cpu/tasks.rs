//! Spreads the tasks of one call over threads, each with scratch memory that outlives the call.

use super::microkernel::Run;
use super::values::AlignedBuffer;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Multiply-adds below which waking another thread costs more than it saves.
const WORTH_A_THREAD: usize = 1 << 20;

/// What one thread needs besides its arguments; kept between calls, so that none allocates.
pub(super) struct Scratch {
    /// The left operand: a window of the image, im2col rows, or transformed tiles.
    pub(super) left: AlignedBuffer<f32>,
    /// Sums that wait for the next block, or for their epilogue.
    pub(super) sums: AlignedBuffer<f32>,
    /// Weights that were converted or transformed.
    pub(super) panel: AlignedBuffer<f32>,
    /// A window of the image, where `left` holds its transform.
    pub(super) window: AlignedBuffer<f32>,
    pub(super) runs: Vec<Run>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch {
        left: AlignedBuffer::new(),
        sums: AlignedBuffer::new(),
        panel: AlignedBuffer::new(),
        window: AlignedBuffer::new(),
        runs: Vec::new(),
    }) };
}

/// Calls `task` for each number below `tasks`, on as many threads as `work` multiply-adds are worth.
///
/// Threads take the next task when they are free, so that a busy machine holds up one task and not
/// a fixed share. The last argument is kept from task to task of a thread: the region whose left
/// operand is in its scratch.
pub(super) fn run_tasks(tasks: usize, work: usize, task: impl Fn(usize, &mut Scratch, &mut Option<usize>) + Sync) {
    let next = AtomicUsize::new(0);
    let take_tasks = || {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut packed = None;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= tasks {
                    break;
                }
                task(number, scratch, &mut packed);
            }
        });
    };
    let threads = rayon::current_num_threads().min(tasks).min(work / WORTH_A_THREAD);
    if threads <= 1 {
        take_tasks();
    } else {
        rayon::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| take_tasks());
            }
            take_tasks();
        });
    }
}

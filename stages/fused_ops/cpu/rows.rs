//! Cuts the rows of an output for the threads.

use rayon::prelude::*;

/// Values of a task: enough to hide the cost of handing it over, few enough for a second-level cache.
pub(super) const TASK_VALUES: usize = 1 << 16;

/// Calls `work(first_row, rows)` for runs of whole rows of `row_len` values, in parallel when there
/// are many. How the rows are cut depends on their length only, never on the number of threads.
pub(super) fn for_row_runs<T: Send>(out: &mut [T], row_len: usize, work: impl Fn(usize, &mut [T]) + Send + Sync) {
    let rows = rows_per_task(row_len);
    let len = rows * row_len;
    if out.len() <= len {
        work(0, out);
    } else {
        out.par_chunks_mut(len).enumerate().for_each(|(task, run)| work(task * rows, run));
    }
}

/// Rows of `row_len` values in a task.
pub(super) fn rows_per_task(row_len: usize) -> usize {
    (TASK_VALUES / row_len).max(1)
}

//! Memory that a kernel writes, and whether it keeps to it: while somebody looks, each piece lies between guard words.
use candle_core::{DType, Device, Result, Shape, Tensor};
use std::cell::RefCell;

/// Values before and after what a kernel may write: the memory stays aligned as a piece of its own is.
const WORDS: usize = 512;
/// What they are: f32, f16, bf16 and u8 hold it, and no kernel is likely to write it.
const WORD: f64 = 123.0;

thread_local! {
    /// What was handed out on this thread since somebody began to look: guard words around so many values.
    static GUARDED: RefCell<Option<Vec<(Tensor, usize)>>> = const { RefCell::new(None) };
}

/// Memory for what a kernel will write, contiguous.
///
/// # Safety
/// It is written in full before it is read.
///
/// # Errors
/// A device that cannot hold it.
pub unsafe fn output(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    let shape = shape.into();
    if GUARDED.with_borrow(Option::is_none) {
        // SAFETY: the caller's promise.
        return unsafe { Tensor::empty(shape, dtype, device) };
    }
    let count = shape.elem_count();
    let whole = Tensor::full(WORD as f32, count + 2 * WORDS, device)?.to_dtype(dtype)?;
    let part = whole.narrow(0, WORDS, count)?.reshape(shape)?;
    GUARDED.with_borrow_mut(|guarded| guarded.get_or_insert_default().push((whole, count)));
    Ok(part)
}

/// Runs work with guard words around all that [`output`] hands out on this thread, and counts the pieces next to which something was written.
///
/// # Errors
/// Whatever the work reports, or guard words that cannot be read.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, usize)> {
    /// Puts back what was looked at before, whatever becomes of the work.
    struct Before(Option<Vec<(Tensor, usize)>>);
    impl Drop for Before {
        fn drop(&mut self) {
            GUARDED.set(self.0.take());
        }
    }
    let before = Before(GUARDED.replace(Some(vec![])));
    let done = work();
    let pieces = GUARDED.take().unwrap_or_default();
    drop(before);
    let done = done?;
    let mut overrun = 0;
    for (whole, count) in pieces {
        let words = |start: usize| whole.narrow(0, start, WORDS)?.to_dtype(DType::F32)?.to_vec1::<f32>();
        let all = [words(0)?, words(WORDS + count)?].concat();
        overrun += usize::from(all.iter().any(|word| *word != WORD as f32));
    }
    Ok((done, overrun))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_next_to_a_piece_is_seen() {
        let device = Device::Cpu;
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::U8] {
            let piece = || -> Result<Tensor> {
                // SAFETY: nothing of it is read before it is written below.
                let y = unsafe { output((2, 3), dtype, &device) }?;
                assert_eq!((y.dims(), y.dtype(), y.is_contiguous()), (&[2, 3][..], dtype, true));
                Ok(y)
            };
            assert_eq!(
                guarded(|| [piece()?, piece()?].map(|y| y.zero_set()).into_iter().collect::<Result<()>>()).unwrap().1,
                0
            );
            let beyond = guarded(|| {
                piece()?;
                piece()?;
                let whole = GUARDED.with_borrow(|all| all.as_ref().map(|all| all[1].0.clone()));
                let whole = whole.expect("guarded");
                // one value behind the six
                whole.slice_set(&Tensor::zeros(1, dtype, &device)?, 0, WORDS + 6)
            });
            assert_eq!(beyond.unwrap().1, 1);
        }
        assert!(guarded(|| -> Result<()> { candle_core::bail!("no") }).is_err());
        assert!(GUARDED.with_borrow(Option::is_none), "only while somebody looks");
    }
}

//! Which of the kernels that can run a layer does: the one that is fastest, or, for a check, each in turn.
use std::cell::Cell;

/// A pass over all kernels of a layer.
#[derive(Clone, Copy)]
struct Turn {
    now: usize,
    /// Kernels that the layers on this thread had to choose from, the most of them.
    most: usize,
}

thread_local! {
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// Runs work once for each kernel that could run the layer in it, the first time with the first, and so on; once where there is no choice.
///
/// # Errors
/// Whatever the work reports.
pub fn with_each_kernel<T, E>(mut work: impl FnMut() -> Result<T, E>) -> Result<Vec<T>, E> {
    /// No turn is left behind, whatever becomes of the work.
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            TURN.set(None);
        }
    }
    let _over = Over;
    let mut done = vec![];
    let mut turn = Turn { now: 0, most: 1 };
    while turn.now < turn.most {
        TURN.set(Some(turn));
        done.push(work()?);
        turn.most = TURN.get().map_or(turn.most, |turn| turn.most);
        turn.now += 1;
    }
    Ok(done)
}

/// The candidate whose turn it is, while [`with_each_kernel`] runs on this thread; a layer with fewer than another begins again.
pub fn whose_turn<T>(candidates: impl FnOnce() -> Vec<T>) -> Option<T> {
    let turn = TURN.get()?;
    let candidates = candidates();
    TURN.set(Some(Turn { most: turn.most.max(candidates.len()), ..turn }));
    let at = turn.now % candidates.len().max(1);
    candidates.into_iter().nth(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn() {
        let run = || Ok::<_, ()>((whose_turn(|| vec!['a', 'b', 'c']), whose_turn(|| vec![1, 2])));
        let expected = [('a', 1), ('b', 2), ('c', 1)].map(|(letter, number)| (Some(letter), Some(number)));
        assert_eq!(with_each_kernel(run), Ok(expected.to_vec()));
        assert_eq!(run(), Ok((None, None)), "afterwards the fastest");
        assert_eq!(with_each_kernel(|| Ok::<_, ()>(TURN.get().is_some())), Ok(vec![true]), "where there is no choice");
        assert_eq!(with_each_kernel(|| Err::<(), _>("no")), Err("no"));
        assert!(TURN.get().is_none());
    }
}

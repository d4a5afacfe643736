//! A ring buffer of the newest items, for past frames and their features.
use std::collections::VecDeque;

/// Keeps the newest `capacity` items, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<T> {
    capacity: usize,
    items: VecDeque<T>,
}

impl<T> History<T> {
    /// Starts empty. Memory is taken as items arrive, so a large capacity costs nothing until it is used; with capacity 0
    /// nothing is ever kept.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            items: VecDeque::new(),
        }
    }

    /// Adds an item as the newest and returns what had to leave for it: the oldest one when full.
    pub fn push(&mut self, item: T) -> Option<T> {
        if self.capacity == 0 {
            return Some(item);
        }
        let dropped = if self.items.len() == self.capacity {
            self.items.pop_front()
        } else {
            None
        };
        self.items.push_back(item);
        dropped
    }

    /// All items, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.items.iter()
    }

    /// The newest `n` items, or all where there are fewer, oldest first.
    pub fn newest_n(&self, n: usize) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.items.range(self.items.len().saturating_sub(n)..)
    }

    /// The newest item.
    pub fn newest(&self) -> Option<&T> {
        self.items.back()
    }

    /// How many items are held, at most [`capacity`](Self::capacity).
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many items can be held.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all items, as at the start of a new stream.
    pub fn reset(&mut self) {
        // Taken apart by name, so that a field added later cannot be forgotten here.
        let Self { capacity: _, items } = self;
        items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_leaves_first() {
        for capacity in [1, 2, 3, 7] {
            let mut history = History::new(capacity);
            for item in 0..20usize {
                let left = history.push(item);
                assert_eq!(left, item.checked_sub(capacity));
                let first = (item + 1).saturating_sub(capacity);
                assert!(history.iter().copied().eq(first..=item));
                assert_eq!(history.len(), (item + 1).min(capacity));
                assert_eq!(history.newest(), Some(&item));
            }
        }
    }

    #[test]
    fn newest_n_gives_what_there_is_oldest_first() {
        let mut history = History::new(4);
        assert_eq!(history.newest_n(3).len(), 0);
        for item in 0..6 {
            history.push(item);
        }
        for (n, expected) in [
            (0, &[][..]),
            (1, &[5]),
            (3, &[3, 4, 5]),
            (4, &[2, 3, 4, 5]),
            (usize::MAX, &[2, 3, 4, 5]),
        ] {
            assert!(history.newest_n(n).eq(expected), "{n}");
        }
    }

    #[test]
    fn capacity_zero_keeps_nothing_and_a_huge_one_allocates_nothing() {
        let mut none = History::new(0);
        assert_eq!(none.push(1), Some(1));
        assert!(none.is_empty() && none.newest().is_none());
        let huge = History::<[u8; 1024]>::new(usize::MAX);
        assert_eq!((huge.len(), huge.capacity()), (0, usize::MAX));
    }

    #[test]
    fn reset_equals_new() {
        let mut history = History::new(3);
        for item in 0..5 {
            history.push(item);
        }
        history.reset();
        assert_eq!(history, History::new(3));
    }
}

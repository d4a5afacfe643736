//! Where the memory of a recorded frame lies: in one block, laid out by the lifetimes that the recording shows.
use std::collections::BTreeMap;
use std::ops::Range;

/// What every piece begins at a multiple of, in bytes.
const ALIGNMENT: u64 = 512;

/// Lays out pieces one after another, as they come and go; a piece is known by the address that it had while it was recorded.
#[derive(Default)]
pub struct Arena {
    /// From a recorded address: how long the piece is, and where in the block it lies now.
    live: BTreeMap<u64, (u64, Range<u64>)>,
    bytes: u64,
}

impl Arena {
    /// A piece of so many bytes that was recorded at `address`.
    pub fn allocate(&mut self, address: u64, bytes: u64) {
        let needed = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut taken: Vec<Range<u64>> = self.live.values().map(|(_, place)| place.clone()).collect();
        taken.sort_unstable_by_key(|place| place.start);
        // the smallest gap that it fits in, or behind everything
        let mut gaps = Vec::new();
        let mut end = 0;
        for place in taken {
            gaps.push(end..place.start);
            end = place.end;
        }
        let fits = gaps.into_iter().filter(|gap| gap.end - gap.start >= needed);
        let start = fits.min_by_key(|gap| gap.end - gap.start).map_or(end, |gap| gap.start);
        self.bytes = self.bytes.max(start + needed);
        self.live.insert(address, (bytes, start..start + needed));
    }

    /// The piece at `address` is no longer used; whether there was one.
    pub fn free(&mut self, address: u64) -> bool {
        self.live.remove(&address).is_some()
    }

    /// Where in the block an address within a piece lies now.
    pub fn offset(&self, address: u64) -> Option<u64> {
        let (start, (bytes, place)) = self.live.range(..=address).next_back()?;
        (address - start < *bytes).then(|| place.start + (address - start))
    }

    /// Pieces that are in use.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// How large the block must be.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn pieces_in_use_never_overlap() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for _ in 0..50 {
            let (mut arena, mut next, mut live) = (Arena::default(), 0x7000_0000_0000u64, Vec::new());
            for _ in 0..200 {
                if live.len() > 8 || !live.is_empty() && rng.random_bool(0.45) {
                    let (address, _) = live.swap_remove(rng.random_range(0..live.len()));
                    assert!(arena.free(address));
                    assert!(!arena.free(address) && arena.offset(address).is_none());
                } else {
                    let bytes = rng.random_range(1..10_000u64);
                    arena.allocate(next, bytes);
                    live.push((next, bytes));
                    next += bytes.next_multiple_of(512);
                }
                let mut places: Vec<_> = live
                    .iter()
                    .map(|(address, bytes)| {
                        (arena.offset(*address).unwrap(), arena.offset(address + bytes - 1).unwrap())
                    })
                    .collect();
                places.sort_unstable();
                assert!(places.windows(2).all(|pair| pair[0].1 < pair[1].0), "{places:?}");
                assert!(places.iter().all(|(start, end)| start % ALIGNMENT == 0 && *end < arena.bytes()));
                assert_eq!(arena.live(), live.len());
            }
        }
    }

    #[test]
    fn memory_is_used_again() {
        let mut arena = Arena::default();
        for i in 0..100 {
            arena.allocate(1 << 20 | i << 12, 2048);
            if i > 0 {
                assert!(arena.free(1 << 20 | (i - 1) << 12));
            }
        }
        assert_eq!(arena.bytes(), 4096);
    }

    #[test]
    fn an_address_outside_every_piece_is_none() {
        let mut arena = Arena::default();
        arena.allocate(1000, 24);
        assert_eq!([999, 1000, 1023, 1024].map(|at| arena.offset(at)), [None, Some(0), Some(23), None]);
    }
}

//! What the allocator takes for a number of bytes, and how bytes are cut so that it takes less. jemalloc has four sizes
//! between one power of two and the next, and a record for each run of pages that it parts into pieces of one size.

use std::cmp::Reverse;

/// A page of memory.
pub(super) const PAGE: usize = 4096;
/// From this size on each piece has pages of its own, and no page more (`disable_cache_oblivious`).
const LARGE: usize = 4 * PAGE;
/// The record of a run of pages, and what stands in the table of pages for each.
const RECORD: usize = 128;
const ENTRY: usize = 8;
/// A body is not cut to save less: each piece is one more to be sent.
const WORTH: usize = 48;

/// The allocator's size for so many bytes.
pub fn size_class(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// All that so many bytes take, in one piece.
pub fn cost(bytes: usize) -> usize {
    let size = size_class(bytes);
    match size {
        0 => 0,
        LARGE.. => size + RECORD + ENTRY * size / PAGE,
        _ => {
            // The shortest run of whole pages that is parted without a remainder: so many times the odd part of the size.
            let run = PAGE.max(1 << size.trailing_zeros()) * (size >> size.trailing_zeros());
            size + RECORD * size / run + ENTRY * size / PAGE
        }
    }
}

/// Where so many bytes are best cut in two: at one of the allocator's sizes, or at their end.
pub fn cut(bytes: usize) -> usize {
    let whole = cost(bytes);
    let sizes =
        std::iter::successors(Some(PAGE / 8), |size| Some(size_class(size + 1))).take_while(|size| *size < bytes);
    let best = sizes.map(|size| (cost(size) + cost(bytes - size), Reverse(size))).min();
    best.filter(|(cost, _)| cost + WORTH <= whole).map_or(bytes, |(_, Reverse(size))| size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_allocators() {
        for (bytes, expected) in
            [(0, 0), (7, 8), (100, 112), (129, 160), (1000, 1024), (1024, 1024), (1025, 1280), (12_289, 14_336)]
        {
            assert_eq!(size_class(bytes), expected, "{bytes}");
        }
        // One in each run of two pages; two in three; four in seven; and one by itself.
        for (bytes, more) in [(8192, 128 + 16), (6144, 64 + 12), (7168, 32 + 14), (16_384, 128 + 32)] {
            assert_eq!(cost(bytes), bytes + more, "{bytes}");
        }
    }

    #[test]
    fn bytes_are_cut_where_that_saves_something() {
        for (bytes, expected) in [(0, 0), (500, 500), (1024, 1024), (12_000, 10_240), (12_288, 7168), (20_000, 20_000)]
        {
            assert_eq!(cut(bytes), expected, "{bytes}");
        }
        for bytes in 0..100_000 {
            let at = cut(bytes);
            assert!(at <= bytes && cost(at) + cost(bytes - at) <= cost(bytes), "{bytes}");
        }
    }
}

//! What heads that have not ended hold in memory, all connections together.

use std::sync::atomic::{AtomicU64, Ordering};

/// What every connection may hold anyway: the buffer that it begins with.
const FREE: u64 = 8 * 1024;

/// The account of all connections.
#[derive(Debug)]
pub(super) struct Heads {
    limit: u64,
    held: AtomicU64,
}

impl Heads {
    /// So many bytes for all together, beyond what each connection begins with.
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, held: AtomicU64::new(0) }
    }

    /// A head has grown. False if there is no room for it; it then has to end, and [`Self::ended`] is told as usual.
    pub(super) fn grew(&self, before: u64, after: u64) -> bool {
        let more = counted(after) - counted(before);
        self.held.fetch_add(more, Ordering::Relaxed) + more <= self.limit || more == 0
    }

    /// A head of this length has ended, in whatever way.
    pub(super) fn ended(&self, length: u64) {
        self.held.fetch_sub(counted(length), Ordering::Relaxed);
    }
}

fn counted(length: u64) -> u64 {
    length.saturating_sub(FREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn small_heads_are_free_and_large_ones_share_what_there_is() {
        let heads = Heads::new(16 * KIB);
        assert!(heads.grew(0, 8 * KIB));
        assert!(heads.grew(8 * KIB, 24 * KIB));
        assert!(!heads.grew(0, 9 * KIB), "there is no room beside the first");
        assert!(heads.grew(0, 100), "small ones are never refused");
        heads.ended(9 * KIB);
        heads.ended(24 * KIB);
        assert!(heads.grew(0, 24 * KIB));
        heads.ended(24 * KIB);
        assert_eq!(heads.held.load(Ordering::Relaxed), 0);
    }
}

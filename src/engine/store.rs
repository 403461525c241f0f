//! Answers in memory.

/// What the store obeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// `cache.memory`, in bytes: all stored answers with their bookkeeping.
    pub memory: u64,
}

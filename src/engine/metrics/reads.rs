//! What became of each read that may come from memory.

use std::array;

use prometheus::IntCounter;

use super::declared::Declaring;
use super::labels::Ending;
use crate::policy::resource::ReadKind;

/// Requests for each read, by how they ended. Handles are resolved once.
pub struct Reads([[IntCounter; Ending::ALL.len()]; ReadKind::ALL.len()]);

impl Reads {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        let reads = declare.counters(
            "anteroom_reads_total",
            "Requests for what comes from memory (`cache.routes`), by which read and how they ended: the part of \
             `anteroom_requests_total` that is one of them.",
            &[("route", &ReadKind::LABELS), ("outcome", Ending::LABELS)],
        );
        let resolved = |read: usize| {
            array::from_fn(|ending| reads.with_label_values(&[ReadKind::LABELS[read], Ending::LABELS[ending]]))
        };
        Self(array::from_fn(resolved))
    }

    /// One has ended.
    pub fn ended(&self, read: ReadKind, ending: Ending) {
        self.0[read as usize][ending as usize].inc();
    }
}

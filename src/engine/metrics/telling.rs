//! What becomes of what the program tells of itself.

use prometheus::{IntCounter, IntCounterVec};

use super::declared::Declaring;

/// What becomes of what the program tells of itself.
pub struct Telling {
    /// Lines of the log that never came out.
    pub log_lines_dropped: IntCounter,
    /// Spans of traced requests and fetches, by what became of them.
    pub spans: IntCounterVec,
}

impl Telling {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        Self {
            log_lines_dropped: declare.counter(
                "anteroom_log_lines_dropped_total",
                "Lines of the log that were lost: standard error cannot be written (its reader has gone, the disk is \
                 full), or is read too slowly. No request waits for its line.",
            ),
            spans: declare.counters(
                "anteroom_spans_total",
                "Spans of traced requests and fetches (`tracing.endpoint`): taken by the collector, not taken by it, or \
                 dropped since too many waited to be sent.",
                &[("result", &["exported", "failed", "dropped"])],
            ),
        }
    }
}

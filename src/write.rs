//! A write: passed through, and what it may have changed is out of date from then on.

use std::time::Duration;

/// How long the effects of a write may still go on after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleSettings {
    /// `cache.settle`: after a 2xx (bots and automations answer a little later).
    pub settle: Duration,
    /// `cache.settle_unknown`: after any ending that does not tell whether the write happened.
    pub settle_unknown: Duration,
}

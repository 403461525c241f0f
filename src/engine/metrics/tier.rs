//! Metrics of what replicas fetch for each other.

use std::array;

use prometheus::{Histogram, IntCounter};

use super::declared::Declaring;
use super::labels::{TierAsked, TierPut};

/// What lies in Redis for all replicas, and who waits for whose fetch. All at zero without `replicas.redis`.
pub struct Tier {
    asked: [IntCounter; TierAsked::LABELS.len()],
    put: [IntCounter; TierPut::LABELS.len()],
    /// `anteroom_tier_seconds`.
    pub seconds: Histogram,
    /// `anteroom_tier_wait_seconds`.
    pub waited: Histogram,
}

impl Tier {
    pub(super) fn declare(declare: &mut Declaring) -> Self {
        let asked = declare.counters(
            "anteroom_tier_requests_total",
            "What came of looking in Redis for an answer before it is fetched: served (`adopted`); of no use, since a change \
             has put it out of date (`outdated`), it is too old (`too_old`), it was not sealed by a replica of this fleet \
             (`unopened`), or it is too long or there is no memory for it (`too_long`); none, and another replica fetches it \
             (`held`, once for each fetch that waited), this one does (`granted`), or each does (`own`: it is not for \
             others); no answer within `replicas.read_timeout` (`timeout`), or none at all (`failed`).",
            &[("result", TierAsked::LABELS)],
        );
        let put = declare.counters(
            "anteroom_tier_put_total",
            "Answers that were to lie in Redis for the other replicas, by what became of them: `older`: there is a newer one; \
             `dropped`: too many were on their way; `failed`: Redis did not take it.",
            &[("result", TierPut::LABELS)],
        );
        Self {
            asked: array::from_fn(|at| asked.with_label_values(&[TierAsked::LABELS[at]])),
            put: array::from_fn(|at| put.with_label_values(&[TierPut::LABELS[at]])),
            seconds: declare.histogram(
                "anteroom_tier_seconds",
                "Time until Redis had said what it has, each time it was asked before a fetch.",
                &[0.1e-3, 0.25e-3, 0.5e-3, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5],
            ),
            waited: declare.histogram(
                "anteroom_tier_wait_seconds",
                "How long fetches of this replica waited for another's, whether that brought anything or not.",
                &[1e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0],
            ),
        }
    }

    /// Redis was asked for an answer.
    pub fn asked(&self, result: TierAsked) {
        self.asked[result as usize].inc();
    }

    /// An answer was to lie there.
    pub fn put(&self, result: TierPut) {
        self.put[result as usize].inc();
    }
}

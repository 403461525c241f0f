//! What replicas that share through Redis mean for a request: whether memory may answer it, and when a write may be
//! acknowledged.

use std::time::Instant;

use http::StatusCode;

use super::outcome::Outcome;
use super::request::{Answered, ClientRequest};
use crate::engine::metrics::Ending;
use crate::engine::replicas::fleet::Fleet;
use crate::engine::replicas::settings::Mode;
use crate::engine::store::Entry;
use crate::policy::coherence::ledger::Tick;

impl ClientRequest {
    /// The tick of a reader's arrival. What was acknowledged before, by whatever replica, has an earlier one; if that is
    /// not known, the tick is nobody else's, and only what is asked for after it is good for him.
    pub(super) async fn arrives(&mut self) -> Tick {
        if let Some(fleet) = &self.state.invalidation.fleet
            && !fleet.is_leased()
        {
            return Box::pin(self.arrives_without_lease()).await;
        }
        // Noted after the lease was looked at, and before anything else is.
        self.state.invalidation.ledger.now()
    }

    async fn arrives_without_lease(&mut self) -> Tick {
        let fleet = self.state.invalidation.fleet.clone();
        let leased = match fleet {
            Some(fleet) => fleet.ask().await,
            None => true,
        };
        let ledger = &self.state.invalidation.ledger;
        if leased {
            return ledger.now();
        }
        self.state.metrics.replicas.alone_reads.inc();
        let arrived = ledger.own_tick();
        self.alone = Some(arrived);
        arrived
    }

    /// Whether this reader may have what is kept, as far as other replicas are concerned.
    pub(super) fn may_have_kept(&self, entry: &Entry, now: Instant) -> bool {
        let is_new = |fleet: &Fleet| {
            fleet.settings.mode == Mode::Async && now.saturating_duration_since(entry.began) < fleet.settings.alone_ttl
        };
        self.alone.is_none_or(|arrived| arrived <= entry.noted || self.fleet().is_some_and(is_new))
    }

    /// Whether writes are refused, since the other replicas could not be told of them.
    pub(super) fn refuses_writes(&self) -> bool {
        self.fleet().is_some_and(Fleet::refuses_writes)
    }

    /// Whether what the others could not be told of is not acknowledged.
    pub(super) fn refuses_untold(&self) -> bool {
        self.state.invalidation.refuses_untold()
    }

    fn fleet(&self) -> Option<&Fleet> {
        self.state.invalidation.fleet.as_deref()
    }

    /// Before a byte of it was sent.
    pub(super) fn cut_off(&self) -> Answered {
        let response = self.busy("the other replicas cannot be told of writes now; nothing was done, try again");
        (response, Outcome::own(Ending::Failed).detail("cut-off"))
    }

    /// It was done, and is not acknowledged.
    pub(super) fn untold(&self) -> Answered {
        let detail = "the write was passed on, but the other replicas could not be told of it in time";
        (self.problem(StatusCode::GATEWAY_TIMEOUT, detail), Outcome::own(Ending::Failed).detail("untold"))
    }
}

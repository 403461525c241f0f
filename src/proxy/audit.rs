//! Audits: a share of hits that are fetched again behind, so that hot lists are measured, too.

use std::sync::atomic::Ordering;

use http::StatusCode;

use super::fetch::Purpose;
use super::request::ClientRequest;
use super::staleness::audit_ended;
use crate::engine::clock;
use crate::engine::flights::Joined;
use crate::engine::metrics::Audited;
use crate::engine::store::Entry;
use crate::policy::coherence::ledger::Moment;
use crate::policy::http::key::Key;
use crate::state::observation::Measuring;

impl ClientRequest {
    /// Fetches this hit again behind, if it is one of the share that is audited.
    pub(crate) fn audit(&self, key: &Key, entry: &Entry) {
        let share = self.active.config.audit_share;
        // Nearly always: most have no audits, and a hit shall not pay for them.
        if share <= 0.0 || entry.answer.status != StatusCode::OK || !self.state.observation.staleness.sampler.takes(share) {
            return;
        }
        if !self.begin_audit(key, entry) {
            audit_ended(&self.state, Audited::Skipped);
        }
    }

    /// Only if the upstream has nothing better to do: it works as far as is known, more than half of the fetches at once
    /// are free, so that readers find some however slow it is, and nobody is asking it for this list anyway.
    fn begin_audit(&self, key: &Key, entry: &Entry) -> bool {
        let Measuring { fetches, rests_until, .. } = &self.state.observation.staleness;
        let rests = self.state.invalidation.epoch.moment(clock::now()) < Moment(rests_until.load(Ordering::Relaxed));
        let in_flight = &self.state.upstream.in_flight;
        if rests || entry.failure().is_some() || in_flight.free() * 2 <= *fetches {
            return false;
        }
        let Some(place) = in_flight.take_free() else { return false };
        let joined = self.state.cache.flights.join(key, |_, _| true, || None, || self.begin(key, Purpose::Audit(place)));
        matches!(joined, Joined::Led(_))
    }
}

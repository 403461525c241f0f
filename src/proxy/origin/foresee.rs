//! What would become of a request for which the upstream is asked: by the questions of `ask` in their order, without doing
//! anything.

use std::sync::Arc;
use std::time::Instant;

use super::asking::Asking;
use crate::engine::metrics::Ending;
use crate::engine::responses::Stored;
use crate::policy::http::attempts::Attempt;
use crate::policy::http::key::Key;
use crate::proxy::access_log::STANDS_IN;
use crate::proxy::outcome::{Outcome, SPARED_AND_KEPT, spared};
use crate::proxy::request::ClientRequest;

impl ClientRequest {
    /// How it would end, for this reason to ask; why, if it is for another one; and whether a fetch for it is under way.
    pub(crate) fn foresee_asking(
        &self,
        key: &Key,
        stored: Option<Arc<Stored>>,
        reason: &'static str,
        now: Instant,
    ) -> (Outcome, Option<&'static str>, bool) {
        let arrived = self.state.invalidation.ledger.now();
        let asking = Asking { key: key.clone(), arrived, now, wants: self.wants(), stored, part: None, reason };
        let is_under_way = self.state.cache.fetches.is_under_way(&self.key_of_choice(key));
        if asking.wants.only_if_cached {
            let why = "the client wants nothing that would have to be asked for";
            return (Outcome::own(Ending::Refused).detail("only-if-cached"), Some(why), is_under_way);
        }
        if let Some(stored) = &asking.stored
            && self.attempt_of(&asking) == Attempt::NotYet
            && self.may_stand_in(stored, &asking, now)
        {
            let left = stored.terms.seconds_left(stored.age(now));
            let outcome = Outcome::from_memory(Ending::Stale, left).detail(STANDS_IN);
            return (outcome, Some("the upstream has just failed: what is kept stands in"), is_under_way);
        }
        let joins = is_under_way && self.may_share(&asking);
        if let Some(why) = self.active.upstream.health().would_spare(&self.head.method).filter(|_| !joins) {
            if let Some(stored) = asking.stored.as_ref().filter(|stored| self.may_stand_in(stored, &asking, now)) {
                let left = stored.terms.seconds_left(stored.age(now));
                return (Outcome::from_memory(Ending::Stale, left).detail(STANDS_IN), Some(SPARED_AND_KEPT), is_under_way);
            }
            return (asking.outcome(Ending::Failed).detail(why.label()), Some(spared(why)), is_under_way);
        }
        let ending = if joins { Ending::Joined } else { Ending::Miss };
        (asking.outcome(ending).collapsed(joins), None, is_under_way)
    }
}

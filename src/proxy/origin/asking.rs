//! A request that the upstream is asked for, and what is known of it.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::metrics::Ending;
use crate::engine::responses::Stored;
use crate::policy::coherence::ledger::Tick;
use crate::policy::http::key::Key;
use crate::policy::rfc9111::cache_control::RequestDirectives;
use crate::proxy::outcome::Outcome;

/// A request that is not answered from memory, and what is known of it.
pub(super) struct Asking {
    pub(super) key: Key,
    /// The tick of its arrival: what was acknowledged before it, it must see.
    pub(super) arrived: Tick,
    /// When it came.
    pub(super) now: Instant,
    pub(super) wants: RequestDirectives,
    /// What is stored for it, and not to be used without asking.
    pub(super) stored: Option<Arc<Stored>>,
    /// What is stored of it, if that is not all that it asks for.
    pub(super) part: Option<Arc<Stored>>,
    /// Why it is forwarded (RFC 9211 section 2.2).
    pub(super) reason: &'static str,
}

impl Asking {
    /// How it ends, but for the answer's status.
    pub(super) fn outcome(&self, ending: Ending) -> Outcome {
        Outcome::forwarded(ending, self.reason)
    }
}

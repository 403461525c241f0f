//! Parts put together (RFC 9111 section 3.4): the rest of a stored part is asked for, and a part that came is joined with one
//! that lies beside it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::asking::Asking;
use super::fetch::Fetch;
use crate::engine::clock;
use crate::engine::responses::Stored;
use crate::policy::http::route::is_plain;
use crate::policy::rfc9111::part::{Extent, strong_tag};
use crate::policy::rfc9111::validate::wants_something_of_its_own;
use crate::proxy::request::ClientRequest;

/// Two parts as one.
pub(super) struct Combined {
    /// Which part of the whole they are together.
    pub(super) extent: Extent,
    pub(super) body: Bytes,
    /// The fields of the one that was stored.
    pub(super) fields: HeaderMap,
}

impl ClientRequest {
    /// The stored part whose rest is asked for in the place of the whole: nobody has any other wish, and the upstream can say
    /// whether the rest is still of the same bytes.
    pub(super) fn may_be_completed(&self, asking: &Asking) -> Option<(Arc<Stored>, Extent)> {
        let headers = &self.head.headers;
        let wants_the_whole = self.head.method == Method::GET
            && is_plain(headers)
            && !wants_something_of_its_own(headers)
            && !asking.wants.no_store;
        let part = asking.part.clone().filter(|part| wants_the_whole && self.is_in_force(part, clock::now()))?;
        let extent = part.part?;
        let fits = extent.of <= self.active.config.fetch.max_body;
        let can_be_asked_for = fits && extent.rest().is_some() && strong_tag(&part.fields).is_some();
        can_be_asked_for.then_some((part, extent))
    }
}

impl Fetch {
    /// A part that came, joined with a stored one that lies beside it; none if there is none, or no room.
    pub(super) fn combined(&self, head: &HeaderMap, extent: Extent, body: &Bytes) -> Option<Combined> {
        let cache = &self.state.cache;
        let beside = cache.responses.part_beside(&self.key, &self.chosen_by, head, extent, self.active.fingerprint)?;
        let kept = beside.part.filter(|_| self.state.invalidation.ledger.is_current(beside.noted, &beside.places))?;
        let both = kept.with(extent).filter(|both| both.of <= self.active.config.fetch.max_body)?;
        let (mut first, mut second) = ((kept, &beside.body), (extent, body));
        if extent.first < kept.first {
            std::mem::swap(&mut first, &mut second);
        }
        let length = usize::try_from(both.length()).ok()?;
        let mut room = cache.memory.room_at_once(length, both.length()).ok()?;
        // Of what both have, the first one's; the second one may lie in the first one altogether.
        let known = usize::try_from(first.0.last + 1 - second.0.first).ok()?.min(second.1.len());
        room.push(first.1).and_then(|()| room.push(&second.1[known..])).ok()?;
        Some(Combined { extent: both, body: room.finish(), fields: beside.fields.clone() })
    }
}

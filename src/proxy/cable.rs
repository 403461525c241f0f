//! Events that pass through a WebSocket towards a client: what they touch is out of date before the client has them.
//!
//! The proxy only overhears. It never subscribes by itself: that would mark contacts as online (`api.md` section 8).

use std::sync::Arc;

use crate::engine::metrics::{CableResult, InvalidationSource};
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::event::{Overheard, of_cable};
use crate::policy::coherence::frames::{Frames, Passed};
use crate::policy::coherence::ledger::Scope;
use crate::state::State;

/// Hears what passes through one tunnel, if it is to: when this returns, the ledger has it.
pub(crate) fn observer(state: Arc<State>, observes: bool) -> impl FnMut(&[u8]) {
    let mut frames = observes.then(Frames::default);
    move |piece| {
        let Some(frames) = &mut frames else { return };
        frames.pass(piece, |passed| {
            let result = match passed {
                Passed::Text(text) => overheard(&state, text),
                Passed::NotUnderstood => CableResult::NotUnderstood,
            };
            state.metrics.cable_messages.with_label_values(&[result.label()]).inc();
        });
    }
}

/// A text message of the cable; says what came of it.
fn overheard(state: &State, text: &str) -> CableResult {
    let Some(Overheard { heard, subscriber }) = of_cable(text) else { return CableResult::NoChange };
    if !heard.changes_lists {
        return CableResult::NoChange;
    }
    let touched = &heard.touched;
    if touched.is_empty() {
        // Its keys are not where they are known to be.
        return CableResult::NotUnderstood;
    }
    state.invalidation.moved(&heard, InvalidationSource::Cable);
    state.invalidation.changed(touched, InvalidationSource::Cable);
    if let Some(token) = subscriber {
        match touched.contacts[..] {
            [contact] => state.invalidation.identities.learn_token(&token, contact),
            // The list of whoever hears this may be that of another source, and not have the conversation yet.
            _ => {
                if let Some(contact) = state.invalidation.identities.contact_of_token(&token) {
                    let place = state.invalidation.ledger.place(&Scope::Contact(contact));
                    state.invalidation.outdate(place, Cause::Cable);
                }
            }
        }
    }
    CableResult::Outdated
}

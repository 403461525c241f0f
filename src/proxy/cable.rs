//! Events that pass through a WebSocket towards a client: what they touch is out of date before the client has them.
//!
//! The proxy only overhears. It never subscribes by itself: that would mark contacts as online (`api.md` section 8).

use std::sync::Arc;
use std::time::Duration;

use crate::engine::metrics::{CableResult, InvalidationSource};
use crate::policy::coherence::causes::Cause;
use crate::policy::coherence::event::{Overheard, of_cable};
use crate::policy::coherence::frames::{Frames, Passed};
use crate::state::State;

/// Hears what passes through one tunnel, if it is to: when this returns, the ledger has it. Says whether other replicas are
/// to be told of it before it goes on.
pub(crate) fn observer(state: Arc<State>, observes: bool) -> impl FnMut(&[u8]) -> bool {
    let mut frames = observes.then(Frames::default);
    move |piece| {
        let Some(frames) = &mut frames else { return false };
        let mut touches = false;
        frames.pass(piece, |passed| {
            let result = match passed {
                Passed::Text(text) => overheard(&state, text),
                Passed::NotUnderstood => CableResult::NotUnderstood,
            };
            touches |= result == CableResult::Outdated;
            state.metrics.cable_messages.with_label_values(&[result.label()]).inc();
        });
        touches && state.invalidation.fleet.is_some()
    }
}

/// Waits until other replicas know of what was heard: at most until those that have not said so can serve nothing old.
pub(crate) async fn told(state: Arc<State>) {
    if let Some(fleet) = &state.invalidation.fleet {
        let limit = Duration::from_micros(fleet.rules().margin());
        let _ = tokio::time::timeout(limit, state.invalidation.told_since(None)).await;
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
    state.invalidation.changed(touched, heard.event, heard.message, InvalidationSource::Cable);
    if let Some(token) = subscriber {
        match touched.contacts[..] {
            [contact] => state.invalidation.identities.learn_token(&token, contact),
            // The list of whoever hears this may be that of another source, and not have the conversation yet.
            _ => {
                if let Some(contact) = state.invalidation.identities.contact_of_token(&token) {
                    state.invalidation.outdate_contact(contact, Cause::Cable);
                }
            }
        }
    }
    CableResult::Outdated
}

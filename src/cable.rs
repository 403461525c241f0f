//! Events that pass through a WebSocket towards a client: what they touch is out of date before the client has them.
//!
//! The proxy only overhears. It never subscribes by itself: that would mark contacts as online (`api.md` section 8).

use std::sync::Arc;

use crate::engine::metrics::{CableResult, ToldBy};
use crate::policy::event::{Overheard, of_cable};
use crate::policy::frames::{Frames, Passed};
use crate::policy::ledger::Scope;
use crate::policy::shown::Shown;
use crate::room::Room;

/// Hears what passes through one tunnel, if it is to: when this returns, the ledger has it.
pub(crate) fn observer(room: Arc<Room>, observes: bool) -> impl FnMut(&[u8]) {
    let mut frames = observes.then(Frames::default);
    move |piece| {
        let Some(frames) = &mut frames else { return };
        frames.pass(piece, |passed| {
            let result = match passed {
                Passed::Text(text) => room.overheard(text),
                Passed::NotUnderstood => CableResult::NotUnderstood,
            };
            room.metrics.cable_messages.with_label_values(&[result.label()]).inc();
        });
    }
}

impl Room {
    /// A text message of the cable; says what came of it.
    fn overheard(&self, text: &str) -> CableResult {
        let Some(Overheard { heard, subscriber }) = of_cable(text) else { return CableResult::NoChange };
        if !heard.changes_lists {
            return CableResult::NoChange;
        }
        let touched = &heard.touched;
        if touched.is_empty() {
            // Its keys are not where they are known to be.
            return CableResult::NotUnderstood;
        }
        self.changed(touched, ToldBy::Cable);
        if let Some(token) = subscriber {
            match touched.contacts[..] {
                [contact] => self.learned.learn_token(&token, contact),
                // The list of whoever hears this may be that of another source, and not have the conversation yet.
                _ => {
                    if let Some(contact) = self.learned.contact_of_token(&token) {
                        self.ledger.outdate(self.ledger.place(&Scope::Contact(contact)));
                    }
                }
            }
        }
        CableResult::Outdated
    }

    /// An answer that passes may show the token with which a contact will subscribe. Nobody asks if nobody listens.
    pub(crate) fn learn_token(&self, shown: &Shown) {
        if let (Some(token), Some(contact)) = (&shown.token, shown.contact)
            && self.live().config.observe_cable
        {
            self.learned.learn_token(token, contact);
        }
    }
}

//! Which contact is behind a source: learned from what passes, or asked for once.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::engine::body::{Read, read_at_most};
use crate::policy::encoding::plain_at_most;
use crate::policy::key::contact_path;
use crate::policy::ledger::{Scope, Tick};
use crate::policy::shown;
use crate::room::{Live, Room};

/// How long the look-up of an unknown contact may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// The most of its answer that is read.
const LONGEST: usize = 64 * 1024;

impl Room {
    /// The contact behind a source: learned, or asked for once.
    pub async fn contact_of(&self, live: &Live, inbox: &str, source: &str, peer: &HeaderValue) -> Option<u64> {
        if let Some(contact) = self.learned.contact(inbox, source) {
            return Some(contact);
        }
        let noted = self.ledger.now();
        let path = contact_path(inbox, source);
        let mut request = live.own_request(&path, &self.request_id())?;
        request.headers_mut().insert("x-forwarded-for", peer.clone());
        let exchange = live.upstream.exchange();
        let look_up = async {
            let response =
                live.upstream.send(request).await.ok().filter(|response| response.status() == StatusCode::OK)?;
            let (head, body) = response.into_parts();
            match read_at_most(live.upstream.watch(body, exchange), LONGEST).await {
                Ok(Read::Whole(body)) => {
                    let shown = shown::of_answer(&plain_at_most(&head.headers, body, LONGEST)?);
                    self.learn_token(&shown);
                    shown.contact
                }
                _ => None,
            }
        };
        let contact = tokio::time::timeout(LOOK_UP, look_up).await.ok()??;
        self.learn(noted, inbox, source, contact);
        Some(contact)
    }

    /// What was asked for at this tick shows the contact of a source. It is not learned if a change since may have
    /// given the source to another contact; if another one is known, neither is believed then.
    pub fn learn(&self, noted: Tick, inbox: &str, source: &str, contact: u64) {
        let places = [Scope::Source(source), Scope::Contact(contact)].map(|scope| self.ledger.place(&scope));
        if self.ledger.is_current(noted, &places) {
            self.learned.learn(inbox, source, contact);
        } else if self.learned.contact(inbox, source).is_some_and(|known| known != contact) {
            self.learned.forget(inbox, source);
        }
    }
}

//! Which contact is behind a source: learned from what passes, or asked for once.

use std::time::Duration;

use http::StatusCode;

use crate::engine::body::{Read, read_at_most};
use crate::policy::http::client::Client;
use crate::policy::http::encoding::plain_at_most;
use crate::policy::http::key::contact_path;
use crate::policy::coherence::answer_ids;
use crate::state::State;
use crate::state::upstream::Active;

/// How long the look-up of an unknown contact may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// The most of its answer that is read.
const LONGEST: usize = 64 * 1024;

/// The contact behind a source: learned, or asked for once.
pub(crate) async fn contact_of(
    state: &State,
    active: &Active,
    inbox: &str,
    source: &str,
    peer: &Client,
) -> Option<u64> {
    if let Some(contact) = state.invalidation.identities.contact(inbox, source) {
        return Some(contact);
    }
    let noted = state.invalidation.ledger.now();
    let path = contact_path(inbox, source);
    let request = active.own_request(&path, &state.observation.request_id(), peer)?;
    let exchange = active.upstream.exchange();
    let look_up = async {
        let response =
            active.upstream.send(request).await.ok().filter(|response| response.status() == StatusCode::OK)?;
        let (head, body) = response.into_parts();
        match read_at_most(active.upstream.watch(body, exchange), LONGEST).await {
            Ok(Read::Whole(body)) => {
                let ids = answer_ids::of_answer(&plain_at_most(&head.headers, body, LONGEST)?);
                state.invalidation.learn_token(&ids, active.config.observe_cable);
                ids.contact
            }
            _ => None,
        }
    };
    let contact = tokio::time::timeout(LOOK_UP, look_up).await.ok()??;
    state.invalidation.learn(noted, inbox, source, contact);
    Some(contact)
}

//! Which contact is behind a source: believed, or asked for once.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::engine::body::{Read, read_at_most};
use crate::engine::clock;
use crate::policy::http::client::Client;
use crate::policy::coherence::answer_ids;
use crate::policy::http::encoding::plain_at_most;
use crate::policy::http::key::{Key, contact_path};
use crate::policy::payload::{self, Validate};
use crate::state::State;
use crate::state::invalidation::Shown;
use crate::state::upstream::Active;

/// How long a look-up may take: a write is acknowledged that much later at most.
const LOOK_UP: Duration = Duration::from_secs(1);
/// The most of a contact that is read.
const LONGEST: usize = 64 * 1024;
/// The most of a list that is read for the contact in it.
const LONGEST_LIST: usize = 1024 * 1024;

/// Who is behind a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// This contact.
    Contact(u64),
    /// There is no such source.
    Nobody,
    /// The upstream does not say.
    Unknown,
}

/// A question about one source.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) state: &'a State,
    pub(crate) active: &'a Active,
    pub(crate) inbox: &'a str,
    pub(crate) source: &'a str,
    /// For whom the upstream is asked.
    pub(crate) peer: &'a Client,
}

impl Asked<'_> {
    /// The contact as it is believed, or asked for once. Where the contact itself is not shown (`api.md` section 2: a
    /// hash is demanded), its list may name it.
    pub(crate) async fn contact(self) -> Who {
        match self.believed() {
            Some(contact) => Who::Contact(contact),
            None => self.look_up(true).await,
        }
    }

    /// The same for whoever has its list, which names nobody.
    pub(crate) async fn contact_of_nameless_list(self) -> Who {
        match self.believed() {
            Some(contact) => Who::Contact(contact),
            None => self.look_up(false).await,
        }
    }

    fn believed(self) -> Option<u64> {
        self.state.believed(self.active, self.inbox, self.source, clock::now())
    }

    async fn look_up(self, in_list: bool) -> Who {
        let Self { state, active, inbox, source, .. } = self;
        let (noted, began) = (state.invalidation.ledger.now(), clock::now());
        let asking = async {
            match self.ask_for(&contact_path(inbox, source), LONGEST).await {
                Some((StatusCode::OK, body)) => {
                    let ids = answer_ids::of_answer(&body);
                    state.invalidation.learn_token(&ids, active.config.observe_cable);
                    ids.contact.map_or(Who::Unknown, Who::Contact)
                }
                Some((StatusCode::NOT_FOUND, _)) => Who::Nobody,
                Some(_) if in_list && self.lists_name_contacts() => self.look_into_list().await,
                _ => Who::Unknown,
            }
        };
        let who = tokio::time::timeout(LOOK_UP, asking).await.unwrap_or(Who::Unknown);
        if let Who::Contact(contact) = who {
            state.invalidation.learn(Shown { whose: active.whose(inbox, source), noted, began }, contact);
        }
        who
    }

    /// Whether a list is one of the API, and may say whose it is: not where anything may be in its place, and be cached as it
    /// says itself.
    fn lists_name_contacts(self) -> bool {
        let config = &self.active.config;
        config.origin.is_none() || config.payload.validate != Validate::Off
    }

    async fn look_into_list(self) -> Who {
        let path = Key::new(self.inbox, self.source, None).path_and_query();
        match self.ask_for(&path, LONGEST_LIST).await {
            Some((StatusCode::OK, body)) => match payload::apply(&body, &self.active.config.payload) {
                Ok(list) if list.scopes.contacts.len() == 1 => Who::Contact(list.scopes.contacts[0]),
                _ => Who::Unknown,
            },
            Some((StatusCode::NOT_FOUND, _)) => Who::Nobody,
            _ => Who::Unknown,
        }
    }

    /// A status and a body of at most so many bytes, out of its coding.
    async fn ask_for(self, path: &str, longest: usize) -> Option<(StatusCode, Bytes)> {
        let Self { state, active, peer, .. } = self;
        let request = active.own_request(path, &state.observation.request_id(), peer)?;
        let exchange = active.upstream.exchange();
        let response = active.upstream.send(request).await.ok()?;
        let (head, body) = response.into_parts();
        match read_at_most(active.upstream.watch(body, exchange), longest).await {
            Ok(Read::Whole(body)) => Some((head.status, plain_at_most(&head.headers, body, longest)?)),
            _ => Some((head.status, Bytes::new())),
        }
    }
}

//! What the stand-in remembers: one account with its inboxes, contacts, conversations and messages.
//!
//! Plain data and lookups; `writes` changes it, `seed` fills it, `render` shows it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::json::Value;
use super::outbox::Outbox;
use super::stamps::{iso, wall_clock};

/// A contact in the order of its columns: this is also its JSON.
#[expect(clippy::struct_field_names, reason = "the columns have these names")]
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Contact {
    pub(super) id: i64,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) phone_number: Option<String>,
    pub(super) account_id: i64,
    pub(super) created_at: String,
    pub(super) updated_at: String,
    pub(super) additional_attributes: Value,
    pub(super) identifier: Option<String>,
    pub(super) custom_attributes: Value,
    pub(super) last_activity_at: Option<String>,
    pub(super) contact_type: String,
    pub(super) middle_name: String,
    pub(super) last_name: String,
    pub(super) location: Option<String>,
    pub(super) country_code: Option<String>,
    pub(super) blocked: bool,
    pub(super) company_id: Option<i64>,
    pub(super) label_list: Vec<String>,
    #[serde(skip)]
    pub(super) thumbnail: String,
    /// Newest servers with the companies feature show `company_id` in the sender too.
    #[serde(skip)]
    pub(super) company_in_sender: bool,
}

/// A contact in one inbox: what a source id stands for.
#[derive(Clone)]
pub(super) struct ContactInbox {
    pub(super) id: i64,
    pub(super) contact_id: i64,
    pub(super) pubsub_token: String,
    pub(super) hmac_verified: bool,
    pub(super) conversations: Vec<i64>,
}

/// An API inbox.
pub(super) struct Inbox {
    pub(super) id: i64,
    pub(super) identifier: String,
    pub(super) name: String,
    pub(super) greeting: Option<String>,
    pub(super) single_conversation: bool,
}

/// The four states of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Open,
    Resolved,
    Pending,
    Snoozed,
}

/// A conversation with all its messages, in order of time.
#[derive(Clone)]
pub(super) struct Conversation {
    pub(super) id: i64,
    pub(super) uuid: String,
    pub(super) inbox_id: i64,
    pub(super) contact_id: i64,
    pub(super) source_id: String,
    pub(super) contact_last_seen_at: i64,
    pub(super) status: Status,
    pub(super) agent_last_seen_at: i64,
    pub(super) created_at: i64,
    pub(super) custom_attributes: Value,
    pub(super) messages: Vec<Message>,
}

/// Who wrote a message.
#[derive(Clone)]
pub(super) enum Sender {
    /// Templates, automation, removed agents.
    Nobody,
    /// The contact of the conversation.
    Contact,
    /// An agent, by id: shown with the name of today.
    Agent(i64),
    /// A bot or an assistant, as it stands in the sample.
    Other(Value),
}

/// A message, named as its columns. Types: 0 incoming, 1 outgoing, 2 activity (never shown to contacts), 3 template.
#[derive(Clone)]
#[expect(clippy::struct_field_names, reason = "the columns have these names")]
pub(super) struct Message {
    pub(super) id: i64,
    pub(super) content: Option<String>,
    pub(super) message_type: i64,
    pub(super) content_type: String,
    pub(super) content_attributes: Value,
    pub(super) created_at: i64,
    pub(super) updated_at: String,
    pub(super) private: bool,
    pub(super) attachments: Vec<Value>,
    pub(super) sender: Sender,
    /// Whether the contact has read it, if it is an answer to him: contacts are not shown this.
    pub(super) is_read: bool,
}

impl Message {
    /// Whether contacts may see it: neither a private note nor an activity message.
    pub(super) fn is_chat(&self) -> bool {
        !self.private && self.message_type != 2
    }
}

/// An agent, in the order of its JSON as a sender.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Agent {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) available_name: String,
    pub(super) avatar_url: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) availability_status: Option<String>,
    pub(super) thumbnail: String,
}

/// Something for the WebSocket: an event for the holders of some tokens.
#[derive(Clone)]
pub(super) enum Event {
    Changed {
        tokens: Vec<String>,
        name: &'static str,
        data: Value,
    },
    /// The cable server restarts: every WebSocket is told and closed.
    Restart,
}

/// Everything. One lock around it all: the stand-in is a truth, not a race.
pub(super) struct World {
    pub(super) inboxes: Vec<Inbox>,
    pub(super) contacts: BTreeMap<i64, Contact>,
    pub(super) contact_inboxes: HashMap<(i64, String), ContactInbox>,
    pub(super) conversations: BTreeMap<i64, Conversation>,
    pub(super) agents: BTreeMap<i64, Agent>,
    pub(super) events: broadcast::Sender<Event>,
    pub(super) outbox: Arc<Outbox>,
    /// Where attachments are said to be: `FRONTEND_URL` of the real service.
    pub(super) frontend: String,
    last_id: i64,
    /// How far its clock is behind the time of day.
    pub(super) behind: Duration,
    last_ms: i64,
}

/// A row that was asked for is not there: the caller answers 404.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing;

impl World {
    /// An empty account.
    pub(super) fn new(frontend: String) -> Self {
        Self {
            inboxes: Vec::new(),
            contacts: BTreeMap::new(),
            contact_inboxes: HashMap::new(),
            conversations: BTreeMap::new(),
            agents: BTreeMap::new(),
            events: broadcast::channel(1024).0,
            outbox: Arc::new(Outbox::new()),
            frontend,
            last_id: 100_000,
            behind: Duration::ZERO,
            last_ms: 0,
        }
    }

    /// Milliseconds since 1970, never twice the same, so that two changes never look like one.
    pub(super) fn now_ms(&mut self) -> i64 {
        let wall = i64::try_from(wall_clock().saturating_sub(self.behind).as_millis()).unwrap_or(i64::MAX);
        self.last_ms = wall.max(self.last_ms + 1);
        self.last_ms
    }

    /// Now, as contacts carry it.
    pub(super) fn now_iso(&mut self) -> String {
        iso(self.now_ms())
    }

    /// Now, as conversations and messages carry it.
    pub(super) fn now_seconds(&mut self) -> i64 {
        self.now_ms() / 1000
    }

    /// A new id, for anything.
    pub(super) fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Ids from samples must not be given out again.
    pub(super) fn reserve_id(&mut self, id: i64) {
        self.last_id = self.last_id.max(id);
    }

    pub(super) fn inbox(&self, identifier: &str) -> Result<&Inbox, Missing> {
        self.inboxes.iter().find(|inbox| inbox.identifier == identifier).ok_or(Missing)
    }

    pub(super) fn inbox_by_id(&self, id: i64) -> Result<&Inbox, Missing> {
        self.inboxes.iter().find(|inbox| inbox.id == id).ok_or(Missing)
    }

    /// The contact inbox behind a source id: exact, case-sensitive.
    pub(super) fn contact_inbox(&self, inbox_id: i64, source_id: &str) -> Result<&ContactInbox, Missing> {
        self.contact_inboxes.get(&(inbox_id, source_id.to_owned())).ok_or(Missing)
    }

    /// The conversations of a list: of this source id alone, or, once verified, of the contact in every inbox.
    pub(super) fn list(&self, inbox_id: i64, source_id: &str) -> Result<Vec<&Conversation>, Missing> {
        let contact_inbox = self.contact_inbox(inbox_id, source_id)?;
        if contact_inbox.hmac_verified {
            let contact_id = contact_inbox.contact_id;
            return Ok(self.conversations.values().filter(|it| it.contact_id == contact_id).collect());
        }
        Ok(contact_inbox.conversations.iter().filter_map(|id| self.conversations.get(id)).collect())
    }

    /// A conversation, if the list of this source id has it.
    pub(super) fn conversation(&self, inbox_id: i64, source_id: &str, id: i64) -> Result<&Conversation, Missing> {
        self.list(inbox_id, source_id)?.into_iter().find(|it| it.id == id).ok_or(Missing)
    }

    /// The tokens that hear of a conversation: its own, or all verified ones of the contact.
    pub(super) fn tokens(&self, conversation: &Conversation) -> Vec<String> {
        let Ok(own) = self.contact_inbox(conversation.inbox_id, &conversation.source_id) else {
            return Vec::new();
        };
        let mut tokens = vec![own.pubsub_token.clone()];
        if own.hmac_verified {
            let others = self.contact_inboxes.values();
            let others = others.filter(|it| it.hmac_verified && it.contact_id == own.contact_id && it.id != own.id);
            tokens.extend(others.map(|it| it.pubsub_token.clone()));
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_stands_still() {
        let mut world = World::new(String::new());
        let times: Vec<_> = (0..100).map(|_| world.now_ms()).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

//! What has changed between two bodies of one list, since when by the body's own times, and who tells of it.
//!
//! The table is `api.md` section 7.4. Parts that are alike byte for byte are never looked into; of the others only the
//! keys that differ are. A part that cannot be read is a change of which nobody tells. Takes time in proportion to the
//! bodies, and holds a few words for each conversation and message.
//!
//! Times of messages are whole seconds, rounded down: what is measured from them may be up to a second too long.

mod parts;

use std::cell::LazyCell;
use std::time::Duration;

use super::event::Event;
use super::times;
use crate::policy::payload::schema;
use parts::{Parts, differing, elements, leading, member};

/// An older part than this, in milliseconds before the list was made, should have been in it. The API gives up after
/// 15 s (`api.md` section 6.4), so whatever was being written has long been committed; as much again for clocks.
pub const OVERLOOKED_MS: u64 = 30_000;

/// One kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody wrote.
    MessageAdded,
    /// Edited, deleted, translated, answered, failed, transcribed. The list does not tell when.
    MessageUpdated,
    /// There is a new conversation.
    ConversationCreated,
    /// Resolved, reopened, snoozed, left pending. The list does not tell when.
    StatusChanged,
    /// Edited, labelled, blocked, or active; since its `updated_at` or `last_activity_at`.
    ContactUpdated,
    /// A message that was there long before the older list was made, which had the conversation and not the message.
    MessageOverlooked,
    /// The contact has read.
    ContactRead,
    /// An agent has read.
    AgentRead,
    /// A message is gone; the API itself only empties them.
    MessageRemoved,
    /// A conversation is gone.
    ConversationRemoved,
    /// A conversation with messages from long before: the contact was merged or `hmac_verified` set.
    ConversationMoved,
    /// It is another contact's, or nobody's: merged, or being deleted.
    ContactReplaced,
    /// A company was linked to the contact.
    CompanyLinked,
    /// A sender who is no contact was renamed, got another picture, or was removed.
    SenderChanged,
    /// Width and height of a picture, or the thumbnail of a contact, which come later.
    FilledIn,
    /// The list itself is gone: its contact, or its inbox, was deleted.
    ListGone,
    /// What the table does not know.
    Other,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::MessageAdded,
        Self::MessageUpdated,
        Self::ConversationCreated,
        Self::StatusChanged,
        Self::ContactUpdated,
        Self::MessageOverlooked,
        Self::ContactRead,
        Self::AgentRead,
        Self::MessageRemoved,
        Self::ConversationRemoved,
        Self::ConversationMoved,
        Self::ContactReplaced,
        Self::CompanyLinked,
        Self::SenderChanged,
        Self::FilledIn,
        Self::ListGone,
        Self::Other,
    ];

    /// The webhook that tells of it, if one reliably does (`api.md` section 7.4).
    pub const fn told_by(self) -> Option<Event> {
        match self {
            Self::MessageAdded | Self::MessageOverlooked => Some(Event::MessageCreated),
            Self::MessageUpdated => Some(Event::MessageUpdated),
            Self::ConversationCreated => Some(Event::ConversationCreated),
            Self::StatusChanged => Some(Event::ConversationStatusChanged),
            Self::ContactUpdated => Some(Event::ContactUpdated),
            Self::ContactRead
            | Self::AgentRead
            | Self::MessageRemoved
            | Self::ConversationRemoved
            | Self::ConversationMoved
            | Self::ContactReplaced
            | Self::CompanyLinked
            | Self::SenderChanged
            | Self::FilledIn
            | Self::ListGone
            | Self::Other => None,
        }
    }
}

/// What follows from all changes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing has changed; the order of conversations is nobody's promise (`api.md` section 3).
    Same,
    /// It has, in ways of which nobody tells.
    NoEvent,
    /// An event tells of some of it.
    EventDue,
    /// The older list was out of date when it was made.
    Overlooked,
}

/// What is known of the older body, beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Older {
    /// When it was asked for, in milliseconds since 1970: whatever is later cannot be in it.
    pub asked: u64,
    /// Trimming leaves out conversations by their status, so they come and go with it.
    pub by_status: bool,
    /// Trimming leaves so many messages of a conversation: older ones go when newer ones come.
    pub newest: Option<usize>,
}

/// The changes between two bodies of one list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes([Found; Change::ALL.len()]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    is_there: bool,
    since: Option<u64>,
}

impl Changes {
    /// The list is gone.
    pub fn gone() -> Self {
        let mut changes = Self::default();
        changes.add(Change::ListGone, None);
        changes
    }

    /// Whether there is one of this kind.
    pub fn has(&self, change: Change) -> bool {
        self.0[change as usize].is_there
    }

    /// Since when there is one of this kind, in milliseconds since 1970, if the list tells.
    pub fn since(&self, change: Change) -> Option<u64> {
        self.0[change as usize].since
    }

    /// Since when the older body is out of date, as far as the list tells.
    pub fn earliest(&self) -> Option<u64> {
        self.0.iter().filter_map(|found| found.since).min()
    }

    /// What follows from them.
    pub fn verdict(&self) -> Verdict {
        let mut found = Change::ALL.into_iter().filter(|change| self.has(*change)).peekable();
        if self.has(Change::MessageOverlooked) {
            Verdict::Overlooked
        } else if found.peek().is_none() {
            Verdict::Same
        } else if found.any(|change| change.told_by().is_some()) {
            Verdict::EventDue
        } else {
            Verdict::NoEvent
        }
    }

    /// For how long the older body could be served though it was out of date; both moments in milliseconds since 1970.
    /// It was served from when it was asked for, so no change counts from before. `None`: no change tells its time, or
    /// it came when the older body was no longer served, and nobody had anything stale.
    pub fn stale_for(&self, asked: u64, served_until: u64) -> Option<Duration> {
        let since = self.earliest()?.max(asked);
        (since < served_until).then(|| Duration::from_millis(served_until - since))
    }

    fn add(&mut self, change: Change, since: Option<u64>) {
        let found = &mut self.0[change as usize];
        found.is_there = true;
        found.since = [found.since, since].into_iter().flatten().min();
    }
}

/// Compares two bodies of one list, trimmed alike.
pub fn compare(old: &[u8], new: &[u8], older: Older) -> Changes {
    let mut comparing = Comparing { older, changes: Changes::default() };
    if old != new {
        match std::str::from_utf8(old).ok().zip(std::str::from_utf8(new).ok()) {
            Some((old, new)) => comparing.lists(old, new),
            None => comparing.found(Change::Other, None),
        }
    }
    comparing.changes
}

struct Comparing {
    older: Older,
    changes: Changes,
}

impl Comparing {
    fn found(&mut self, change: Change, since: Option<u64>) {
        self.changes.add(change, since);
    }

    fn lists(&mut self, old: &str, new: &str) {
        let Some(parts) = Parts::of(old, new, &["id", "uuid"]) else { return self.found(Change::Other, None) };
        let by_status = self.older.by_status;
        for conversation in parts.came {
            let first = elements(member(conversation.text, "messages").unwrap_or_default()).unwrap_or_default();
            let began = first.iter().find_map(|message| member(message, "created_at").and_then(times::from_json));
            match began {
                _ if !conversation.is_object() => self.found(Change::Other, None),
                Some(began) if self.is_overlooked(began) && by_status => self.found(Change::StatusChanged, None),
                Some(began) if self.is_overlooked(began) => self.found(Change::ConversationMoved, None),
                _ => self.found(Change::ConversationCreated, began),
            }
        }
        for _ in parts.gone {
            self.found(if by_status { Change::StatusChanged } else { Change::ConversationRemoved }, None);
        }
        for (old, new) in parts.changed {
            self.conversation(old.text, new.text);
        }
    }

    fn conversation(&mut self, old: &str, new: &str) {
        let Some(members) = differing(old, new) else { return self.found(Change::Other, None) };
        for (key, old, new) in members {
            match key.as_str() {
                "status" => self.found(Change::StatusChanged, None),
                "contact_last_seen_at" => self.found(Change::ContactRead, new.and_then(times::from_json)),
                "agent_last_seen_at" => self.found(Change::AgentRead, new.and_then(times::from_json)),
                "messages" => self.messages(old.unwrap_or_default(), new.unwrap_or_default()),
                "contact" => self.contact(old.unwrap_or_default(), new.unwrap_or_default()),
                _ => self.found(Change::Other, None),
            }
        }
    }

    fn messages(&mut self, old: &str, new: &str) {
        let Some(parts) = Parts::of(old, new, &["id"]) else { return self.found(Change::Other, None) };
        // What leads in one list and is not in the other is beyond the limit there.
        let (lost, gained) = (leading(&parts.gone), leading(&parts.came));
        let newest = LazyCell::new(|| newest(old));
        let is_full = |length| self.older.newest == Some(length);
        let (old_full, new_full) = (is_full(parts.old), is_full(parts.new));
        for message in parts.gone {
            if !(new_full && message.at < lost) {
                self.found(Change::MessageRemoved, None);
            }
        }
        for message in parts.came {
            let written = member(message.text, "created_at").and_then(times::from_json);
            if !message.is_object() {
                self.found(Change::Other, None);
            } else if old_full && gained < parts.new && message.at < gained {
                // One that is not shown has gone from among the newer ones, which is told of above.
            } else if written.is_some_and(|written| self.is_overlooked(written)) {
                // Ids ascend. One that follows a message that says it is newer was given its time (an import).
                let named = newest.zip(id_and_time(message.text));
                let was_given = named.is_some_and(|(newest, own)| own.0 > newest.0 && own.1 < newest.1);
                let change = if was_given { Change::MessageAdded } else { Change::MessageOverlooked };
                self.found(change, written.filter(|_| !was_given));
            } else {
                self.found(Change::MessageAdded, written);
            }
        }
        for (old, new) in parts.changed {
            self.message(old.text, new.text);
        }
    }

    fn message(&mut self, old: &str, new: &str) {
        let Some(members) = differing(old, new) else { return self.found(Change::Other, None) };
        for (key, old, new) in members {
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            match key.as_str() {
                "content" | "content_type" | "content_attributes" => self.found(Change::MessageUpdated, None),
                "attachments" => self.attachments(old, new),
                "sender" => self.sender(old, new),
                _ => self.found(Change::Other, None),
            }
        }
    }

    fn attachments(&mut self, old: &str, new: &str) {
        let Some(parts) = Parts::of(old, new, &["id"]) else { return self.found(Change::MessageUpdated, None) };
        if !parts.gone.is_empty() || !parts.came.is_empty() {
            self.found(Change::MessageUpdated, None);
        }
        for (old, new) in parts.changed {
            let Some(members) = differing(old.text, new.text) else { return self.found(Change::MessageUpdated, None) };
            for (key, ..) in members {
                let is_measure = matches!(key.as_str(), "width" | "height");
                self.found(if is_measure { Change::FilledIn } else { Change::MessageUpdated }, None);
            }
        }
    }

    fn sender(&mut self, old: &str, new: &str) {
        let is_contact = |sender| member(sender, "type") == Some("\"contact\"");
        if is_contact(old) && is_contact(new) {
            self.contact(old, new);
        } else {
            self.found(Change::SenderChanged, None);
        }
    }

    /// A contact, in full or as a sender.
    fn contact(&mut self, old: &str, new: &str) {
        if old == "null" || new == "null" || member(old, "id") != member(new, "id") {
            return self.found(Change::ContactReplaced, None);
        }
        let Some(members) = differing(old, new) else { return self.found(Change::Other, None) };
        let dated = members.iter().filter(|(key, ..)| matches!(key.as_str(), "updated_at" | "last_activity_at"));
        let since = dated.filter_map(|(_, _, new)| new.and_then(times::from_json)).min();
        let only = members.len() == 1;
        for (key, ..) in members {
            match key.as_str() {
                // Every save writes it, and some saves tell nobody: what else differs says which one it was.
                "updated_at" if !only => {}
                "company_id" => self.found(Change::CompanyLinked, since),
                "thumbnail" => self.found(Change::FilledIn, since),
                "id" | "updated_at" | "account_id" | "created_at" => self.found(Change::Other, since),
                known if schema::CONTACT.field(known).is_some() => self.found(Change::ContactUpdated, since),
                _ => self.found(Change::Other, since),
            }
        }
    }

    fn is_overlooked(&self, written: u64) -> bool {
        written.saturating_add(OVERLOOKED_MS) < self.older.asked
    }
}

/// The id and the time of the message that says it is the newest.
fn newest(messages: &str) -> Option<(u64, u64)> {
    elements(messages)?.into_iter().filter_map(id_and_time).max_by_key(|(_, written)| *written)
}

fn id_and_time(message: &str) -> Option<(u64, u64)> {
    member(message, "id")?.parse().ok().zip(member(message, "created_at").and_then(times::from_json))
}

#[cfg(test)]
mod tests;

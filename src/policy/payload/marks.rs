//! What a body shows that other reads show, too: by a few words of each, so that two answers can be compared without their
//! bodies. The newest message of each conversation, its state, and the contact.
//!
//! A message that is told from others by its id alone is not looked into but for the newest; white space and the order of keys
//! do not count, and null is as good as an empty text.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::schema::Role;
use super::token::digits;
use crate::policy::resource::ReadKind;

/// What of a conversation is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConversationMarks {
    /// Its display id; none if the body does not name it.
    pub display: Option<u64>,
    /// Its status, and when it was last seen by whom; none if that is not shown.
    pub state: Option<u64>,
    /// Its newest message; zero if it has none.
    pub newest: u64,
}

/// What a body shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Name and addresses of the contact.
    pub card: Option<u64>,
    /// When the contact last changed in any way.
    pub record: Option<u64>,
    /// The conversations, 64 at most.
    pub conversations: Vec<ConversationMarks>,
    /// There are more of them.
    pub is_partial: bool,
}

/// So many conversations are marked: the memory of a pass has a bound, and so has what is remembered of a source.
const MARKED: usize = 64;

/// Gathers marks while a body is read.
#[derive(Debug, Default)]
pub(super) struct Marking<'a> {
    /// Nobody but those who sent messages shows the contact.
    of_senders: bool,
    /// Of the contact of the conversation that is being read, and of the first one.
    card: u64,
    record: u64,
    first_card: u64,
    first_record: u64,
    sender: u64,
    card_of_sender: u64,
    state: u64,
    /// The id of the newest message, and what it says.
    newest: (u64, &'a [u8]),
    /// The same of the one that is being read, and whether it is shown to contacts at all.
    message: (u64, &'a [u8], bool),
    conversations: Vec<ConversationMarks>,
    is_partial: bool,
}

impl<'a> Marking<'a> {
    /// Of what this read gives.
    pub(super) fn of(read: ReadKind) -> Self {
        Self { of_senders: read == ReadKind::Messages, ..Self::default() }
    }

    /// A value that says something, as it stands in the body.
    pub(super) fn note(&mut self, role: Role, token: &'a [u8]) {
        let into = match role {
            Role::Status | Role::Seen(_) => &mut self.state,
            Role::Card(_) => &mut self.card,
            Role::SenderCard(_) if self.of_senders => &mut self.sender,
            Role::UpdatedAt => &mut self.record,
            Role::MessageId => return self.message.0 = digits(token).unwrap_or(0),
            Role::Content => return self.message.1 = token,
            // Activities, which the API leaves out (`api.md` section 3).
            Role::MessageType => return self.message.2 = token == b"2",
            _ => return,
        };
        if token != b"\"\"" {
            // In whatever order keys come.
            *into = into.wrapping_add(hash(role, token));
        }
    }

    pub(super) fn begin_message(&mut self) {
        self.message = Default::default();
    }

    pub(super) fn end_message(&mut self) {
        let (id, content, is_hidden) = self.message;
        if id > self.newest.0 && !is_hidden {
            self.newest = (id, content);
        }
    }

    pub(super) fn begin_sender(&mut self) {
        self.sender = 0;
    }

    /// The sender is a contact.
    pub(super) fn sender_is_contact(&mut self) {
        self.card_of_sender = self.sender;
    }

    /// What stands in a conversation has been read, and whether that was all that its own object shows.
    pub(super) fn end_conversation(&mut self, display: Option<u64>, is_whole: bool) {
        let (id, content) = std::mem::take(&mut self.newest);
        let newest = if id == 0 { 0 } else { hash(Role::Content, content).wrapping_add(id) };
        let state = std::mem::take(&mut self.state);
        self.end_contact();
        if self.conversations.len() < MARKED {
            self.conversations.push(ConversationMarks { display, state: is_whole.then_some(state), newest });
        } else {
            self.is_partial = true;
        }
    }

    /// All conversations are one contact's: the first one shows it.
    fn end_contact(&mut self) {
        let (card, record) = (std::mem::take(&mut self.card), std::mem::take(&mut self.record));
        if self.first_card == 0 && self.first_record == 0 {
            (self.first_card, self.first_record) = (card, record);
        }
    }

    pub(super) fn finish(mut self) -> Marks {
        self.end_contact();
        let shown = |mark: u64| (mark != 0).then_some(mark);
        let card = shown(self.first_card).or(shown(self.card_of_sender));
        Marks { card, record: shown(self.first_record), conversations: self.conversations, is_partial: self.is_partial }
    }
}

fn hash(role: Role, token: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write_u8(match role {
        Role::Status => 1,
        Role::Seen(which) => 2 + which,
        Role::Card(which) | Role::SenderCard(which) => 8 + which,
        _ => 0,
    });
    hasher.write(token);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::policy::payload::{PayloadSettings, apply_to};

    fn marks(read: ReadKind, body: &str) -> Marks {
        apply_to(read, &Bytes::from(body.to_owned()), &PayloadSettings::default()).expect("what the read gives").marks
    }

    const CONTACT: &str = r#"{"id":42,"name":"n","email":null,"phone_number":"+1","updated_at":"u"}"#;
    const MESSAGES: &str = r#"[{"id":8,"content":"older","message_type":0,"sender":{"id":42,"type":"contact","phone_number":"+1","name":"n","email":""}},{"id":9,"content":"newest"},{"id":10,"content":"resolved","message_type":2}]"#;

    fn conversation(id: u64, contact: &str) -> String {
        format!(
            r#"{{"id":{id},"contact_last_seen_at":0,"status":"open","agent_last_seen_at":5,"messages":{MESSAGES},"contact":{contact}}}"#
        )
    }

    #[test]
    fn the_same_is_marked_alike_whatever_read_shows_it() {
        let list =
            marks(ReadKind::Conversations, &format!("[{},{}]", conversation(7, CONTACT), conversation(6, CONTACT)));
        let one = marks(ReadKind::Conversation, &conversation(7, CONTACT));
        let page = marks(ReadKind::Messages, MESSAGES);
        let contact =
            marks(ReadKind::Contact, r#"{"source_id":"s","id":42,"phone_number":"+1","name":"n","email":null}"#);
        assert_eq!((list.card, list.record, list.conversations[0]), (one.card, one.record, one.conversations[0]));
        assert_eq!((one.card, one.card), (page.card, contact.card));
        assert!(one.card.is_some() && one.record.is_some() && contact.conversations.is_empty());
        let [of_page] = page.conversations[..] else { panic!("one conversation") };
        assert_eq!((of_page.newest, of_page.state, of_page.display), (one.conversations[0].newest, None, None));
    }

    #[test]
    fn whatever_differs_is_marked_otherwise() {
        let shown = conversation(7, CONTACT);
        let of = |from: &str, to: &str| marks(ReadKind::Conversation, &shown.replace(from, to));
        let same = of("", "");
        for (from, to, card, record, state, newest) in [
            ("\"name\":\"n\",\"email\":null", "\"name\":\"m\",\"email\":null", true, false, false, false),
            ("\"email\":null", "\"email\":\"n\"", true, false, false, false),
            ("\"updated_at\":\"u\"", "\"updated_at\":\"v\"", false, true, false, false),
            ("open", "resolved", false, false, true, false),
            ("\"contact_last_seen_at\":0", "\"contact_last_seen_at\":1", false, false, true, false),
            ("\"agent_last_seen_at\":5", "\"agent_last_seen_at\":6", false, false, true, false),
            ("\"newest\"", "\"edited\"", false, false, false, true),
            ("\"id\":9", "\"id\":11", false, false, false, true),
            // Neither what is older, nor what contacts are not shown.
            ("older", "edited", false, false, false, false),
            ("\"id\":10", "\"id\":12", false, false, false, false),
        ] {
            let other = of(from, to);
            let (was, is) = (same.conversations[0], other.conversations[0]);
            let differs =
                (same.card != other.card, same.record != other.record, was.state != is.state, was.newest != is.newest);
            assert_eq!(differs, (card, record, state, newest), "{from} {to}");
        }
    }
}

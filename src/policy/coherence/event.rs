//! What an event of the application says has changed: a webhook, or a frame of the cable.
//!
//! Read with care: only what is named in the tables below, each place for itself, so that a wrong shape in one place
//! loses nothing of the others. The keys are those of `api.md` section 7.3 and 8; a message's own `source_id` is not
//! the contact's.

mod found;

use self::found::{Below, Found, Json, Path};
use super::ledger::Scope;

/// Which event. A closed set: these are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A conversation was opened.
    ConversationCreated,
    /// Something about a conversation changed.
    ConversationUpdated,
    /// It was resolved, reopened, snoozed or left pending.
    ConversationStatusChanged,
    /// Somebody types.
    ConversationTypingOn,
    /// Nobody types any more.
    ConversationTypingOff,
    /// A message was written.
    MessageCreated,
    /// It was edited, deleted, delivered, read, answered.
    MessageUpdated,
    /// A contact was created.
    ContactCreated,
    /// A contact changed, if only by having written.
    ContactUpdated,
    /// The website widget was opened.
    WebwidgetTriggered,
    /// An inbox was created.
    InboxCreated,
    /// An inbox changed.
    InboxUpdated,
    /// Anything else.
    Other,
}

impl Event {
    /// All of them, for metrics that exist before they count.
    pub const ALL: [Self; 13] = [
        Self::ConversationCreated,
        Self::ConversationUpdated,
        Self::ConversationStatusChanged,
        Self::ConversationTypingOn,
        Self::ConversationTypingOff,
        Self::MessageCreated,
        Self::MessageUpdated,
        Self::ContactCreated,
        Self::ContactUpdated,
        Self::WebwidgetTriggered,
        Self::InboxCreated,
        Self::InboxUpdated,
        Self::Other,
    ];

    /// Its name in webhooks; the cable writes the first underscore as a dot.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ConversationCreated => "conversation_created",
            Self::ConversationUpdated => "conversation_updated",
            Self::ConversationStatusChanged => "conversation_status_changed",
            Self::ConversationTypingOn => "conversation_typing_on",
            Self::ConversationTypingOff => "conversation_typing_off",
            Self::MessageCreated => "message_created",
            Self::MessageUpdated => "message_updated",
            Self::ContactCreated => "contact_created",
            Self::ContactUpdated => "contact_updated",
            Self::WebwidgetTriggered => "webwidget_triggered",
            Self::InboxCreated => "inbox_created",
            Self::InboxUpdated => "inbox_updated",
            Self::Other => "other",
        }
    }

    fn named(name: &str) -> Self {
        let name = name.replacen('.', "_", 1);
        Self::ALL.into_iter().find(|event| event.label() == name).unwrap_or(Self::Other)
    }

    /// Whether lists may differ after it: typing shows in none, nor does an inbox.
    const fn changes_lists(self) -> bool {
        !matches!(
            self,
            Self::ConversationTypingOn | Self::ConversationTypingOff | Self::InboxCreated | Self::InboxUpdated
        )
    }
}

/// What lists an event touches. `Debug` is for tests; nothing logs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The contact identifier in its inbox.
    pub source: Option<String>,
    /// Ids of the contact, each once; two if the event names the contact twice and differently.
    pub contacts: Vec<u64>,
    /// Account and display id of the conversation.
    pub conversation: Option<(u64, u64)>,
}

impl Touched {
    /// What another part of the event names, too; of a message, the conversation is that of its own part.
    fn add(&mut self, more: Self) {
        self.source = more.source.or(self.source.take());
        self.conversation = more.conversation.or(self.conversation);
        self.contacts.extend(more.contacts);
        self.contacts.sort_unstable();
        self.contacts.dedup();
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.contacts.is_empty() && self.conversation.is_none()
    }
}

impl Heard {
    /// Of which contacts it may tell that they were merged, or got another source.
    pub fn identities(&self) -> impl Iterator<Item = Scope<'_>> {
        let moves = match self.event {
            Event::ContactCreated | Event::ContactUpdated => true,
            Event::Other => self.touched.conversation.is_none(),
            _ => false,
        };
        self.touched.contacts.iter().filter(move |_| moves).map(|id| Scope::Identity(*id))
    }

    /// Whether it could have told of a message: only such an event proves that such events arrive.
    pub fn tells_of_messages(&self) -> bool {
        self.event == Event::MessageCreated && !self.touched.is_empty()
    }
}

/// An event that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which one.
    pub event: Event,
    /// Whether lists may differ after it.
    pub changes_lists: bool,
    /// Which lists.
    pub touched: Touched,
    /// The message that it tells of, if it tells of one.
    pub message: Option<u64>,
    /// When it happened by the application's own clock, in milliseconds since 1970, if the event says so.
    pub happened: Option<u64>,
}

/// Where a webhook has what is read of it (`api.md` section 7.3).
const OF_WEBHOOK: [Path; 15] = [
    &["event"],
    &["private"],
    &["created_at"],
    &["updated_at"],
    &["account", "id"],
    &["id"],
    &["contact_inbox", "source_id"],
    &["contact_inbox", "contact_id"],
    &["meta", "sender", "id"],
    &["conversation", "id"],
    &["conversation", "contact_inbox", "source_id"],
    &["conversation", "contact_inbox", "contact_id"],
    &["conversation", "meta", "sender", "id"],
    &["source_id"],
    &["contact", "id"],
];
const CONVERSATION: Path = &["conversation"];

/// Where a text message of the cable has it (section 8).
const OF_CABLE: [Path; 14] = [
    &["identifier"],
    &["message", "event"],
    &["message", "data", "private"],
    &["message", "data", "created_at"],
    &["message", "data", "updated_at"],
    &["message", "data", "account_id"],
    &["message", "data", "conversation_id"],
    &["message", "data", "sender_type"],
    &["message", "data", "sender_id"],
    &["message", "data", "conversation", "contact_inbox", "source_id"],
    &["message", "data", "id"],
    &["message", "data", "contact_inbox", "source_id"],
    &["message", "data", "contact_inbox", "contact_id"],
    &["message", "data", "meta", "sender", "id"],
];
const DATA: Path = &["message", "data"];

/// Reads the body of a webhook. `None`: it is not a JSON object with the name of an event.
pub fn of_webhook(body: &[u8]) -> Option<Heard> {
    let found = Found::in_text(std::str::from_utf8(body).ok()?, &OF_WEBHOOK)?;
    let payload = found.below(&[]);
    let event = Event::named(&payload.at(&["event"])?.text()?);
    Some(match event {
        Event::MessageCreated | Event::MessageUpdated => {
            let touched = of_conversation(found.below(CONVERSATION), payload.at(&["account", "id"]));
            let happened = if event == Event::MessageCreated { payload.at(&["created_at"]) } else { None };
            let private = payload.at(&["private"]).is_some_and(|private| private.0 == "true");
            let message = payload.at(&["id"]).and_then(Json::id);
            Heard { event, changes_lists: !private, touched, message, happened: happened.and_then(Json::time) }
        }
        Event::ContactCreated | Event::ContactUpdated => {
            let touched =
                Touched { contacts: Vec::from_iter(payload.at(&["id"]).and_then(Json::id)), ..Touched::default() };
            Heard { event, changes_lists: true, touched, message: None, happened: None }
        }
        Event::WebwidgetTriggered => {
            let source = payload.at(&["source_id"]).and_then(Json::text);
            let contacts = Vec::from_iter(payload.at(&["contact", "id"]).and_then(Json::id));
            Heard {
                event,
                changes_lists: true,
                touched: Touched { source, contacts, conversation: None },
                message: None,
                happened: None,
            }
        }
        Event::Other => {
            let mut touched = of_conversation(payload, payload.at(&["account", "id"]));
            let of_message = of_conversation(found.below(CONVERSATION), payload.at(&["account", "id"]));
            touched.add(of_message);
            touched.add(Touched {
                contacts: Vec::from_iter(payload.at(&["contact", "id"]).and_then(Json::id)),
                ..Touched::default()
            });
            of_unknown_event(touched)
        }
        _ => of_conversation_event(event, payload, &["account", "id"]),
    })
}

/// What a text message of the cable says, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overheard {
    /// The event.
    pub heard: Heard,
    /// The token of the contact to whom it goes. An agent's subscription names its user: what it hears is about any
    /// contact.
    pub subscriber: Option<String>,
}

/// Reads a text message of the cable, once from its beginning to its end: long ones come, and other requests wait
/// meanwhile. `None`: it tells of no event; most say only that the server is there.
pub fn of_cable(text: &str) -> Option<Overheard> {
    let found = Found::in_text(text, &OF_CABLE)?;
    let event = Event::named(&found.below(&[]).at(&["message", "event"])?.text()?);
    let data = found.below(DATA);
    let heard = match event {
        Event::MessageCreated | Event::MessageUpdated => {
            let source = data.at(&["conversation", "contact_inbox", "source_id"]).and_then(Json::text);
            let by_contact = data.at(&["sender_type"]).and_then(Json::text).is_some_and(|kind| kind == "Contact");
            let contact = data.at(&["sender_id"]).filter(|_| by_contact).and_then(Json::id);
            let account = data.at(&["account_id"]).and_then(Json::id);
            let conversation = account.zip(data.at(&["conversation_id"]).and_then(Json::id));
            let private = data.at(&["private"]).is_some_and(|private| private.0 == "true");
            let touched = Touched { source, contacts: Vec::from_iter(contact), conversation };
            let happened = if event == Event::MessageCreated { data.at(&["created_at"]) } else { None };
            let message = data.at(&["id"]).and_then(Json::id);
            Heard { event, changes_lists: !private, touched, message, happened: happened.and_then(Json::time) }
        }
        // Contacts do not hear of these, agents do (`api.md` section 8).
        Event::ContactCreated | Event::ContactUpdated => {
            let touched =
                Touched { contacts: Vec::from_iter(data.at(&["id"]).and_then(Json::id)), ..Touched::default() };
            Heard { event, changes_lists: true, touched, message: None, happened: None }
        }
        // The cable has many names of its own, which tell of nothing that a list shows (`api.md` section 8).
        Event::Other => Heard { changes_lists: false, ..of_conversation_event(event, data, &["account_id"]) },
        _ => of_conversation_event(event, data, &["account_id"]),
    };
    Some(Overheard { heard, subscriber: found.below(&[]).at(&["identifier"]).and_then(token) })
}

/// A contact's token in the identifier of a subscription: JSON in a string, echoed as the client wrote it.
fn token(identifier: Json<'_>) -> Option<String> {
    let identifier = identifier.text()?;
    let found = Found::in_text(&identifier, &[&["user_id"], &["pubsub_token"]])?;
    let channel = found.below(&[]);
    // The application takes an empty one for none.
    if channel.at(&["user_id"]).is_some_and(|user| !matches!(user.0, "null" | "\"\"")) {
        return None;
    }
    channel.at(&["pubsub_token"])?.text()
}

/// An event whose name nobody knows, such as those of automation rules and macros (`api.md` section 7.1): what it names
/// may have changed. An `id` alone may be that of anything.
fn of_unknown_event(touched: Touched) -> Heard {
    let names_anybody = touched.source.is_some() || !touched.contacts.is_empty();
    let touched = if names_anybody { touched } else { Touched::default() };
    Heard { event: Event::Other, changes_lists: names_anybody, touched, message: None, happened: None }
}

fn of_conversation_event(event: Event, payload: Below<'_, '_>, account: &[&str]) -> Heard {
    // Typing events have it one step deeper in webhooks; they change nothing.
    let touched = of_conversation(payload, payload.at(account));
    let happened = payload.at(&["updated_at"]).and_then(Json::time);
    Heard { event, changes_lists: event.changes_lists(), touched, message: None, happened }
}

/// A conversation as webhooks and the cable show it.
fn of_conversation(conversation: Below<'_, '_>, account: Option<Json<'_>>) -> Touched {
    let source = conversation.at(&["contact_inbox", "source_id"]).and_then(Json::text);
    let places: [&[&str]; 2] = [&["meta", "sender", "id"], &["contact_inbox", "contact_id"]];
    let mut contacts: Vec<u64> = places.iter().filter_map(|place| conversation.at(place).and_then(Json::id)).collect();
    contacts.dedup();
    let display = conversation.at(&["id"]).and_then(Json::id);
    Touched { source, contacts, conversation: account.and_then(Json::id).zip(display) }
}

#[cfg(test)]
mod tests;

//! What an event of the application says has changed: a webhook, or a frame of the cable.
//!
//! Read with care: only what is named in the tables below, each place for itself, so that a wrong shape in one place
//! loses nothing of the others. The keys are those of `api.md` section 7.3 and 8; a message's own `source_id` is not
//! the contact's.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

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
            Self::ConversationTypingOn
                | Self::ConversationTypingOff
                | Self::InboxCreated
                | Self::InboxUpdated
                | Self::Other
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
    /// What is out of date. A contact with an identifier in several inboxes may see the conversation in each of their
    /// lists: the contact's id stands for them all. If the event names none, those that have the conversation already
    /// are known by it; large ones do not name theirs.
    pub fn scopes(&self) -> impl Iterator<Item = Scope<'_>> {
        let source = self.source.as_deref().map(Scope::Source);
        let contacts = self.contacts.iter().map(|id| Scope::Contact(*id));
        let conversation = self.conversation.map(|(account, display)| Scope::AccountConversation(account, display));
        let any = self.conversation.filter(|_| self.contacts.is_empty()).map(|_| Scope::AnyConversation);
        source.into_iter().chain(contacts).chain(conversation).chain(any)
    }

    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.contacts.is_empty() && self.conversation.is_none()
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
    /// When it happened by the application's own clock, in milliseconds since 1970, if the event says so.
    pub happened: Option<u64>,
}

/// Reads the body of a webhook. `None`: it is not a JSON object with the name of an event.
pub fn of_webhook(body: &[u8]) -> Option<Heard> {
    let payload = Json::parse(std::str::from_utf8(body).ok()?)?;
    let event = Event::named(&payload.at(&["event"])?.text()?);
    Some(match event {
        Event::MessageCreated | Event::MessageUpdated => {
            let conversation = payload.at(&["conversation"]);
            let mut touched = Touched::default();
            if let Some(conversation) = conversation {
                touched = of_conversation(conversation, payload.at(&["account", "id"]));
            }
            let happened = if event == Event::MessageCreated { payload.at(&["created_at"]) } else { None };
            let private = payload.at(&["private"]).is_some_and(|private| private.0 == "true");
            Heard { event, changes_lists: !private, touched, happened: happened.and_then(Json::time) }
        }
        Event::ContactCreated | Event::ContactUpdated => {
            let touched = Touched { contacts: Vec::from_iter(payload.at(&["id"]).and_then(Json::id)), ..Touched::default() };
            Heard { event, changes_lists: true, touched, happened: None }
        }
        Event::WebwidgetTriggered => {
            let source = payload.at(&["source_id"]).and_then(Json::text);
            let contacts = Vec::from_iter(payload.at(&["contact", "id"]).and_then(Json::id));
            Heard { event, changes_lists: true, touched: Touched { source, contacts, conversation: None }, happened: None }
        }
        _ => of_conversation_event(event, payload, &["account", "id"]),
    })
}

/// Reads a text message of the cable. `None`: it tells of no event; most say only that the server is there.
pub fn of_cable(text: &str) -> Option<Heard> {
    let message = Json::parse(text)?.at(&["message"])?;
    let event = Event::named(&message.at(&["event"])?.text()?);
    let data = message.at(&["data"])?;
    Some(match event {
        Event::MessageCreated | Event::MessageUpdated => {
            let source = data.at(&["conversation", "contact_inbox", "source_id"]).and_then(Json::text);
            let by_contact = data.at(&["sender_type"]).and_then(Json::text).is_some_and(|kind| kind == "Contact");
            let contact = data.at(&["sender_id"]).filter(|_| by_contact).and_then(Json::id);
            let account = data.at(&["account_id"]).and_then(Json::id);
            let conversation = account.zip(data.at(&["conversation_id"]).and_then(Json::id));
            let private = data.at(&["private"]).is_some_and(|private| private.0 == "true");
            let touched = Touched { source, contacts: Vec::from_iter(contact), conversation };
            let happened = if event == Event::MessageCreated { data.at(&["created_at"]) } else { None };
            Heard { event, changes_lists: !private, touched, happened: happened.and_then(Json::time) }
        }
        // Contacts do not hear of these, agents do (`api.md` section 8).
        Event::ContactCreated | Event::ContactUpdated => {
            let touched = Touched { contacts: Vec::from_iter(data.at(&["id"]).and_then(Json::id)), ..Touched::default() };
            Heard { event, changes_lists: true, touched, happened: None }
        }
        _ => of_conversation_event(event, data, &["account_id"]),
    })
}

/// The token of the contact to whom a text message of the cable goes. An agent's subscription names its user: what it
/// hears is about any contact.
pub fn subscriber(text: &str) -> Option<String> {
    let identifier = Json::parse(text)?.at(&["identifier"])?.text()?;
    let channel = Json::parse(&identifier)?;
    if channel.at(&["user_id"]).is_some_and(|user| user.0 != "null") {
        return None;
    }
    channel.at(&["pubsub_token"])?.text()
}

fn of_conversation_event(event: Event, payload: Json<'_>, account: &[&str]) -> Heard {
    // Typing events have it one step deeper in webhooks; they change nothing.
    let touched = of_conversation(payload, payload.at(account));
    let happened = payload.at(&["updated_at"]).and_then(Json::time);
    Heard { event, changes_lists: event.changes_lists(), touched, happened }
}

/// A conversation as webhooks and the cable show it.
fn of_conversation(conversation: Json<'_>, account: Option<Json<'_>>) -> Touched {
    let source = conversation.at(&["contact_inbox", "source_id"]).and_then(Json::text);
    let places: [&[&str]; 2] = [&["meta", "sender", "id"], &["contact_inbox", "contact_id"]];
    let mut contacts: Vec<u64> =
        places.iter().filter_map(|place| conversation.at(place).and_then(Json::id)).collect();
    contacts.dedup();
    let display = conversation.at(&["id"]).and_then(Json::id);
    Touched { source, contacts, conversation: account.and_then(Json::id).zip(display) }
}

/// A JSON value as it stands in the text.
#[derive(Clone, Copy)]
struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// The text, if it is one JSON value.
    fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str::<&RawValue>(text).ok().map(|raw| Self(raw.get()))
    }

    /// What stands at the end of a path of keys; of two members with one name the later one, as most readers have it.
    fn at(self, path: &[&str]) -> Option<Self> {
        path.iter().try_fold(self, |json, key| {
            let member = Member(key);
            serde_json::Deserializer::from_str(json.0).deserialize_map(member).ok().flatten()
        })
    }

    /// A string, or a number as one.
    fn text(self) -> Option<String> {
        if self.0.starts_with('"') { serde_json::from_str(self.0).ok() } else { self.id().map(|id| id.to_string()) }
    }

    /// A whole number, or a string of one.
    fn id(self) -> Option<u64> {
        self.0.trim_matches('"').parse().ok()
    }

    /// Milliseconds since 1970, from seconds or from `2026-06-11T13:02:30.000Z`.
    fn time(self) -> Option<u64> {
        if self.0.starts_with('"') {
            return super::times::from_iso(&self.text()?);
        }
        let seconds: f64 = self.0.parse().ok()?;
        super::times::from_seconds(seconds)
    }
}

/// Looks for one member of an object.
struct Member<'k>(&'k str);

impl<'a> Visitor<'a> for Member<'_> {
    type Value = Option<Json<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                found = Some(Json(map.next_value::<&RawValue>()?.get()));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;

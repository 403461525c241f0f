//! Who is told of what, and in which shape: contacts over the WebSocket, other programs by webhook.
//!
//! Shapes and key order are those of the real service. A webhook has underscores where the WebSocket has dots.

use super::account::ACCOUNT;
use super::data::{Contact, Conversation, Event, Message, Sender, World};
use super::json::{Map, Value, json};
use super::outbox::About;
use super::render::{contact_sender, conversation_data, conversation_event, message_event, to_json};
use super::stamps::iso;

/// Something that happens, under both its names.
#[derive(Clone, Copy)]
pub(super) struct Name {
    cable: &'static str,
    webhook: &'static str,
}

impl Name {
    pub(super) const MESSAGE_CREATED: Self = Self { cable: "message.created", webhook: "message_created" };
    pub(super) const MESSAGE_UPDATED: Self = Self { cable: "message.updated", webhook: "message_updated" };
    pub(super) const CONVERSATION_CREATED: Self =
        Self { cable: "conversation.created", webhook: "conversation_created" };
    pub(super) const CONVERSATION_UPDATED: Self =
        Self { cable: "conversation.updated", webhook: "conversation_updated" };
    pub(super) const STATUS_CHANGED: Self =
        Self { cable: "conversation.status_changed", webhook: "conversation_status_changed" };
    const TYPING_ON: Self = Self { cable: "conversation.typing_on", webhook: "conversation_typing_on" };
    const TYPING_OFF: Self = Self { cable: "conversation.typing_off", webhook: "conversation_typing_off" };
}

impl World {
    /// Tells of a message. Contacts hear nothing of private notes, and nobody of activity messages.
    pub(super) fn tell_message(&self, id: i64, message_id: i64, name: Name) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let Some(message) = conversation.messages.iter().find(|it| it.id == message_id) else { return };
        // Rendering is not free: seeding must not pay for listeners that are not there.
        if message.is_chat() && self.events.receiver_count() > 0 {
            let data = message_event(self, conversation, message);
            let _ = self.events.send(Event::Changed { tokens: self.tokens(conversation), name: name.cable, data });
        }
        if message.message_type != 2 && self.outbox.is_wanted(name.webhook, Some(conversation.inbox_id)) {
            let about = Some((id, message_id));
            let mut payload = message_webhook(self, conversation, message);
            payload["event"] = json!(name.webhook);
            self.put(name.webhook, Some(conversation.inbox_id), about, &payload);
        }
    }

    /// Tells of a conversation; `changed` is what a webhook says about the change itself.
    pub(super) fn tell_conversation(&self, id: i64, name: Name, changed: Option<&Value>) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if self.events.receiver_count() > 0 {
            let data = conversation_event(self, conversation);
            let _ = self.events.send(Event::Changed { tokens: self.tokens(conversation), name: name.cable, data });
        }
        if self.outbox.is_wanted(name.webhook, Some(conversation.inbox_id)) {
            let mut payload = conversation_webhook(self, conversation);
            payload.insert("event".to_owned(), json!(name.webhook));
            if let Some(changed) = changed {
                payload.insert("changed_attributes".to_owned(), changed.clone());
            }
            self.put(name.webhook, Some(conversation.inbox_id), None, &Value::Object(payload));
        }
    }

    /// Tells that somebody types or has stopped. Who types does not hear it himself.
    pub(super) fn tell_typing(&self, id: i64, typist: &Sender, on: bool) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let name = if on { Name::TYPING_ON } else { Name::TYPING_OFF };
        if self.events.receiver_count() > 0 && !matches!(typist, Sender::Contact) {
            let user = match typist {
                Sender::Agent(id) => json!(self.agents.get(id)),
                _ => json!(self.contacts.get(&conversation.contact_id).map(contact_sender)),
            };
            let data = json!({
                "conversation": conversation_data(self, conversation), "user": user, "is_private": false,
                "account_id": ACCOUNT,
            });
            let _ = self.events.send(Event::Changed { tokens: self.tokens(conversation), name: name.cable, data });
        }
        if self.outbox.is_wanted(name.webhook, Some(conversation.inbox_id)) {
            let payload = json!({
                "event": name.webhook,
                "user": sender_webhook(self, conversation, typist),
                "conversation": conversation_webhook(self, conversation),
                "is_private": false,
            });
            self.put(name.webhook, Some(conversation.inbox_id), None, &payload);
        }
    }

    /// Tells the webhooks of the account that there is a new contact.
    pub(super) fn tell_new_contact(&self, id: i64) {
        let Some(contact) = self.contacts.get(&id) else { return };
        if self.outbox.is_wanted("contact_created", None) {
            let mut payload = contact_webhook(contact);
            payload.insert("event".to_owned(), json!("contact_created"));
            self.put("contact_created", None, None, &Value::Object(payload));
        }
    }

    /// The contact as it is now, to be compared after a change; `None` if nobody wants to know.
    pub(super) fn before_change(&self, id: i64) -> Option<Contact> {
        self.contacts.get(&id).filter(|_| self.outbox.is_wanted("contact_updated", None)).cloned()
    }

    /// Tells the webhooks of the account what has changed of a contact, if anything has. Contacts hear nothing.
    pub(super) fn tell_contact(&self, before: Option<&Contact>) {
        let Some(before) = before else { return };
        let Some(contact) = self.contacts.get(&before.id) else { return };
        let changed = changes(before, contact);
        if !changed.is_empty() {
            let mut payload = contact_webhook(contact);
            payload.insert("event".to_owned(), json!("contact_updated"));
            payload.insert("changed_attributes".to_owned(), Value::Array(changed));
            self.put("contact_updated", None, None, &Value::Object(payload));
        }
    }

    fn put(&self, event: &'static str, inbox_id: Option<i64>, about: Option<About>, payload: &Value) {
        self.outbox.put(event, inbox_id, about, &to_json(payload));
    }
}

/// One change as webhooks write it.
pub(super) fn change(name: &str, before: &Value, now: &Value) -> Value {
    json!({ name: { "previous_value": before, "current_value": now } })
}

/// What differs between two states of a contact, in the order of the columns, the time of the change last.
pub(super) fn changes(before: &Contact, now: &Contact) -> Vec<Value> {
    let (before, now) = (json!(before), json!(now));
    let columns = now.as_object().into_iter().flatten().map(|(name, value)| (name, &before[name.as_str()], value));
    let (mut changed, times): (Vec<_>, Vec<_>) =
        columns.filter(|(_, before, now)| before != now).partition(|(name, ..)| *name != "updated_at");
    changed.extend(times);
    changed.into_iter().map(|(name, before, now)| change(name, before, now)).collect()
}

fn account() -> Value {
    json!({ "id": ACCOUNT, "name": "Example Store" })
}

fn object(value: Value) -> Map {
    let Value::Object(object) = value else { unreachable!("written as an object") };
    object
}

fn contact_webhook(contact: &Contact) -> Map {
    object(json!({
        "account": account(),
        "additional_attributes": contact.additional_attributes,
        "avatar": contact.thumbnail,
        "custom_attributes": contact.custom_attributes,
        "email": contact.email,
        "id": contact.id,
        "identifier": contact.identifier,
        "name": contact.name,
        "phone_number": contact.phone_number,
        "thumbnail": contact.thumbnail,
        "blocked": contact.blocked,
    }))
}

/// Senders in webhooks are not those of the list.
fn sender_webhook(world: &World, conversation: &Conversation, sender: &Sender) -> Value {
    match sender {
        Sender::Nobody => Value::Null,
        Sender::Contact => json!(world.contacts.get(&conversation.contact_id).map(contact_webhook)),
        Sender::Agent(id) => json!(world.agents.get(id).map(|agent| {
            let mailbox = agent.name.to_lowercase().replace(' ', ".");
            json!({
                "id": agent.id, "name": agent.name, "email": format!("{mailbox}@example.test"), "type": agent.kind,
            })
        })),
        Sender::Other(it) => json!({ "id": it["id"], "name": it["name"], "type": it["type"] }),
    }
}

fn conversation_webhook(world: &World, it: &Conversation) -> Map {
    let mut payload = object(conversation_data(world, it));
    let answer = it.messages.iter().find(|it| it.message_type == 1 && !it.private);
    payload["first_reply_created_at"] = json!(answer.map(|it| iso(it.created_at * 1000)));
    // The only time with a fraction.
    let seconds = payload["updated_at"].as_f64();
    payload["updated_at"] = json!(seconds);
    payload.insert("account".to_owned(), account());
    payload
}

fn message_webhook(world: &World, conversation: &Conversation, it: &Message) -> Value {
    let inbox = world.inbox_by_id(conversation.inbox_id).ok();
    let kind = ["incoming", "outgoing", "activity", "template"];
    let kind = usize::try_from(it.message_type).ok().and_then(|at| kind.get(at));
    let mut payload = json!({
        "account": account(),
        "additional_attributes": {},
        "content_attributes": it.content_attributes,
        "content_type": it.content_type,
        "content": it.content,
        "conversation": conversation_webhook(world, conversation),
        "created_at": iso(it.created_at * 1000),
        "id": it.id,
        "inbox": inbox.map(|inbox| json!({ "id": inbox.id, "name": inbox.name })),
        "message_type": kind,
        "private": it.private,
        "sender": sender_webhook(world, conversation, &it.sender),
        "source_id": null,
    });
    if !it.attachments.is_empty() {
        payload["attachments"] = json!(it.attachments);
    }
    payload
}

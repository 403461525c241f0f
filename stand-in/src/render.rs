//! JSON exactly as the real service writes it: key order, escapes, what is absent and what is null.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::account::ACCOUNT;
use super::data::{Agent, Contact, ContactInbox, Conversation, Inbox, Message, Sender, Status, World};
use super::json::{Value, json};
use super::stamps::iso;

/// Compact JSON with the characters escaped that Rails escapes.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    let mut serializer = Serializer::with_formatter(&mut bytes, Rails);
    value.serialize(&mut serializer).expect("plain data serialises into memory");
    bytes.into()
}

struct Rails;

impl Formatter for Rails {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let special = rest[at..].chars().next().expect("found there");
            writer.write_all(&rest.as_bytes()[..at])?;
            write!(writer, "\\u{:04x}", u32::from(special))?;
            rest = &rest[at + special.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[derive(Serialize)]
struct ConversationView<'a> {
    id: i64,
    uuid: &'a str,
    inbox_id: i64,
    contact_last_seen_at: i64,
    status: Status,
    agent_last_seen_at: i64,
    messages: Vec<MessageView<'a>>,
    contact: Option<&'a Contact>,
}

#[derive(Serialize)]
struct MessageView<'a> {
    id: i64,
    content: Option<&'a str>,
    message_type: i64,
    content_type: &'a str,
    content_attributes: &'a Value,
    created_at: i64,
    conversation_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<&'a [Value]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<SenderView<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SenderView<'a> {
    Contact(ContactSender<'a>),
    Agent(&'a Agent),
    Other(&'a Value),
}

#[derive(Serialize)]
struct ContactSender<'a> {
    additional_attributes: &'a Value,
    custom_attributes: &'a Value,
    email: Option<&'a str>,
    id: i64,
    identifier: Option<&'a str>,
    name: Option<&'a str>,
    phone_number: Option<&'a str>,
    thumbnail: &'a str,
    blocked: bool,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    company_id: Option<Value>,
}

/// A contact as a sender.
pub(super) fn contact_sender(contact: &Contact) -> impl Serialize + '_ {
    sender_of(contact)
}

fn sender_of(contact: &Contact) -> ContactSender<'_> {
    ContactSender {
        additional_attributes: &contact.additional_attributes,
        custom_attributes: &contact.custom_attributes,
        email: contact.email.as_deref(),
        id: contact.id,
        identifier: contact.identifier.as_deref(),
        name: contact.name.as_deref(),
        phone_number: contact.phone_number.as_deref(),
        thumbnail: &contact.thumbnail,
        blocked: contact.blocked,
        kind: "contact",
        company_id: contact.company_in_sender.then(|| json!(contact.company_id)),
    }
}

fn message_view<'a>(world: &'a World, conversation: &Conversation, message: &'a Message) -> MessageView<'a> {
    let sender = match &message.sender {
        Sender::Nobody => None,
        Sender::Contact => world.contacts.get(&conversation.contact_id).map(sender_of).map(SenderView::Contact),
        Sender::Agent(id) => world.agents.get(id).map(SenderView::Agent),
        Sender::Other(value) => Some(SenderView::Other(value)),
    };
    MessageView {
        id: message.id,
        content: message.content.as_deref(),
        message_type: message.message_type,
        content_type: &message.content_type,
        content_attributes: &message.content_attributes,
        created_at: message.created_at,
        conversation_id: conversation.id,
        attachments: (!message.attachments.is_empty()).then_some(&message.attachments),
        sender,
    }
}

fn conversation_view<'a>(world: &'a World, it: &'a Conversation) -> ConversationView<'a> {
    let chat = it.messages.iter().filter(|message| message.is_chat());
    ConversationView {
        id: it.id,
        uuid: &it.uuid,
        inbox_id: it.inbox_id,
        contact_last_seen_at: it.contact_last_seen_at,
        status: it.status,
        agent_last_seen_at: it.agent_last_seen_at,
        messages: chat.map(|message| message_view(world, it, message)).collect(),
        contact: world.contacts.get(&it.contact_id),
    }
}

/// The list.
pub(super) fn list(world: &World, conversations: &[&Conversation]) -> Bytes {
    to_json(&conversations.iter().map(|it| conversation_view(world, it)).collect::<Vec<_>>())
}

/// One conversation, as the list has it.
pub(super) fn conversation(world: &World, it: &Conversation) -> Bytes {
    to_json(&conversation_view(world, it))
}

/// One message, as the list has it.
pub(super) fn message(world: &World, conversation: &Conversation, it: &Message) -> Bytes {
    to_json(&message_view(world, conversation, it))
}

/// The newest 20 messages older than `before`, ascending.
pub(super) fn messages(world: &World, conversation: &Conversation, before: Option<i64>) -> Bytes {
    let chat = conversation.messages.iter().filter(|it| it.is_chat() && before.is_none_or(|before| it.id < before));
    let chat: Vec<_> = chat.collect();
    let newest = &chat[chat.len().saturating_sub(20)..];
    to_json(&newest.iter().map(|it| message_view(world, conversation, it)).collect::<Vec<_>>())
}

/// A contact as the contact routes show it, with its credentials.
pub(super) fn contact(source_id: &str, contact_inbox: &ContactInbox, contact: &Contact) -> Bytes {
    to_json(&json!({
        "source_id": source_id,
        "pubsub_token": contact_inbox.pubsub_token,
        "id": contact.id,
        "name": contact.name,
        "email": contact.email,
        "phone_number": contact.phone_number,
    }))
}

/// The inbox.
pub(super) fn inbox(inbox: &Inbox) -> Bytes {
    let hours = |day: i64| {
        let closed = day == 0 || day == 6;
        json!({
            "day_of_week": day, "closed_all_day": closed,
            "open_hour": (!closed).then_some(9), "open_minutes": (!closed).then_some(0),
            "close_hour": (!closed).then_some(17), "close_minutes": (!closed).then_some(0),
            "open_all_day": false,
        })
    };
    to_json(&json!({
        "identifier": inbox.identifier,
        "identity_validation_enabled": false,
        "name": inbox.name,
        "timezone": "UTC",
        "working_hours": (0..7).map(hours).collect::<Vec<_>>(),
        "working_hours_enabled": false,
        "csat_survey_enabled": true,
        "greeting_enabled": inbox.greeting.is_some(),
    }))
}

/// The survey of a conversation.
pub(super) fn csat(inbox: &Inbox, conversation: &Conversation, survey: &Message) -> Bytes {
    let response = &survey.content_attributes["submitted_values"]["csat_survey_response"];
    to_json(&json!({
        "id": survey.id,
        "csat_survey_response": response,
        "display_type": survey.content_attributes.get("display_type"),
        "content": survey.content,
        "inbox_avatar_url": "",
        "inbox_name": inbox.name,
        "locale": "en",
        "conversation_id": conversation.id,
        "created_at": survey.created_at,
    }))
}

fn last_activity(conversation: &Conversation) -> i64 {
    conversation.messages.last().map_or(conversation.created_at, |message| message.created_at)
}

/// What a `message.*` event carries; also the answer of the agents' message route.
pub(super) fn message_event(world: &World, conversation: &Conversation, message: &Message) -> Value {
    let view = message_view(world, conversation, message);
    let (sender_type, sender_id) = match &message.sender {
        Sender::Contact => ("Contact", Some(conversation.contact_id)),
        Sender::Agent(id) => ("User", Some(*id)),
        Sender::Nobody | Sender::Other(_) => ("", None),
    };
    let status = match message.content_attributes.get("external_error") {
        Some(error) if !error.is_null() => "failed",
        _ if message.is_read => "read",
        _ => "sent",
    };
    let mut data = json!({
        "id": message.id,
        "content": message.content,
        "account_id": ACCOUNT,
        "inbox_id": conversation.inbox_id,
        "conversation_id": conversation.id,
        "message_type": message.message_type,
        "created_at": message.created_at,
        "updated_at": message.updated_at,
        "private": message.private,
        "status": status,
        "source_id": null,
        "content_type": message.content_type,
        "content_attributes": message.content_attributes,
        "sender_type": sender_id.map(|_| sender_type),
        "sender_id": sender_id,
        "external_source_ids": {},
        "additional_attributes": {},
        "processed_message_content": message.content,
        "sentiment": {},
        "conversation": {
            "assignee_id": world.agents.keys().next(),
            "unread_count": 0,
            "last_activity_at": last_activity(conversation),
            "contact_inbox": { "source_id": conversation.source_id },
        },
    });
    if let Some(attachments) = view.attachments {
        data["attachments"] = json!(attachments);
    }
    if let Some(sender) = view.sender {
        data["sender"] = Value::of(&sender);
    }
    data
}

/// What a `conversation.*` event carries.
pub(super) fn conversation_event(world: &World, it: &Conversation) -> Value {
    let mut data = conversation_data(world, it);
    data["account_id"] = json!(ACCOUNT);
    data
}

/// A conversation as events and webhooks both have it.
pub(super) fn conversation_data(world: &World, it: &Conversation) -> Value {
    let newest = it.messages.iter().rev().find(|message| message.is_chat());
    let newest = newest.map(|message| message_event(world, it, message));
    let verified = world.contact_inbox(it.inbox_id, &it.source_id);
    let contact_inbox = verified.map(|own| {
        json!({
            "id": own.id, "contact_id": own.contact_id, "inbox_id": it.inbox_id, "source_id": it.source_id,
            "created_at": iso(it.created_at * 1000), "updated_at": iso(it.created_at * 1000),
            "hmac_verified": own.hmac_verified, "pubsub_token": own.pubsub_token,
        })
    });
    let assignee = world.agents.values().next();
    json!({
        "additional_attributes": {},
        "can_reply": true,
        "channel": "Channel::Api",
        "contact_inbox": contact_inbox.ok(),
        "id": it.id,
        "inbox_id": it.inbox_id,
        "messages": Vec::from_iter(newest),
        "labels": [],
        "meta": {
            "sender": world.contacts.get(&it.contact_id).map(sender_of),
            "assignee": assignee,
            "assignee_type": assignee.map(|_| "User"),
            "team": null,
            "hmac_verified": verified.is_ok_and(|own| own.hmac_verified),
        },
        "status": it.status,
        "custom_attributes": it.custom_attributes,
        "snoozed_until": null,
        "unread_count": 0,
        "first_reply_created_at": null,
        "priority": null,
        "waiting_since": 0,
        "agent_last_seen_at": it.agent_last_seen_at,
        "contact_last_seen_at": it.contact_last_seen_at,
        "last_activity_at": last_activity(it),
        "timestamp": last_activity(it),
        "created_at": it.created_at,
        "updated_at": last_activity(it),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_rails_escapes_and_nothing_else() {
        let json = to_json(&json!({"b": "<a href=\"x\">&\u{2028}\u{2029}é🚚</a>", "a": 1280.0}));
        let expected = r#"{"b":"\u003ca href=\"x\"\u003e\u0026\u2028\u2029é🚚\u003c/a\u003e","a":1280.0}"#;
        assert_eq!(json, expected);
    }
}

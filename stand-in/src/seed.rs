//! What the account holds when it opens, and more of it on request.

use serde::Deserialize;

use super::account::{INBOX, INBOX_ID, OTHER_INBOX, OTHER_INBOX_ID};
use super::data::{Agent, Contact, Conversation, Inbox, Message, Sender, Status, World};
use super::json::{Value, json};
use super::stamps::iso;
use super::writes::{ContactFields, Draft};

/// How much to seed: `conversations` of `messages` each, every message with about `bytes` of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Conversations to add.
    pub conversations: usize,
    /// Messages in each of them, from the contact and an agent in turn.
    pub messages: usize,
    /// Bytes of text in each message.
    pub bytes: usize,
}

const TYPICAL: &str = include_str!("samples/typical.json");
const EDGE_CASES: &str = include_str!("samples/edge-cases.json");

#[derive(Deserialize)]
struct SampleConversation {
    id: i64,
    uuid: String,
    inbox_id: i64,
    contact_last_seen_at: i64,
    status: Status,
    agent_last_seen_at: i64,
    messages: Vec<SampleMessage>,
    contact: Contact,
}

#[derive(Deserialize)]
struct SampleMessage {
    id: i64,
    content: Option<String>,
    message_type: i64,
    content_type: String,
    content_attributes: Value,
    created_at: i64,
    #[serde(default)]
    attachments: Vec<Value>,
    sender: Option<Value>,
}

/// The account as it opens.
pub(super) fn open(world: &mut World) {
    for (id, identifier, name) in [(INBOX_ID, INBOX, "App chat"), (OTHER_INBOX_ID, OTHER_INBOX, "Web shop")] {
        let (identifier, name) = (identifier.to_owned(), name.to_owned());
        world.inboxes.push(Inbox { id, identifier, name, greeting: None, single_conversation: false });
    }
    import(world, "visitor-a", TYPICAL);
    import(world, "visitor-b", EDGE_CASES);
    world.verify(INBOX_ID, "visitor-b").expect("just imported");
    for (source_id, name) in [("visitor-c", "Sample Visitor C"), ("phone:+15550100003", "Sample Visitor D")] {
        let fields = ContactFields { name: Some(name.to_owned()), ..ContactFields::default() };
        world.create_contact(INBOX_ID, Some(source_id.to_owned()), fields);
    }
}

/// Takes a sample list over as the list of `source_id`.
fn import(world: &mut World, source_id: &str, sample: &str) {
    let sample: Vec<SampleConversation> = serde_json::from_str(sample).expect("the sample is a list");
    for conversation in sample {
        let mut contact = conversation.contact;
        let contact_id = contact.id;
        if world.contact_inbox(conversation.inbox_id, source_id).is_err() {
            world.attach(conversation.inbox_id, source_id, contact_id);
        }
        let messages = conversation.messages.into_iter();
        let messages = messages.map(|it| import_message(world, &mut contact, it)).collect::<Vec<_>>();
        world.contacts.insert(contact_id, contact);
        world.insert_conversation(Conversation {
            id: conversation.id,
            uuid: conversation.uuid,
            inbox_id: conversation.inbox_id,
            contact_id,
            source_id: source_id.to_owned(),
            contact_last_seen_at: conversation.contact_last_seen_at,
            status: conversation.status,
            agent_last_seen_at: conversation.agent_last_seen_at,
            created_at: messages.first().map_or(1_780_000_000, |it: &Message| it.created_at),
            custom_attributes: json!({}),
            messages,
        });
    }
}

fn import_message(world: &mut World, contact: &mut Contact, it: SampleMessage) -> Message {
    let sender = match it.sender {
        None => Sender::Nobody,
        Some(sender) => match sender["type"].as_str() {
            Some("contact") => {
                sender["thumbnail"].as_str().unwrap_or_default().clone_into(&mut contact.thumbnail);
                contact.company_in_sender = sender.get("company_id").is_some();
                Sender::Contact
            }
            Some("user") => {
                let agent: Agent = sender.read().expect("the sample has an agent");
                let id = agent.id;
                world.agents.insert(id, agent);
                Sender::Agent(id)
            }
            _ => Sender::Other(sender),
        },
    };
    Message {
        id: it.id,
        content: it.content,
        message_type: it.message_type,
        content_type: it.content_type,
        content_attributes: it.content_attributes,
        created_at: it.created_at,
        updated_at: iso(it.created_at * 1000),
        private: false,
        attachments: it.attachments,
        sender,
        is_read: false,
    }
}

/// Adds conversations of a given size to `source_id`, which is created if it is new.
pub(super) fn grow(world: &mut World, inbox_id: i64, source_id: &str, shape: Shape) {
    world.create_contact(inbox_id, Some(source_id.to_owned()), ContactFields::default());
    let agent = *world.agents.keys().next().expect("the samples have agents");
    for _ in 0..shape.conversations {
        let id = world.create_conversation(inbox_id, source_id, json!({})).expect("the contact exists");
        for number in 0..shape.messages {
            let text = filler(number, shape.bytes);
            let draft = match number % 2 {
                0 => Draft::text(&text, 0, Sender::Contact),
                _ => Draft::text(&text, 1, Sender::Agent(agent)),
            };
            world.add_message(id, draft).expect("the conversation exists");
        }
    }
}

/// Exactly `bytes` of text that neither escapes nor repeats from message to message.
fn filler(number: usize, bytes: usize) -> String {
    const WORDS: &str = "the parcel left the warehouse on time and the carrier has scanned it twice since then; ";
    let start = format!("{number}: ");
    start.chars().chain(WORDS.chars().cycle()).take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::*;

    fn opened() -> World {
        let mut world = World::new("https://chat.example.test".to_owned());
        open(&mut world);
        world
    }

    fn list_text(world: &World, source_id: &str) -> String {
        let list = world.list(INBOX_ID, source_id).expect("seeded");
        String::from_utf8(render::list(world, &list).into()).expect("JSON")
    }

    #[test]
    fn samples_come_out_as_they_went_in_key_order_and_all() {
        let world = opened();
        for (source_id, sample) in [("visitor-a", TYPICAL), ("visitor-b", EDGE_CASES)] {
            let sample: Value = serde_json::from_str(sample).expect("JSON");
            let sample = render::to_json(&sample);
            let text = list_text(&world, source_id);
            let at = text.bytes().zip(&sample).position(|(one, other)| one != *other);
            assert_eq!(at, None, "{source_id}: {}", &text[at.unwrap_or(0).saturating_sub(80)..][..160]);
            assert_eq!(text.len(), sample.len());
        }
        assert_eq!(list_text(&world, "visitor-c"), "[]");
    }

    #[test]
    fn a_seeded_list_is_as_big_as_asked_for() {
        let mut world = opened();
        grow(&mut world, INBOX_ID, "big", Shape { conversations: 3, messages: 40, bytes: 1000 });
        let text = list_text(&world, "big");
        assert!((120_000..200_000).contains(&text.len()), "{} bytes", text.len());
    }
}

//! What happens behind the API's back: agents, operators and the database at work.
//!
//! All of it in [`INBOX`](super::INBOX), at once, without a request. A source id that does not exist is a mistake of
//! the test and panics; the message does not repeat it, since source ids are credentials.

use std::sync::PoisonError;

use bytes::Bytes;
use serde_json::json;

use super::data::{Event, Missing, Sender, Status, World};
use super::seed::{INBOX_ID, Shape, grow};
use super::writes::{ContactFields, Draft};
use super::{StandIn, render};

impl StandIn {
    fn act<T>(&self, act: impl FnOnce(&mut World) -> Result<T, Missing>) -> T {
        let world = &mut *self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        act(world).expect("the stand-in knows this source id and it has what the act needs")
    }

    /// The list of a contact at this moment, byte for byte as it is served.
    pub fn list_body(&self, source_id: &str) -> Bytes {
        self.act(|world| Ok(render::list(world, &world.list(INBOX_ID, source_id)?)))
    }

    /// The ids of a contact's conversations, in the order of its list.
    pub fn conversation_ids(&self, source_id: &str) -> Vec<i64> {
        self.act(|world| Ok(world.list(INBOX_ID, source_id)?.iter().map(|it| it.id).collect()))
    }

    /// The id of the contact behind a source id: merging changes it.
    pub fn contact_id(&self, source_id: &str) -> i64 {
        self.act(|world| Ok(world.contact_inbox(INBOX_ID, source_id)?.contact_id))
    }

    /// The WebSocket token of a contact.
    pub fn pubsub_token(&self, source_id: &str) -> String {
        self.act(|world| Ok(world.contact_inbox(INBOX_ID, source_id)?.pubsub_token.clone()))
    }

    /// Adds conversations to a contact, who is created if new.
    pub fn seed(&self, source_id: &str, shape: Shape) {
        self.act(|world| {
            grow(world, INBOX_ID, source_id, shape);
            Ok(())
        });
    }

    /// Gives the contact of one source id a second one.
    pub fn attach(&self, source_id: &str, new_source_id: &str) {
        self.act(|world| {
            let contact_id = world.contact_inbox(INBOX_ID, source_id)?.contact_id;
            world.attach(INBOX_ID, new_source_id, contact_id);
            Ok(())
        });
    }

    /// Marks a source id as verified.
    pub fn verify(&self, source_id: &str) {
        self.act(|world| world.verify(INBOX_ID, source_id));
    }

    /// An agent answers in the newest conversation, which is opened if there is none. Gives the message's id.
    pub fn agent_message(&self, source_id: &str, text: &str) -> i64 {
        self.agent_writes(source_id, text, false)
    }

    /// An agent writes a private note: the list stays as it is.
    pub fn agent_note(&self, source_id: &str, text: &str) -> i64 {
        self.agent_writes(source_id, text, true)
    }

    fn agent_writes(&self, source_id: &str, text: &str, private: bool) -> i64 {
        self.act(|world| {
            let id = newest_or_new(world, source_id)?;
            let agent = *world.agents.keys().next().ok_or(Missing)?;
            world.add_message(id, Draft { private, ..Draft::text(text, 1, Sender::Agent(agent)) })
        })
    }

    /// Asks for a rating in the newest conversation. Gives the uuid under which it is answered.
    pub fn ask_csat(&self, source_id: &str) -> String {
        self.act(|world| {
            let id = newest_or_new(world, source_id)?;
            let mut draft = Draft::text("Please rate the conversation", 3, Sender::Nobody);
            (draft.content_type, draft.content_attributes) = ("input_csat", json!({ "display_type": "emoji" }));
            world.add_message(id, draft)?;
            Ok(world.conversations.get(&id).ok_or(Missing)?.uuid.clone())
        })
    }

    /// An agent resolves the newest conversation, or opens it again.
    pub fn agent_toggle_status(&self, source_id: &str) {
        self.act(|world| {
            let id = newest(world, source_id)?;
            let resolved = world.conversations.get(&id).is_some_and(|it| it.status == Status::Resolved);
            world.set_status(id, if resolved { Status::Open } else { Status::Resolved })
        });
    }

    /// An agent reads the newest conversation: the list changes and nobody is told.
    pub fn touch_agent_last_seen(&self, source_id: &str) {
        self.act(|world| {
            let id = newest(world, source_id)?;
            world.agent_saw(id)
        });
    }

    /// Every agent gets this name: all lists with an agent in them change and nobody is told.
    pub fn rename_agent(&self, name: &str) {
        self.act(|world| {
            for agent in world.agents.values_mut() {
                (agent.name, agent.available_name) = (name.to_owned(), name.to_owned());
            }
            Ok(())
        });
    }

    /// Deletes a contact with all source ids and conversations: the lists become 404 and nobody is told.
    pub fn delete_contact(&self, source_id: &str) {
        self.act(|world| {
            let id = world.contact_inbox(INBOX_ID, source_id)?.contact_id;
            world.delete_contact(id);
            Ok(())
        });
    }

    /// A deleted source id comes back as a new contact, with an empty list.
    pub fn recreate_contact(&self, source_id: &str) {
        self.act(|world| {
            world.create_contact(INBOX_ID, Some(source_id.to_owned()), ContactFields::default());
            Ok(())
        });
    }

    /// The inbox greets in every new conversation, with a template message in the same request.
    pub fn set_greeting(&self, greeting: Option<&str>) {
        self.act(|world| {
            let inbox = world.inboxes.iter_mut().find(|it| it.id == INBOX_ID).ok_or(Missing)?;
            inbox.greeting = greeting.map(str::to_owned);
            Ok(())
        });
    }

    /// The inbox allows each contact one conversation.
    pub fn set_single_conversation(&self, single: bool) {
        self.act(|world| {
            let inbox = world.inboxes.iter_mut().find(|it| it.id == INBOX_ID).ok_or(Missing)?;
            inbox.single_conversation = single;
            Ok(())
        });
    }

    /// The WebSocket server restarts: every client is told and disconnected.
    pub fn restart_cable(&self) {
        self.act(|world| {
            let _ = world.events.send(Event::Restart);
            Ok(())
        });
    }
}

fn newest(world: &World, source_id: &str) -> Result<i64, Missing> {
    world.list(INBOX_ID, source_id)?.last().map(|it| it.id).ok_or(Missing)
}

fn newest_or_new(world: &mut World, source_id: &str) -> Result<i64, Missing> {
    newest(world, source_id).or_else(|_| world.create_conversation(INBOX_ID, source_id, json!({})))
}

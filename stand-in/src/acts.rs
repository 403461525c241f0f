//! What happens behind the API's back: agents, operators and the database at work.
//!
//! All of it in [`INBOX`](super::INBOX), at once, without a request. Each act says which webhooks it causes; the
//! contact's WebSocket hears of messages and conversations under the same names with dots, of contacts nothing. A
//! source id that does not exist is a mistake of the test and panics; the message does not repeat it, since source ids
//! are credentials.

use std::sync::PoisonError;

use bytes::Bytes;

use super::account::INBOX_ID;
use super::data::{Event, Message, Missing, Sender, Status, World};
use super::json::{Value, json};
use super::render;
use super::seed::{Shape, grow};
use super::stand_in::StandIn;
use super::writes::{ContactFields, Draft};

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

    /// Adds conversations to a contact, who is created if new. Told like any others: `contact_created`,
    /// `conversation_created` and `message_created`.
    pub fn seed(&self, source_id: &str, shape: Shape) {
        self.act(|world| {
            grow(world, INBOX_ID, source_id, shape);
            Ok(())
        });
    }

    /// Gives the contact of one source id a second one. Nobody is told.
    pub fn attach(&self, source_id: &str, new_source_id: &str) {
        self.act(|world| {
            let contact_id = world.contact_inbox(INBOX_ID, source_id)?.contact_id;
            world.attach(INBOX_ID, new_source_id, contact_id);
            Ok(())
        });
    }

    /// Marks a source id as verified: its list becomes that of the contact, and nobody is told.
    pub fn verify(&self, source_id: &str) {
        self.act(|world| world.verify(INBOX_ID, source_id));
    }

    /// An agent answers in the newest conversation, which is opened if there is none: `message_created`. Gives the
    /// message's id.
    pub fn agent_message(&self, source_id: &str, text: &str) -> i64 {
        self.agent_writes(source_id, text, false)
    }

    /// An agent writes a private note: the list stays as it is. `message_created` with `private`, for webhooks only.
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

    /// Replaces the text of a message: `message_updated`.
    pub fn edit_message(&self, source_id: &str, message_id: i64, text: &str) {
        self.change_message(source_id, message_id, |message| message.content = Some(text.to_owned()));
    }

    /// An agent deletes a message, of which a note remains that it was there: `message_updated`.
    pub fn delete_message(&self, source_id: &str, message_id: i64) {
        self.change_message(source_id, message_id, |message| {
            message.content = Some("This message was deleted".to_owned());
            "text".clone_into(&mut message.content_type);
            message.content_attributes = json!({ "deleted": true });
            message.attachments.clear();
        });
    }

    fn change_message(&self, source_id: &str, message_id: i64, change: impl FnOnce(&mut Message)) {
        self.act(|world| {
            let list = world.list(INBOX_ID, source_id)?;
            let its = list.iter().find(|it| it.messages.iter().any(|message| message.id == message_id));
            let id = its.ok_or(Missing)?.id;
            world.change_message(id, message_id, change)
        });
    }

    /// Width and height of every image and video are found out later: the list changes and nobody is told. Panics if
    /// none lacks them.
    pub fn analyse_attachments(&self, source_id: &str) {
        self.act(|world| {
            let ids: Vec<i64> = world.list(INBOX_ID, source_id)?.iter().map(|it| it.id).collect();
            let conversations = world.conversations.values_mut().filter(|it| ids.contains(&it.id));
            let attachments = conversations.flat_map(|it| &mut it.messages).flat_map(|it| &mut it.attachments);
            let is_visual = |it: &Value| it["file_type"] == "image" || it["file_type"] == "video";
            let unknown = attachments.filter(|it| is_visual(it) && it["width"].is_null());
            let mut found = Err(Missing);
            for attachment in unknown {
                (attachment["width"], attachment["height"]) = (json!(640), json!(480));
                found = Ok(());
            }
            found
        });
    }

    /// An agent begins to type in the newest conversation, or stops: `conversation_typing_on` or `_off`. The list
    /// stays as it is.
    pub fn agent_types(&self, source_id: &str, on: bool) {
        self.act(|world| {
            let agent = *world.agents.keys().next().ok_or(Missing)?;
            world.tell_typing(newest(world, source_id)?, &Sender::Agent(agent), on);
            Ok(())
        });
    }

    /// Asks for a rating in the newest conversation: `message_created`. Gives the uuid under which it is answered.
    pub fn ask_csat(&self, source_id: &str) -> String {
        self.act(|world| {
            let id = newest_or_new(world, source_id)?;
            let mut draft = Draft::text("Please rate the conversation", 3, Sender::Nobody);
            (draft.content_type, draft.content_attributes) = ("input_csat", json!({ "display_type": "emoji" }));
            world.add_message(id, draft)?;
            Ok(world.conversations.get(&id).ok_or(Missing)?.uuid.clone())
        })
    }

    /// An agent resolves the newest conversation, or opens it again: `conversation_status_changed` and
    /// `conversation_updated`.
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

    /// An agent gives the contact another name: every list of the contact changes. `contact_updated`, for webhooks of
    /// the account only.
    pub fn rename_contact(&self, source_id: &str, name: &str) {
        self.act(|world| {
            let fields = ContactFields { name: Some(name.to_owned()), ..ContactFields::default() };
            world.update_contact(INBOX_ID, source_id, fields)
        });
    }

    /// The contact gets a company, another one each time: its lists change and nobody is told.
    pub fn link_company(&self, source_id: &str) {
        self.act(|world| {
            let (id, company) = (world.contact_inbox(INBOX_ID, source_id)?.contact_id, world.next_id());
            world.contacts.get_mut(&id).ok_or(Missing)?.company_id = Some(company);
            Ok(())
        });
    }

    /// An agent merges two contacts: both source ids now belong to the survivor. `contact_updated` if that gave him
    /// anything he had not, for webhooks of the account only; nothing is told about his new conversations.
    pub fn merge_contacts(&self, survivor: &str, merged: &str) {
        self.act(|world| {
            let survivor = world.contact_inbox(INBOX_ID, survivor)?.contact_id;
            let merged = world.contact_inbox(INBOX_ID, merged)?.contact_id;
            if survivor == merged { Err(Missing) } else { world.merge_contacts(survivor, merged) }
        });
    }

    /// Deletes the newest conversation: the list is shorter and nobody is told.
    pub fn delete_conversation(&self, source_id: &str) {
        self.act(|world| {
            let id = newest(world, source_id)?;
            world.delete_conversation(id);
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

    /// A deleted source id comes back as a new contact, with an empty list: `contact_created`, for webhooks of the
    /// account only.
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

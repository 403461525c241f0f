//! Writes and what they bring along: reopening, template messages, contact activity, merging, events.
//!
//! Each method is what one request (or one agent) does, under the one lock.

use serde_json::{Map, Value, json};

use super::data::{Contact, ContactInbox, Conversation, Event, Message, Missing, Sender, Status, World, uuid};
use super::render;

/// What a client may say about a contact.
#[derive(Default)]
pub(super) struct ContactFields {
    pub(super) identifier: Option<String>,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) phone_number: Option<String>,
    pub(super) custom_attributes: Option<Map<String, Value>>,
}

/// A message about to be written.
pub(super) struct Draft {
    pub(super) content: Option<String>,
    pub(super) message_type: i64,
    pub(super) content_type: &'static str,
    pub(super) content_attributes: Value,
    pub(super) private: bool,
    pub(super) attachments: Vec<Value>,
    pub(super) sender: Sender,
}

impl Draft {
    /// Plain text.
    pub(super) fn text(content: &str, message_type: i64, sender: Sender) -> Self {
        Self {
            content: Some(content.to_owned()),
            message_type,
            content_type: "text",
            content_attributes: json!({}),
            private: false,
            attachments: Vec::new(),
            sender,
        }
    }
}

impl World {
    /// Creates a source id, or finds it. A known identifier, address or number means a contact that exists.
    pub(super) fn create_contact(&mut self, inbox_id: i64, source_id: Option<String>, fields: ContactFields) -> String {
        let seed = self.next_id();
        let source_id = source_id.unwrap_or_else(|| uuid(&format!("source {seed}")));
        if self.contact_inbox(inbox_id, &source_id).is_ok() {
            return source_id;
        }
        let same = |one: &Option<String>, other: &Option<String>| one.is_some() && one == other;
        let known = self.contacts.values().find(|it| {
            same(&it.identifier, &fields.identifier)
                || same(&it.email, &fields.email)
                || same(&it.phone_number, &fields.phone_number)
        });
        let contact_id = match known.map(|it| it.id) {
            Some(id) => id,
            None => self.insert_contact(fields),
        };
        self.attach(inbox_id, &source_id, contact_id);
        source_id
    }

    fn insert_contact(&mut self, fields: ContactFields) -> i64 {
        let (id, now) = (self.next_id(), self.now_iso());
        let contact = Contact {
            id,
            name: fields.name.or_else(|| Some(format!("quiet-river-{}", id % 1000))),
            email: fields.email,
            phone_number: fields.phone_number,
            account_id: super::data::ACCOUNT,
            created_at: now.clone(),
            updated_at: now,
            additional_attributes: json!({}),
            identifier: fields.identifier,
            custom_attributes: Value::Object(fields.custom_attributes.unwrap_or_default()),
            last_activity_at: None,
            contact_type: "visitor".to_owned(),
            middle_name: String::new(),
            last_name: String::new(),
            location: None,
            country_code: None,
            blocked: false,
            company_id: None,
            label_list: Vec::new(),
            thumbnail: String::new(),
            company_in_sender: false,
        };
        self.contacts.insert(id, contact);
        id
    }

    /// Gives a contact one more source id.
    pub(super) fn attach(&mut self, inbox_id: i64, source_id: &str, contact_id: i64) {
        let id = self.next_id();
        let pubsub_token = format!("pUbSuB{}", uuid(&format!("token {id}")).replace('-', ""));
        let row = ContactInbox { id, contact_id, pubsub_token, hmac_verified: false, conversations: Vec::new() };
        self.contact_inboxes.insert((inbox_id, source_id.to_owned()), row);
    }

    /// Marks a source id as verified: from now on its list has every conversation of the contact.
    pub(super) fn verify(&mut self, inbox_id: i64, source_id: &str) -> Result<(), Missing> {
        let row = self.contact_inboxes.get_mut(&(inbox_id, source_id.to_owned())).ok_or(Missing)?;
        row.hmac_verified = true;
        Ok(())
    }

    /// Changes a contact. An address or number of another contact merges the two: the other one survives.
    pub(super) fn update_contact(
        &mut self,
        inbox_id: i64,
        source_id: &str,
        fields: ContactFields,
    ) -> Result<i64, Missing> {
        let mut id = self.contact_inbox(inbox_id, source_id)?.contact_id;
        let taken = |mine: &Option<String>, theirs: &Option<String>| mine.is_some() && mine == theirs;
        let other = self.contacts.values().find(|it| {
            it.id != id && (taken(&fields.email, &it.email) || taken(&fields.phone_number, &it.phone_number))
        });
        if let Some(survivor) = other.map(|it| it.id) {
            self.merge(survivor, id);
            id = survivor;
        }
        let now = self.now_iso();
        let contact = self.contacts.get_mut(&id).ok_or(Missing)?;
        contact.name = fields.name.or(contact.name.take());
        contact.email = fields.email.or(contact.email.take());
        contact.phone_number = fields.phone_number.or(contact.phone_number.take());
        if let Some(attributes) = contact.custom_attributes.as_object_mut() {
            attributes.extend(fields.custom_attributes.unwrap_or_default());
        }
        // Every save rewrites these two; the second really gets the name of a country.
        let attribute = |name| contact.additional_attributes.get(name).and_then(Value::as_str).map(str::to_owned);
        (contact.location, contact.country_code) = (attribute("city"), attribute("country"));
        contact.updated_at = now;
        Ok(id)
    }

    fn merge(&mut self, survivor: i64, merged: i64) {
        for row in self.contact_inboxes.values_mut().filter(|row| row.contact_id == merged) {
            row.contact_id = survivor;
        }
        for conversation in self.conversations.values_mut().filter(|it| it.contact_id == merged) {
            conversation.contact_id = survivor;
        }
        let Some(gone) = self.contacts.remove(&merged) else { return };
        if let Some(contact) = self.contacts.get_mut(&survivor) {
            contact.identifier = contact.identifier.take().or(gone.identifier);
            contact.phone_number = contact.phone_number.take().or(gone.phone_number);
            if let (Some(kept), Value::Object(lost)) =
                (contact.custom_attributes.as_object_mut(), gone.custom_attributes)
            {
                for (name, value) in lost {
                    kept.entry(name).or_insert(value);
                }
            }
        }
    }

    /// Removes a contact with everything that hangs on it.
    pub(super) fn delete_contact(&mut self, contact_id: i64) {
        self.contacts.remove(&contact_id);
        self.contact_inboxes.retain(|_, row| row.contact_id != contact_id);
        self.conversations.retain(|_, it| it.contact_id != contact_id);
    }

    /// Opens a conversation; an inbox locked to one gives the last one back.
    pub(super) fn create_conversation(
        &mut self,
        inbox_id: i64,
        source_id: &str,
        custom_attributes: Value,
    ) -> Result<i64, Missing> {
        let row = self.contact_inbox(inbox_id, source_id)?;
        let contact_id = row.contact_id;
        if let Some(last) =
            row.conversations.last().filter(|_| self.inbox_by_id(inbox_id).is_ok_and(|inbox| inbox.single_conversation))
        {
            return Ok(*last);
        }
        let (id, created_at) = (self.next_id(), self.now_seconds());
        let conversation = Conversation {
            id,
            uuid: uuid(&format!("conversation {id}")),
            inbox_id,
            contact_id,
            source_id: source_id.to_owned(),
            contact_last_seen_at: 0,
            status: Status::Open,
            agent_last_seen_at: 0,
            created_at,
            custom_attributes,
            messages: Vec::new(),
        };
        self.insert_conversation(conversation);
        self.tell_conversation(id, "conversation.created");
        Ok(id)
    }

    /// Puts a conversation in its place, without telling anybody.
    pub(super) fn insert_conversation(&mut self, conversation: Conversation) {
        let key = (conversation.inbox_id, conversation.source_id.clone());
        if let Some(row) = self.contact_inboxes.get_mut(&key) {
            row.conversations.push(conversation.id);
        }
        self.reserve_id(conversation.id);
        self.conversations.insert(conversation.id, conversation);
    }

    /// Writes a message of the contact: it may reopen the conversation and bring a greeting with it.
    pub(super) fn contact_message(
        &mut self,
        id: i64,
        content: Option<String>,
        attachments: Vec<Value>,
    ) -> Result<i64, Missing> {
        let conversation = self.conversations.get(&id).ok_or(Missing)?;
        let (inbox_id, contact_id) = (conversation.inbox_id, conversation.contact_id);
        let is_first = conversation.messages.is_empty();
        let asleep = matches!(conversation.status, Status::Resolved | Status::Snoozed);
        let mut draft = Draft::text("", 0, Sender::Contact);
        (draft.content, draft.attachments) = (content, attachments);
        let message_id = self.add_message(id, draft)?;
        let now = self.now_iso();
        if let Some(contact) = self.contacts.get_mut(&contact_id) {
            contact.last_activity_at = Some(now.clone());
            contact.updated_at = now;
        }
        if asleep {
            self.set_status(id, Status::Open)?;
        }
        if let Some(greeting) = self.inbox_by_id(inbox_id)?.greeting.clone().filter(|_| is_first) {
            self.add_message(id, Draft::text(&greeting, 3, Sender::Nobody))?;
        }
        Ok(message_id)
    }

    /// Writes a message, whoever it is from.
    pub(super) fn add_message(&mut self, id: i64, draft: Draft) -> Result<i64, Missing> {
        let (message_id, now) = (self.next_id(), self.now_ms());
        let attachments = draft.attachments.into_iter().map(|mut it| {
            it["message_id"] = json!(message_id);
            it
        });
        let attachments = attachments.collect();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        // Samples may lie in the future of this machine: the order of times is kept.
        let created_at = conversation.messages.last().map_or(0, |last| last.created_at).max(now / 1000);
        conversation.messages.push(Message {
            id: message_id,
            content: draft.content,
            message_type: draft.message_type,
            content_type: draft.content_type.to_owned(),
            content_attributes: draft.content_attributes,
            created_at,
            updated_at: super::data::iso(now),
            private: draft.private,
            attachments,
            sender: draft.sender,
        });
        self.tell_message(id, message_id, "message.created");
        Ok(message_id)
    }

    /// Sets the status, with the activity message that contacts never see. Nothing happens if it is so already.
    pub(super) fn set_status(&mut self, id: i64, status: Status) -> Result<(), Missing> {
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        if conversation.status == status {
            return Ok(());
        }
        conversation.status = status;
        self.add_message(id, Draft::text("Conversation status changed", 2, Sender::Nobody))?;
        self.tell_conversation(id, "conversation.status_changed");
        self.tell_conversation(id, "conversation.updated");
        Ok(())
    }

    /// The contact has read: always later than the time before, so that the list is seen to change.
    pub(super) fn contact_saw(&mut self, id: i64) -> Result<(), Missing> {
        let now = self.now_seconds();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        conversation.contact_last_seen_at = now.max(conversation.contact_last_seen_at + 1);
        Ok(())
    }

    /// An agent has read: nobody is told, as in the real service.
    pub(super) fn agent_saw(&mut self, id: i64) -> Result<(), Missing> {
        let now = self.now_seconds();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        conversation.agent_last_seen_at = now.max(conversation.agent_last_seen_at + 1);
        Ok(())
    }

    /// Answers a form, a choice or a survey.
    pub(super) fn submit(&mut self, id: i64, message_id: i64, values: Value) -> Result<(), Missing> {
        let now = self.now_iso();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        let message = conversation.messages.iter_mut().find(|it| it.id == message_id).ok_or(Missing)?;
        message.content_attributes["submitted_values"] = values;
        message.updated_at = now;
        self.tell_message(id, message_id, "message.updated");
        Ok(())
    }

    fn tell_message(&self, id: i64, message_id: i64, name: &'static str) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        let Some(message) = conversation.messages.iter().find(|it| it.id == message_id) else { return };
        // Rendering is not free: seeding must not pay for listeners that are not there.
        if message.is_chat() && self.events.receiver_count() > 0 {
            let data = render::message_event(self, conversation, message);
            let _ = self.events.send(Event::Changed { tokens: self.tokens(conversation), name, data });
        }
    }

    fn tell_conversation(&self, id: i64, name: &'static str) {
        let Some(conversation) = self.conversations.get(&id) else { return };
        if self.events.receiver_count() > 0 {
            let data = render::conversation_event(self, conversation);
            let _ = self.events.send(Event::Changed { tokens: self.tokens(conversation), name, data });
        }
    }
}

//! Writes and what they bring along: reopening, template messages, contact activity, merging, events.
//!
//! Each method is what one request (or one agent) does, under the one lock.

use super::account::ACCOUNT;
use super::data::{Contact, ContactInbox, Conversation, Message, Missing, Sender, Status, World};
use super::events::{Name, change, changes};
use super::json::{Map, Value, json};
use super::stamps::{iso, uuid};

/// What a client may say about a contact.
#[derive(Default)]
pub(super) struct ContactFields {
    pub(super) identifier: Option<String>,
    pub(super) email: Option<String>,
    pub(super) name: Option<String>,
    pub(super) phone_number: Option<String>,
    pub(super) custom_attributes: Option<Map>,
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
            account_id: ACCOUNT,
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
        self.tell_new_contact(id);
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
        let survivor = other.map(|it| it.id);
        let before = self.before_change(survivor.unwrap_or(id));
        if let Some(survivor) = survivor {
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
        self.tell_contact(before.as_ref());
        Ok(id)
    }

    /// An agent merges two contacts. Only what the survivor gains is told, nothing about the conversations.
    pub(super) fn merge_contacts(&mut self, survivor: i64, merged: i64) -> Result<(), Missing> {
        let before = self.contacts.get(&survivor).cloned().ok_or(Missing)?;
        self.merge(survivor, merged);
        let now = self.now_iso();
        let contact = self.contacts.get_mut(&survivor).ok_or(Missing)?;
        if !changes(&before, contact).is_empty() {
            contact.updated_at = now;
            self.tell_contact(Some(&before));
        }
        Ok(())
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
            contact.email = contact.email.take().or(gone.email);
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

    /// Removes a conversation. Nobody is told.
    pub(super) fn delete_conversation(&mut self, id: i64) {
        self.conversations.remove(&id);
        for row in self.contact_inboxes.values_mut() {
            row.conversations.retain(|it| *it != id);
        }
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
        self.tell_conversation(id, Name::CONVERSATION_CREATED, None);
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
        let (before, now) = (self.before_change(contact_id), self.now_iso());
        if let Some(contact) = self.contacts.get_mut(&contact_id) {
            contact.last_activity_at = Some(now.clone());
            contact.updated_at = now;
        }
        self.tell_contact(before.as_ref());
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
            updated_at: iso(now),
            private: draft.private,
            attachments,
            sender: draft.sender,
            is_read: false,
        });
        self.tell_message(id, message_id, Name::MESSAGE_CREATED);
        Ok(message_id)
    }

    /// Sets the status, with the activity message that contacts never see. Nothing happens if it is so already.
    pub(super) fn set_status(&mut self, id: i64, status: Status) -> Result<(), Missing> {
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        if conversation.status == status {
            return Ok(());
        }
        let changed = json!([change("status", &json!(conversation.status), &json!(status))]);
        conversation.status = status;
        self.add_message(id, Draft::text("Conversation status changed", 2, Sender::Nobody))?;
        self.tell_conversation(id, Name::STATUS_CHANGED, Some(&changed));
        self.tell_conversation(id, Name::CONVERSATION_UPDATED, Some(&changed));
        Ok(())
    }

    /// The contact has read: always later than the time before, so that the list is seen to change. Nobody is told
    /// of that, but of each answer that was not read before.
    pub(super) fn contact_saw(&mut self, id: i64) -> Result<(), Missing> {
        let now = self.now_seconds();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        conversation.contact_last_seen_at = now.max(conversation.contact_last_seen_at + 1);
        let unread = conversation.messages.iter_mut().filter(|it| it.is_chat() && it.message_type != 0 && !it.is_read);
        let mut read = Vec::new();
        for message in unread {
            message.is_read = true;
            read.push(message.id);
        }
        for message_id in read {
            self.tell_message(id, message_id, Name::MESSAGE_UPDATED);
        }
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
        self.change_message(id, message_id, |message| message.content_attributes["submitted_values"] = values)
    }

    /// A webhook of the inbox did not take the message: it says so from now on. The change is told like any other,
    /// so what fails with it must not change anything again.
    pub(super) fn fail_message(&mut self, id: i64, message_id: i64, error: &str) -> Result<(), Missing> {
        let conversation = self.conversations.get(&id).ok_or(Missing)?;
        let message = conversation.messages.iter().find(|it| it.id == message_id).ok_or(Missing)?;
        if message.content_attributes.get("external_error").is_some_and(|it| !it.is_null()) {
            return Ok(());
        }
        self.change_message(id, message_id, |message| message.content_attributes["external_error"] = json!(error))
    }

    /// Changes a message and tells of it.
    pub(super) fn change_message(
        &mut self,
        id: i64,
        message_id: i64,
        change: impl FnOnce(&mut Message),
    ) -> Result<(), Missing> {
        let now = self.now_iso();
        let conversation = self.conversations.get_mut(&id).ok_or(Missing)?;
        let message = conversation.messages.iter_mut().find(|it| it.id == message_id).ok_or(Missing)?;
        change(message);
        message.updated_at = now;
        self.tell_message(id, message_id, Name::MESSAGE_UPDATED);
        Ok(())
    }
}

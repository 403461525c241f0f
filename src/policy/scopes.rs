//! What an answer is made from, read off its body: contact ids, conversation uuids, account and display ids.
//!
//! Streaming visitors that skip what they do not name; no tree is built. Oddly spelt ids are passed over, a body of
//! another shape is not understood.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::ledger::Scope;

/// Above so many conversations an answer names none of them but shares one scope for all.
const NAMED_CONVERSATIONS: usize = 32;

/// What a list is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListScopes {
    /// Contacts: of conversations, and senders that are contacts.
    pub contacts: Vec<u64>,
    /// Conversations, in lower case.
    pub uuids: Vec<String>,
    /// Conversations, by account and display id.
    pub conversations: Vec<(u64, u64)>,
}

impl ListScopes {
    /// The scopes, as the ledger takes them.
    pub fn scopes(&self) -> impl Iterator<Item = Scope<'_>> {
        let many = self.uuids.len() > NAMED_CONVERSATIONS || self.conversations.len() > NAMED_CONVERSATIONS;
        let (uuids, conversations) = if many { (&[][..], &[][..]) } else { (&self.uuids[..], &self.conversations[..]) };
        let contacts = self.contacts.iter().map(|id| Scope::Contact(*id));
        let uuids = uuids.iter().map(|uuid| Scope::Conversation(uuid));
        let conversations = conversations.iter().map(|(account, display)| Scope::AccountConversation(*account, *display));
        contacts.chain(uuids).chain(conversations).chain(many.then_some(Scope::AnyConversation))
    }
}

/// Reads a list. `None` if it is not a whole JSON array of the shape that can be understood.
pub fn of_list(body: &[u8]) -> Option<ListScopes> {
    let conversations: Vec<Conversation> = serde_json::from_slice(body).ok()?;
    let mut found = ListScopes::default();
    for conversation in conversations {
        let contact = conversation.contact.as_ref();
        found.contacts.extend(contact.and_then(|contact| contact.id.0));
        found.contacts.extend(conversation.messages.0.iter().filter_map(Message::contact));
        found.uuids.extend(conversation.uuid.0.map(|uuid| uuid.to_ascii_lowercase()));
        if let (Some(account), Some(display)) = (contact.and_then(|contact| contact.account_id.0), conversation.id.0) {
            found.conversations.push((account, display));
        }
    }
    found.contacts.sort_unstable();
    found.contacts.dedup();
    Some(found)
}

/// What any other answer of the public API shows: a contact, a conversation, a message, or a list of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The contact.
    pub contact: Option<u64>,
    /// The contact's identifier in an inbox, if the answer is a contact with one.
    pub source: Option<String>,
    /// The conversation.
    pub uuid: Option<String>,
}

/// Reads an answer that is not a list of conversations.
pub fn of_answer(body: &[u8]) -> Shown {
    match serde_json::from_slice(body) {
        Ok(Answer::One(object)) => object.shown(),
        Ok(Answer::Many(messages)) => Shown { contact: messages.iter().find_map(Message::contact), ..Shown::default() },
        Err(_) => Shown::default(),
    }
}

/// The `source_id` in the body of a request that creates a contact, JSON or form.
pub fn of_creation(body: &[u8]) -> Option<String> {
    if let Ok(Answer::One(object)) = serde_json::from_slice(body) {
        return object.source_id.0;
    }
    body.split(|byte| *byte == b'&').find_map(|pair| {
        let value = pair.strip_prefix(b"source_id=")?;
        let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        String::from_utf8(percent_encoding::percent_decode(&spaced).collect()).ok()
    })
}

#[derive(Deserialize)]
struct Conversation {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    uuid: Text,
    contact: Option<Contact>,
    #[serde(default)]
    messages: Messages,
}

#[derive(Deserialize)]
struct Contact {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    account_id: Id,
}

#[derive(Deserialize)]
struct Message {
    sender: Option<Sender>,
}

#[derive(Deserialize)]
struct Sender {
    #[serde(default)]
    id: Id,
    #[serde(default, rename = "type")]
    kind: Text,
}

impl Message {
    fn contact(&self) -> Option<u64> {
        let sender = self.sender.as_ref()?;
        (sender.kind.0.as_deref() == Some("contact")).then_some(sender.id.0)?
    }
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    id: Id,
    #[serde(default)]
    uuid: Text,
    #[serde(default)]
    source_id: Text,
    conversation_id: Option<IgnoredAny>,
    message_type: Option<IgnoredAny>,
    contact: Option<Contact>,
    sender: Option<Sender>,
    messages: Option<Messages>,
}

impl Object {
    fn shown(self) -> Shown {
        if self.conversation_id.is_some() || self.message_type.is_some() {
            let message = Message { sender: self.sender };
            return Shown { contact: message.contact(), ..Shown::default() };
        }
        if self.messages.is_some() || self.contact.is_some() || self.uuid.0.is_some() {
            let of_messages = || self.messages.as_ref()?.0.iter().find_map(Message::contact);
            let contact = self.contact.as_ref().and_then(|contact| contact.id.0).or_else(of_messages);
            return Shown { contact, source: None, uuid: self.uuid.0.map(|uuid| uuid.to_ascii_lowercase()) };
        }
        Shown { contact: self.id.0, source: self.source_id.0, uuid: None }
    }
}

#[derive(Deserialize, Default)]
#[serde(transparent)]
struct Messages(Vec<Message>);

enum Answer {
    One(Box<Object>),
    Many(Vec<Message>),
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Answer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or a list of objects")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Answer, A::Error> {
                let object = Object::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Answer::One(Box::new(object)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Answer, A::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(Answer::Many)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A whole number, or nothing.
#[derive(Default)]
struct Id(Option<u64>);

/// A text, or nothing.
#[derive(Default)]
struct Text(Option<String>);

/// Declares how a value is read that may be anything: what is not understood is skipped.
macro_rules! lenient {
    ($name:ident, $($method:ident($value:ident: $type:ty) => $found:expr),+) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Any;
                impl<'de> Visitor<'de> for Any {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("any value")
                    }
                    $(fn $method<E>(self, $value: $type) -> Result<$name, E> { Ok($name($found)) })+
                    fn visit_bool<E>(self, _: bool) -> Result<$name, E> { Ok($name(None)) }
                    fn visit_f64<E>(self, _: f64) -> Result<$name, E> { Ok($name(None)) }
                    fn visit_unit<E>(self) -> Result<$name, E> { Ok($name(None)) }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        Ok($name(None))
                    }
                    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        Ok($name(None))
                    }
                }
                deserializer.deserialize_any(Any)
            }
        }
    };
}

lenient!(Id, visit_u64(id: u64) => Some(id), visit_i64(id: i64) => u64::try_from(id).ok(), visit_str(id: &str) => id.parse().ok());
lenient!(Text, visit_str(text: &str) => Some(text.to_owned()), visit_u64(number: u64) => Some(number.to_string()), visit_i64(number: i64) => Some(number.to_string()));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_contacts_and_conversations() {
        let body = br#"[{"id":131,"uuid":"C2-A9","contact":{"id":42,"account_id":7},"messages":[
            {"id":1,"sender":{"type":"contact","id":42}},{"id":2,"sender":{"id":31,"type":"user"}},
            {"id":3,"sender":{"id":43,"type":"contact"}},{"id":4}]},
            {"id":132,"uuid":"d","contact":null,"messages":[]}]"#;
        let found = of_list(body).unwrap();
        assert_eq!(found.contacts, [42, 43]);
        assert_eq!(found.uuids, ["c2-a9", "d"]);
        assert_eq!(found.conversations, [(7, 131)]);
        assert_eq!(of_list(b"[]"), Some(ListScopes::default()));
    }

    #[test]
    fn what_is_not_a_whole_list_is_not_understood() {
        for body in [&b"{}"[..], b"[", b"[]x", b"", b"null", b"<html>", b"[1]", b"[{\"messages\":3}]"] {
            assert_eq!(of_list(body), None, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn odd_ids_are_passed_over() {
        let found = of_list(br#"[{"id":[1],"uuid":{"a":1},"contact":{"id":"42","account_id":1.5}},{"id":-1,"contact":{"id":true}}]"#);
        assert_eq!(found.unwrap(), ListScopes { contacts: vec![42], ..ListScopes::default() });
    }

    #[test]
    fn many_conversations_share_a_scope() {
        let uuids = (0..33).map(|n| n.to_string()).collect();
        let scopes = ListScopes { contacts: vec![1], uuids, conversations: vec![(7, 1)] };
        assert_eq!(scopes.scopes().collect::<Vec<_>>(), [Scope::Contact(1), Scope::AnyConversation]);
    }

    #[test]
    fn other_answers_show_whom_they_are_about() {
        let shown = |contact, source: Option<&str>, uuid: Option<&str>| Shown {
            contact,
            source: source.map(str::to_owned),
            uuid: uuid.map(str::to_owned),
        };
        for (body, expected) in [
            (r#"{"source_id":"s","pubsub_token":"t","id":42,"name":"n"}"#, shown(Some(42), Some("s"), None)),
            (r#"{"id":42,"account_id":7,"label_list":[]}"#, shown(Some(42), None, None)),
            (r#"{"id":1,"uuid":"U","contact":{"id":42},"messages":[]}"#, shown(Some(42), None, Some("u"))),
            (r#"{"id":9,"conversation_id":1,"sender":{"id":42,"type":"contact"}}"#, shown(Some(42), None, None)),
            (r#"{"id":9,"message_type":1,"sender":{"id":3,"type":"user"}}"#, shown(None, None, None)),
            (r#"[{"id":9},{"id":9,"sender":{"id":42,"type":"contact"}}]"#, shown(Some(42), None, None)),
            ("", shown(None, None, None)),
            ("7", shown(None, None, None)),
        ] {
            assert_eq!(of_answer(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_creation_names_its_source() {
        for (body, expected) in [
            (&br#"{"name":"n","source_id":"s 1"}"#[..], Some("s 1")),
            (br#"{"source_id":17}"#, Some("17")),
            (b"name=n&source_id=s%20+1", Some("s  1")),
            (b"name=n", None),
            (b"{}", None),
        ] {
            assert_eq!(of_creation(body).as_deref(), expected, "{}", String::from_utf8_lossy(body));
        }
    }
}

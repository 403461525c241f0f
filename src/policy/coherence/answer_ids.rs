//! Whom an answer other than a list is about, read off its body: a contact, a conversation, a message.
//!
//! Streaming visitors that skip what they do not name; no tree is built. Oddly spelt ids are passed over. Lists are read
//! by `payload`.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What an answer of the public API shows that is not a list of conversations: a contact, a conversation, a message, or a list of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerIds {
    /// The contact.
    pub contact: Option<u64>,
    /// The contact's identifier in an inbox, if the answer is a contact with one.
    pub source: Option<String>,
    /// The secret with which the contact subscribes to the cable, if the answer is a contact with one.
    pub token: Option<String>,
    /// The conversation.
    pub uuid: Option<String>,
    /// The message, if the answer is one.
    pub message: Option<u64>,
}

/// Reads an answer that is not a list of conversations: of messages, up to the first that is the contact's.
pub fn of_answer(body: &[u8]) -> AnswerIds {
    let mut contact = None;
    match object(body, &mut contact) {
        Some(object) => object.ids(),
        None => AnswerIds { contact, ..AnswerIds::default() },
    }
}

/// The `source_id` in the body of a request that creates a contact, JSON or form.
pub fn of_creation(body: &[u8]) -> Option<String> {
    if let Some(object) = object(body, &mut None) {
        return object.source_id.0;
    }
    body.split(|byte| *byte == b'&').find_map(|pair| {
        let value = pair.strip_prefix(b"source_id=")?;
        let spaced: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        String::from_utf8(percent_encoding::percent_decode(&spaced).collect()).ok()
    })
}

/// A conversation's uuid as scopes have it. The upstream's database takes it in any case, with hyphens after any four
/// digits or none, and in braces.
pub fn canonical_uuid(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).map(|char| char.to_ascii_lowercase()).collect();
    let rest_is_form = text.chars().all(|char| char.is_ascii_hexdigit() || matches!(char, '-' | '{' | '}'));
    if digits.len() != 32 || !rest_is_form {
        return text.to_ascii_lowercase();
    }
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// What a request of the account API names in its body. `Debug` is for tests; nothing logs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The contact's identifier in an inbox.
    pub source: Option<String>,
    /// Contacts: of a new conversation, of a merge, or of a change to many at once.
    pub contacts: Vec<u64>,
    /// Conversations, by their display ids.
    pub displays: Vec<u64>,
}

impl Named {
    /// Whether it names nobody.
    pub fn is_empty(&self) -> bool {
        self.source.is_none() && self.contacts.is_empty() && self.displays.is_empty()
    }
}

/// Reads the body of a request of the account API, JSON or form: what creates a conversation or a contact, changes many
/// at once, runs a macro, or merges contacts.
pub fn of_account_request(body: &[u8]) -> Named {
    let request = serde_json::from_slice::<AccountRequest>(body).unwrap_or_else(|_| AccountRequest::of_form(body));
    let AccountRequest { source_id, kind, ids, conversation_ids, contact_id, base, mergee } = request;
    let of_contacts = kind.0.as_deref() == Some("Contact");
    let (mut contacts, mut displays) = if of_contacts { (ids.0, Vec::new()) } else { (Vec::new(), ids.0) };
    contacts.extend([contact_id, base, mergee].into_iter().filter_map(|id| id.0));
    displays.extend(conversation_ids.0);
    Named { source: source_id.0, contacts, displays }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AccountRequest {
    source_id: Text,
    #[serde(rename = "type")]
    kind: Text,
    ids: Many,
    conversation_ids: Many,
    contact_id: Id,
    #[serde(rename = "base_contact_id")]
    base: Id,
    #[serde(rename = "mergee_contact_id")]
    mergee: Id,
}

impl AccountRequest {
    fn of_form(body: &[u8]) -> Self {
        let mut request = Self::default();
        for pair in body.split(|byte| *byte == b'&') {
            let text = String::from_utf8_lossy(pair).replace('+', " ");
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            let (name, value) = (decode(name), decode(value));
            let number = value.parse().ok();
            match name.split('[').next().unwrap_or_default() {
                "source_id" => request.source_id = Text(Some(value)),
                "type" => request.kind = Text(Some(value)),
                "ids" => request.ids.0.extend(number),
                "conversation_ids" => request.conversation_ids.0.extend(number),
                "contact_id" => request.contact_id = Id(number),
                "base_contact_id" => request.base = Id(number),
                "mergee_contact_id" => request.mergee = Id(number),
                _ => {}
            }
        }
        request
    }
}

#[derive(Deserialize)]
struct Contact {
    #[serde(default)]
    id: Id,
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
    #[serde(default)]
    pubsub_token: Text,
    conversation_id: Option<IgnoredAny>,
    message_type: Option<IgnoredAny>,
    contact: Option<Contact>,
    sender: Option<Sender>,
    messages: Option<Messages>,
    meta: Option<Meta>,
    payload: Option<Box<Payload>>,
}

/// What the account API shows beside a conversation.
#[derive(Deserialize)]
struct Meta {
    sender: Option<Contact>,
}

/// What the account API shows of a new contact.
#[derive(Deserialize)]
struct Payload {
    contact: Option<Contact>,
    contact_inbox: Option<ContactInbox>,
}

#[derive(Deserialize)]
struct ContactInbox {
    #[serde(default)]
    source_id: Text,
}

impl Object {
    fn ids(self) -> AnswerIds {
        if self.conversation_id.is_some() || self.message_type.is_some() {
            let message = Message { sender: self.sender };
            return AnswerIds { contact: message.contact(), message: self.id.0, ..AnswerIds::default() };
        }
        if let Some(payload) = self.payload {
            let source = payload.contact_inbox.and_then(|inbox| inbox.source_id.0);
            return AnswerIds {
                contact: payload.contact.and_then(|contact| contact.id.0),
                source,
                ..AnswerIds::default()
            };
        }
        if let Some(sender) = self.meta.and_then(|meta| meta.sender) {
            let uuid = self.uuid.0.map(|uuid| canonical_uuid(&uuid));
            return AnswerIds { contact: sender.id.0, uuid, ..AnswerIds::default() };
        }
        if self.messages.is_some() || self.contact.is_some() || self.uuid.0.is_some() {
            let of_messages = || self.messages.as_ref()?.0.iter().find_map(Message::contact);
            let contact = self.contact.as_ref().and_then(|contact| contact.id.0).or_else(of_messages);
            let uuid = self.uuid.0.map(|uuid| canonical_uuid(&uuid));
            return AnswerIds { contact, uuid, ..AnswerIds::default() };
        }
        let (source, token) = (self.source_id.0, self.pubsub_token.0);
        AnswerIds { contact: self.id.0, source, token, ..AnswerIds::default() }
    }
}

#[derive(Deserialize, Default)]
#[serde(transparent)]
struct Messages(Vec<Message>);

/// The object that a body is. If it is a list of messages, `contact` gets that of the first message that has one.
fn object(body: &[u8], contact: &mut Option<u64>) -> Option<Box<Object>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = Finding { contact }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

struct Finding<'a> {
    contact: &'a mut Option<u64>,
}

impl<'de> DeserializeSeed<'de> for Finding<'_> {
    type Value = Option<Box<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Finding<'_> {
    type Value = Option<Box<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Object::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|object| Some(Box::new(object)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<Self::Value, A::Error> {
        while let Some(message) = messages.next_element::<Message>()? {
            *self.contact = message.contact();
            if self.contact.is_some() {
                // An error is the only way not to read on: it would cost more than all the rest of passing the answer.
                return Err(serde::de::Error::custom("found"));
            }
        }
        Ok(None)
    }
}

/// A whole number, or nothing.
#[derive(Default)]
struct Id(Option<u64>);

/// Whole numbers; whatever else stands among them is skipped.
#[derive(Default)]
struct Many(Vec<u64>);

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found: serde_json::Value = Deserialize::deserialize(deserializer)?;
        let number = |id: &serde_json::Value| id.as_u64().or_else(|| id.as_str()?.parse().ok());
        Ok(Self(match &found {
            serde_json::Value::Array(ids) => ids.iter().filter_map(number).collect(),
            one => number(one).into_iter().collect(),
        }))
    }
}

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
    fn other_answers_show_whom_they_are_about() {
        let ids = |contact, source: Option<&str>, uuid: Option<&str>| AnswerIds {
            contact,
            source: source.map(str::to_owned),
            uuid: uuid.map(str::to_owned),
            ..AnswerIds::default()
        };
        for (body, expected) in [
            (
                r#"{"source_id":"s","pubsub_token":"t","id":42,"name":"n"}"#,
                AnswerIds { token: Some("t".into()), ..ids(Some(42), Some("s"), None) },
            ),
            (r#"{"source_id":"s","pubsub_token":{},"id":42}"#, ids(Some(42), Some("s"), None)),
            (r#"{"id":42,"account_id":7,"label_list":[]}"#, ids(Some(42), None, None)),
            (r#"{"id":1,"uuid":"U","contact":{"id":42},"messages":[]}"#, ids(Some(42), None, Some("u"))),
            (
                r#"{"id":9,"conversation_id":1,"sender":{"id":42,"type":"contact"}}"#,
                AnswerIds { message: Some(9), ..ids(Some(42), None, None) },
            ),
            (
                r#"{"id":9,"message_type":1,"sender":{"id":3,"type":"user"}}"#,
                AnswerIds { message: Some(9), ..ids(None, None, None) },
            ),
            (r#"[{"id":9},{"id":9,"sender":{"id":42,"type":"contact"}}]"#, ids(Some(42), None, None)),
            ("", ids(None, None, None)),
            ("7", ids(None, None, None)),
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

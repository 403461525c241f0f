//! The contract as JSON Schema, for other tools.

use serde_json::{Map, Value, json};

use super::schema::{CONTACT_INBOX, CONVERSATION, Field, Kind, MESSAGE, STATUSES, Shape};
use crate::policy::resource::ReadKind;

/// The contract of a read as a JSON Schema (draft 2020-12), for other tools.
pub fn json_schema(read: ReadKind) -> Value {
    let below = match read {
        ReadKind::Conversations => "/conversations",
        ReadKind::Conversation => "/conversations/{conversation_id}",
        ReadKind::Messages => "/conversations/{conversation_id}/messages",
        ReadKind::Contact => "",
    };
    let mut schema = match read {
        ReadKind::Conversations => json!({ "type": "array", "items": object_schema(&CONVERSATION, false) }),
        ReadKind::Conversation => object_schema(&CONVERSATION, false),
        ReadKind::Messages => json!({ "type": "array", "items": object_schema(&MESSAGE, false) }),
        ReadKind::Contact => object_schema(&CONTACT_INBOX, false),
    };
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] =
        json!(format!("GET /public/api/v1/inboxes/{{inbox_identifier}}/contacts/{{contact_identifier}}{below}"));
    schema
}

fn object_schema(shape: &Shape, nullable: bool) -> Value {
    let properties: Map<String, Value> =
        shape.fields.iter().map(|field| (field.name.to_owned(), field_schema(field))).collect();
    let required: Vec<&str> = shape.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({ "type": typed("object", nullable), "properties": properties, "required": required })
}

fn field_schema(field: &Field) -> Value {
    let plain = |name| json!({ "type": typed(name, field.nullable) });
    match field.kind {
        Kind::Integer => plain("integer"),
        Kind::Number => plain("number"),
        Kind::Text => plain("string"),
        Kind::Flag => plain("boolean"),
        Kind::Status => json!({ "type": "string", "enum": STATUSES }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Opaque => plain("object"),
        Kind::Anything => json!({ "description": "not on the published page" }),
        Kind::One(shape) => object_schema(shape, field.nullable),
        Kind::Many(shape) => json!({ "type": "array", "items": object_schema(shape, shape.null_elements) }),
    }
}

fn typed(name: &str, nullable: bool) -> Value {
    if nullable { json!([name, "null"]) } else { json!(name) }
}

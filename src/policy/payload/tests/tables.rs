//! The contract, case by case: the samples, every field with every wrong kind, every exception of `api.md` section 5.

use serde_json::json;

use super::super::schema::{Field, Kind, SHAPES, Shape};
use super::*;

/// The page's example, in which every field is present, with the value at `path` replaced; `None` takes the key away.
fn page_with(path: &str, value: Option<Value>) -> Bytes {
    let mut list: Value = PAGE_EXAMPLE.parse().expect("valid");
    let mut object = &mut list[0];
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        object = &mut object[parent];
        if object.is_array() {
            object = &mut object[0];
        }
    }
    let object = object.as_object_mut().expect("an object");
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
    Bytes::from(list.to_string())
}

/// What each read gives that has this field, with the value in its place. A contact by itself has the others' keys.
fn documents_with(path: &str, value: Option<&Value>) -> Vec<(ReadKind, Bytes)> {
    if let Some(name) = path.strip_prefix("contact_inbox.") {
        let mut contact: Value = CONTACT_EXAMPLE.parse().expect("valid");
        let keys = contact.as_object_mut().expect("an object");
        match value {
            Some(value) => keys.insert(name.to_owned(), value.clone()),
            None => keys.remove(name),
        };
        return vec![(ReadKind::Contact, contact.to_string().into())];
    }
    let list = page_with(path, value.cloned());
    let value: Value = serde_json::from_slice(&list).expect("valid");
    let mut documents = vec![(ReadKind::Conversations, list), (ReadKind::Conversation, value[0].to_string().into())];
    if path.starts_with("messages.") {
        documents.push((ReadKind::Messages, value[0]["messages"].to_string().into()));
    }
    documents
}

fn check_of(read: ReadKind, body: &Bytes) -> Outcome {
    apply_to(read, body, &PayloadSettings::default()).expect("what the read gives")
}

fn fields() -> impl Iterator<Item = &'static Field> {
    SHAPES.into_iter().flat_map(|shape: &Shape| shape.fields)
}

#[test]
fn samples_keep_the_contract() {
    for (name, sample) in SAMPLES {
        for body in [Bytes::from_static(sample.as_bytes()), compact(sample)] {
            let outcome = check(body.clone());
            assert_eq!(found(&outcome), [], "{name}");
            assert_eq!(outcome.body.as_ptr(), body.as_ptr(), "{name}: served as it is, not copied");
            assert!(!outcome.changed);
        }
    }
}

#[test]
fn every_field_with_every_kind_of_value() {
    let values = [json!(7), json!(7.5), json!("text"), json!("open"), json!(true), json!({}), json!([]), json!(["a"])];
    for field in fields() {
        for value in &values {
            let fits = match field.kind {
                Kind::Integer => *value == json!(7),
                Kind::Number => value.is_number(),
                Kind::Text | Kind::Status => value.is_string(),
                Kind::Flag => value.is_boolean(),
                Kind::Texts => value.is_array(),
                Kind::Many(_) => *value == json!([]),
                Kind::Opaque => value.is_object(),
                Kind::One(_) => false, // an empty object lacks the required keys
                Kind::Anything => true,
            };
            for (read, body) in documents_with(field.path, Some(value)) {
                let outcome = check_of(read, &body);
                let violations: Vec<_> = outcome.violations.iter().collect();
                let kind = match (field.kind, value) {
                    (Kind::Status, Value::String(text)) if text == "open" => "none",
                    (Kind::Status, Value::String(_)) => "unknown_enum_value",
                    (Kind::One(_), Value::Object(_)) => "missing",
                    _ if fits => "none",
                    _ => "wrong_type",
                };
                match kind {
                    "none" => assert!(violations.is_empty(), "{} = {value}: {violations:?}", field.path),
                    "missing" => assert!(violations.iter().all(|v| v.field.starts_with(field.path))),
                    // An element is named by the element's label.
                    _ if matches!(field.kind, Kind::Many(_)) && *value == json!(["a"]) => {
                        assert_eq!(found(&outcome), [(violations[0].field, "wrong_type")]);
                        assert_eq!(violations[0].field, format!("{}[]", field.path));
                    }
                    _ => assert_eq!(found(&outcome), [(field.path, kind)], "{} = {value}", field.path),
                }
            }
        }
    }
}

#[test]
fn every_read_gives_what_it_gives_and_nothing_else() {
    let list: Value = PAGE_EXAMPLE.parse().expect("valid");
    let bodies = [
        (ReadKind::Conversations, list.to_string()),
        (ReadKind::Conversation, list[0].to_string()),
        (ReadKind::Messages, list[0]["messages"].to_string()),
        (ReadKind::Contact, CONTACT_EXAMPLE.to_owned()),
    ];
    for (read, body) in &bodies {
        for (other, other_body) in &bodies {
            let outcome = apply_to(*read, &Bytes::from(other_body.clone()), &PayloadSettings::default());
            let keeps = outcome.as_ref().is_ok_and(|outcome| outcome.violations.is_empty());
            assert_eq!(keeps, read == other, "{other:?} as {read:?}: {outcome:?}");
        }
        let scopes =
            apply_to(*read, &Bytes::from(body.clone()), &PayloadSettings::default()).expect("it is one").scopes;
        assert_eq!(scopes.contacts.len(), 1, "{read:?}: {scopes:?}");
        for (bad, why) in [("null", None), ("", Some("an empty body")), ("7", None)] {
            let told = apply_to(*read, &Bytes::from(bad), &PayloadSettings::default()).expect_err(bad).to_string();
            let expected = match read {
                ReadKind::Conversations | ReadKind::Messages => "not a JSON array, at byte 0",
                ReadKind::Conversation | ReadKind::Contact => "not a JSON object, at byte 0",
            };
            assert_eq!(told, why.unwrap_or(expected), "{read:?}: {bad}");
        }
        let trailing = Bytes::from(format!("{body} x"));
        let told = apply_to(*read, &trailing, &PayloadSettings::default()).expect_err("more").to_string();
        assert!(told.starts_with("more after its end"), "{told}");
    }
}

#[test]
fn examples_say_where_in_what_the_read_gave() {
    for (read, path, place) in [
        (ReadKind::Conversation, "status", "status: wrong_type"),
        (ReadKind::Conversation, "messages.sender.id", "messages[0].sender.id: wrong_type"),
        (ReadKind::Conversation, "contact.id", "contact.id: wrong_type"),
        (ReadKind::Messages, "messages.id", "[0].id: wrong_type"),
        (ReadKind::Messages, "messages.attachments.id", "[0].attachments[0].id: wrong_type"),
        (ReadKind::Contact, "contact_inbox.email", "email: wrong_type"),
    ] {
        let documents = documents_with(path, Some(&json!([])));
        let (_, body) = documents.iter().find(|(of, _)| *of == read).expect("it has the field");
        assert_eq!(check_of(read, body).violations.first(1), [place]);
    }
}

#[test]
fn every_field_null_and_absent() {
    for field in fields() {
        for (read, null) in documents_with(field.path, Some(&Value::Null)) {
            let expected = if field.nullable { vec![] } else { vec![(field.path, "null")] };
            assert_eq!(found(&check_of(read, &null)), expected, "{} null", field.path);
        }
        for (read, absent) in documents_with(field.path, None) {
            let expected = if field.required { vec![(field.path, "missing")] } else { vec![] };
            assert_eq!(found(&check_of(read, &absent)), expected, "{} absent", field.path);
        }
    }
}

/// `api.md` section 5, by its numbers.
#[test]
fn every_exception_of_real_servers() {
    let contact_nulls = "name email phone_number identifier additional_attributes custom_attributes contact_type \
        country_code last_activity_at created_at updated_at last_name middle_name location company_id";
    let sender_nulls = "name email phone_number identifier available_name availability_status additional_attributes \
        custom_attributes description created_at";
    let attachment_nulls = "extension data_url width height fallback_title thumb_url"; // the last by section 4.4
    let all_nulls = [
        ("contact", contact_nulls),
        ("messages.sender", sender_nulls),
        ("messages.attachments", attachment_nulls),
        ("messages", "content"),
    ];
    for (parent, names) in all_nulls {
        for name in names.split_whitespace() {
            let path = format!("{parent}.{name}");
            assert_eq!(found(&check(page_with(&path, Some(Value::Null)))), [], "1. {path} null");
        }
    }
    let sender_keys = "avatar_url thumbnail available_name availability_status email phone_number identifier blocked \
        additional_attributes custom_attributes description created_at";
    let attachment_keys = "extension data_url thumb_url file_size width height coordinates_lat coordinates_long \
        fallback_title meta transcribed_text";
    for (parent, names) in [("messages.sender", sender_keys), ("messages.attachments", attachment_keys)] {
        for name in names.split_whitespace() {
            let path = format!("{parent}.{name}");
            assert_eq!(found(&check(page_with(&path, None))), [], "2. {path} absent");
        }
    }
    let fine = [
        ("1", "contact", Some(Value::Null)),
        ("2", "messages.attachments", None),
        ("2", "messages.sender", None),
        ("2", "contact.company_id", None),
        ("3", "group", Some(json!(true))),
        ("3", "messages.group_id", Some(json!(["x"]))),
        ("3", "messages.attachments.content_type", Some(json!("image/png"))),
        ("3", "messages.sender.company_id", Some(json!(55))),
        ("3", "contact.new_column", Some(json!({"a": 1}))),
        ("4", "messages.attachments.width", Some(json!(1280.0))),
        ("4", "messages.attachments.height", Some(json!(607.5))),
        ("5", "messages.attachments", Some(json!([null]))),
        ("6", "messages.content_type", Some(json!("hologram"))),
        ("6", "messages.attachments.file_type", Some(json!("scent"))),
        ("6", "messages.sender.type", Some(json!("fork_bot"))),
        ("7", "messages.content_attributes", Some(json!({"submitted_values": [{"name": "a", "value": 1}]}))),
        ("7", "messages.content_attributes", Some(json!({"submitted_values": {"csat_survey_response": {}}}))),
        ("7", "messages.attachments.meta", Some(json!({"id": "x", "width": []}))),
        ("8", "contact_last_seen_at", Some(json!(0))),
        ("8", "agent_last_seen_at", Some(json!(0))),
        ("8", "contact.created_at", Some(json!("2026-03-02T09:15:07.412Z"))),
        ("8", "contact.created_at", Some(json!("no date at all"))),
        ("9", "messages.message_type", Some(json!(2))),
        ("9", "messages.attachments.thumb_url", Some(json!(""))),
        ("9", "messages.sender.avatar_url", Some(json!(""))),
        ("9", "messages.sender.thumbnail", Some(json!(""))),
    ];
    for (point, path, value) in fine {
        assert_eq!(found(&check(page_with(path, value.clone()))), [], "{point}. {path}: {value:?}");
    }
    // 10: what only older pages had is no exception.
    for path in ["messages.message_type", "messages.created_at", "inbox_id"] {
        assert_eq!(found(&check(page_with(path, Some(json!("123"))))), [(path, "wrong_type")]);
    }
}

#[test]
fn numbers_spelt_otherwise_are_still_integers() {
    let with_id = |id: &str| PAGE_EXAMPLE.replacen("123", id, 1);
    for id in ["1.0", "1e3", "12.50e1", "0", "-0", "99999999999999999999999", "1.000", "5E+2"] {
        assert_eq!(found(&check(with_id(id))), [], "{id}");
    }
    for id in ["1.5", "1e-1", "1e400", "0.1"] {
        assert_eq!(found(&check(with_id(id))), [("id", "wrong_type")], "{id}");
    }
}

#[test]
fn keys_spelt_with_escapes_are_the_same_keys() {
    let escaped = PAGE_EXAMPLE.replace("\"status\"", r#""st\u0061tus""#).replace("\"sender\"", r#""\u0073ender""#);
    let outcome = check(escaped);
    assert_eq!((found(&outcome), outcome.unknown_keys.total), (vec![], 0));
    let outcome = check(PAGE_EXAMPLE.replace("\"open\"", r#""op\u0065n""#));
    assert_eq!(found(&outcome), []);
}

#[test]
fn unknown_keys_are_counted_by_name_and_are_no_violation() {
    let edge_cases = check(SAMPLES[2].1);
    let names: Vec<_> = edge_cases.unknown_keys.names.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(names, [("messages.attachments.content_type", 3), ("messages.sender.company_id", 4)]);
    let outcome = check(r#"[{"group":{"id":1},"messages":[{"x":1},{"x":2}]}]"#);
    assert_eq!(outcome.unknown_keys.total, 3);
    assert!(outcome.unknown_keys.names.contains(&("group".to_owned(), 1)));
    assert!(outcome.unknown_keys.names.contains(&("messages.x".to_owned(), 2)));
}

#[test]
fn violations_are_counted_with_a_first_place_and_without_values() {
    let mut list: Value = SAMPLES[1].1.parse().expect("valid");
    list[1]["status"] = json!("hibernating");
    list[0]["messages"][1]["id"] = Value::Null;
    list[0]["messages"][2]["id"] = Value::Null;
    list[0]["contact"]["label_list"] = json!(["a", 1]);
    let outcome = check(list.to_string());
    let all: Vec<_> = outcome.violations.iter().map(|v| (v.field, v.kind, v.count, v.example.expect("few"))).collect();
    assert_eq!(
        all,
        [
            ("status", ViolationKind::UnknownEnumValue, 1, "[1].status"),
            ("messages.id", ViolationKind::Null, 2, "[0].messages[1].id"),
            ("contact.label_list[]", ViolationKind::WrongType, 1, "[0].contact.label_list[1]"),
        ]
    );
    assert_eq!(outcome.violations.total(), 4);
    let first = outcome.violations.first(2);
    assert_eq!(first.len(), 2);
    assert!(!format!("{:?}", outcome.violations).contains("hibernating"));
}

#[test]
fn elements_that_are_no_objects() {
    let outcome = check(r#"[null, 1, {"messages": [null, "x", {"attachments": [null, 5]}]}]"#);
    let elements: Vec<_> = found(&outcome).into_iter().filter(|(field, _)| field.ends_with("[]")).collect();
    assert_eq!(
        elements,
        [
            ("[]", "wrong_type"),
            ("[]", "null"),
            ("messages[]", "wrong_type"),
            ("messages[]", "null"),
            ("messages.attachments[]", "wrong_type"),
        ]
    );
}

#[test]
fn what_is_not_a_list_is_named() {
    let deep = "[".repeat(1_000_000);
    for (body, at, why) in [
        ("", 0, Why::Truncated),
        ("  ", 2, Why::Truncated),
        ("<!DOCTYPE html>", 0, Why::NotAnArray),
        (r#"{"error":"not found"}"#, 0, Why::NotAnArray),
        ("null", 0, Why::NotAnArray),
        (r#"[{"id":12"#, 9, Why::Truncated),
        ("[] []", 3, Why::Trailing),
        ("[{]", 2, Why::Malformed),
        (deep.as_str(), 128, Why::TooDeep),
    ] {
        let not_a_list = NotAList { at, why };
        let shown = &body[..body.len().min(30)];
        assert_eq!(
            apply(&Bytes::from(body.to_owned()), &PayloadSettings::default()).err(),
            Some(not_a_list),
            "{shown}"
        );
        assert_eq!(scopes(body.as_bytes()), Err(not_a_list), "{shown}");
    }
    let not_utf8 = apply(&Bytes::from_static(b"[\"\xff\"]"), &PayloadSettings::default()).expect_err("not UTF-8");
    assert_eq!(not_utf8.to_string(), "a string that is not UTF-8, at byte 1");
}

#[test]
fn a_list_cut_off_anywhere_is_no_list() {
    let body = compact(SAMPLES[2].1);
    for end in 0..body.len() {
        assert_eq!(scopes(&body[..end]).expect_err("cut").why, Why::Truncated, "after {end} bytes");
    }
}

#[test]
fn scopes_of_the_samples() {
    let typical = check(SAMPLES[1].1).scopes;
    assert_eq!((typical.contacts, typical.accounts, typical.display_ids), (vec![5012], vec![7], vec![118, 131]));
    assert_eq!(typical.uuids, ["4b1f7a0e-6f1c-4d0a-9a55-0d3c8b7f1a11", "c2a9d7c4-2a4e-49b1-8f5e-6f2b7f1f9d02"]);
    for (name, sample) in SAMPLES {
        assert_eq!(scopes(sample.as_bytes()), Ok(check(sample).scopes), "{name}");
    }
}

#[test]
fn scopes_however_they_are_spelt() {
    const NONE: [u64; 0] = [];
    let contacts = |body: &str| check(body.to_owned()).scopes.contacts;
    // The type may come after the id, or before it; agents are no contacts.
    assert_eq!(contacts(r#"[{"messages":[{"sender":{"id":5,"type":"contact"}}]}]"#), [5]);
    assert_eq!(contacts(r#"[{"messages":[{"sender":{"type":"contact","id":5}}]}]"#), [5]);
    assert_eq!(contacts(r#"[{"messages":[{"sender":{"type":"cont\u0061ct","\u0069d":5}}]}]"#), [5]);
    assert_eq!(contacts(r#"[{"messages":[{"sender":{"id":5,"type":"user"}},{"sender":{"type":"contact"}}]}]"#), NONE);
    assert_eq!(contacts(r#"[{"messages":[{"content_attributes":{"sender":{"id":5,"type":"contact"}}}]}]"#), NONE);
    // Twice: both count.
    assert_eq!(contacts(r#"[{"contact":{"id":1,"id":2},"contact":{"id":3}}]"#), [1, 2, 3]);
    assert_eq!(contacts(r#"[{"messages":[{"sender":{"id":1,"type":"contact","id":2,"type":"user"}}]}]"#), [1, 2]);
    // Digits in quotes count; what is no id is passed over.
    assert_eq!(contacts(r#"[{"contact":{"id":"77"}},{"contact":{"id":"\u0037"}}]"#), [7, 77]);
    for id in ["1.5", "-1", "1e3", "true", "null", "{}", "[1]", r#""""#, r#""x""#, "18446744073709551616"] {
        assert_eq!(contacts(&format!(r#"[{{"contact":{{"id":{id}}}}}]"#)), NONE, "{id}");
    }
    assert_eq!(contacts(r#"[{"contact":{"id":18446744073709551615}}]"#), [u64::MAX]);
    // Without a contact the attachments, or the other conversations, name the account.
    let outcome = check(r#"[{"id":3,"contact":null,"messages":[{"attachments":[null,{"account_id":9}]}]},{"id":4}]"#);
    assert_eq!(outcome.scopes.conversations().collect::<Vec<_>>(), [(9, 3), (9, 4)]);
    // As a database compares them.
    let outcome = check(r#"[{"uuid":"AbC-1"},{"uuid":"aBc-1"},{"uuid":"\u0041bc-1"}]"#);
    assert_eq!(outcome.scopes.uuids, ["abc-1"]);
}

#[test]
fn off_looks_for_no_violations_and_reads_the_scopes_all_the_same() {
    let settings = PayloadSettings { validate: Validate::Off, trim: Trim::none() };
    let body = Bytes::from_static(br#"[{"contact":{"id":4}}]"#);
    let outcome = apply(&body, &settings).expect("a list");
    assert!(outcome.violations.is_empty());
    assert_eq!(outcome.scopes.contacts, [4]);
}

#[test]
fn weights_say_where_the_bytes_are() {
    let body = Bytes::from_static(br#"[{"id":1,"messages":[{"id":22,"content":"abc"}]}]"#);
    let (_, weights) = weigh(ReadKind::Conversations, &body, &PayloadSettings::default()).expect("a list");
    assert_eq!(
        weights,
        [("id", 6), ("messages", 38), ("messages.id", 7), ("messages.content", 15)],
        "each with its key; parents include their parts"
    );
}

mod contract {
    use super::*;

    /// Tells whether the exported schema says the same of every single mutation.
    #[test]
    fn json_schema_agrees_on_every_single_change_of_the_page() {
        let validator = |read| jsonschema::validator_for(&json_schema(read)).expect("a valid schema");
        let validators = ReadKind::ALL.map(validator);
        let values = [
            json!(7),
            json!(7.5),
            json!("open"),
            json!("x"),
            json!(true),
            json!({}),
            json!([]),
            json!([1]),
            json!([null]),
        ];
        for field in fields() {
            for value in values.iter().cloned().map(Some).chain([Some(Value::Null), None]) {
                for (read, body) in documents_with(field.path, value.as_ref()) {
                    let document = serde_json::from_slice(&body).expect("valid JSON");
                    let ours = check_of(read, &body).violations.is_empty();
                    let theirs = validators[read as usize].is_valid(&document);
                    assert_eq!(ours, theirs, "{read:?}: {} = {value:?}", field.path);
                }
            }
        }
    }
}

//! Properties over random lists: shaped like the contract, with parts changed, dropped, doubled, misspelt and broken.

use std::fmt::Write as _;

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::parse;
use super::*;
use crate::policy::payload::schema::{CONVERSATION, Kind, Shape};

/// Any JSON value as text, with spellings that a parser would lose.
fn any_value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        (-5_i64..200).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        prop::sample::select(vec!["1280.0", "607.5", "1e2", "-0", "9007199254740993.0", "1E-2", "0.10"])
            .prop_map(str::to_owned),
        any_string(),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        let members = vec((any_key(), inner.clone()), 0..3);
        prop_oneof![
            vec(inner, 0..3).prop_map(|all| format!("[{}]", all.join(","))),
            members.prop_map(|all| object(&all)),
        ]
    })
}

/// Half of a surrogate pair, which makes a pair with nothing else here.
const HALF: &str = "\\udead";

fn any_string() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "open",
        "resolved",
        "contact",
        "user",
        "7",
        "é",
        "\u{1F600}",
        "\\u003c",
        "\\\"",
        "\\\\",
        "\\ud83d\\ude00",
        HALF,
        "]",
        "{",
        "long text ",
    ]);
    vec(piece, 0..3).prop_map(|all| format!("\"{}\"", all.concat()))
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "id",
        "email",
        "type",
        "status",
        "created_at",
        "x",
        "st\\u0061tus",
        "\\u0069d",
        "messages",
    ])
    .prop_map(|key| format!("\"{key}\""))
}

fn object(members: &[(String, String)]) -> String {
    let mut text = "{".to_owned();
    for (i, (key, value)) in members.iter().enumerate() {
        write!(text, "{}{key}:{value}", if i > 0 { "," } else { "" }).expect("strings grow");
    }
    text + "}"
}

/// A value that fits the field, most of the time.
fn value_of(kind: Kind, nullable: bool) -> BoxedStrategy<String> {
    let fitting = match kind {
        Kind::Integer => (0..200_i32).prop_map(|n| n.to_string()).boxed(),
        Kind::Number => prop::sample::select(vec!["800", "607.5"]).prop_map(str::to_owned).boxed(),
        Kind::Text => any_string().boxed(),
        Kind::Flag => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        Kind::Status => prop::sample::select(schema::STATUSES.to_vec()).prop_map(|s| format!("\"{s}\"")).boxed(),
        Kind::Texts => vec(any_string(), 0..3).prop_map(|all| format!("[{}]", all.join(","))).boxed(),
        Kind::Opaque => vec((any_key(), any_value()), 0..3).prop_map(|all| object(&all)).boxed(),
        Kind::Anything => any_value().boxed(),
        Kind::One(shape) => object_of(shape),
        Kind::Many(shape) => vec(object_of(shape), 0..4).prop_map(|all| format!("[{}]", all.join(","))).boxed(),
    };
    let null = if nullable { 2 } else { 0 };
    prop_oneof![40 => fitting, 1 + null => Just("null".to_owned()), 1 => any_value()].boxed()
}

fn object_of(shape: &'static Shape) -> BoxedStrategy<String> {
    let members: Vec<_> = shape
        .fields
        .iter()
        .map(|field| {
            let absent = if field.required { 1 } else { 20 };
            let member = value_of(field.kind, field.nullable).prop_map(|value| (format!("\"{}\"", field.name), value));
            prop::option::weighted(1.0 - f64::from(absent) / 60.0, member)
        })
        .collect();
    let doubled = value_of(Kind::Status, false).prop_map(|status| ("\"status\"".to_owned(), status));
    let extra = prop::option::weighted(0.2, prop_oneof![(any_key(), any_value()), doubled]);
    (members, extra, 0..40_usize)
        .prop_map(|(members, extra, rotation)| {
            let mut members: Vec<_> = members.into_iter().flatten().chain(extra).collect();
            let middle = if rotation < members.len() { rotation } else { 0 };
            members.rotate_left(middle);
            object(&members)
        })
        .boxed()
}

/// Lists much like the server's, with a mistake here and there.
fn list() -> impl Strategy<Value = String> {
    let element = prop_oneof![30 => object_of(&CONVERSATION), 1 => any_value()];
    vec(element, 0..4).prop_map(|all| format!("[{}]", all.join(",")))
}

const DROPS: [&str; 12] = [
    "id",
    "uuid",
    "messages",
    "messages.id",
    "messages.created_at",
    "messages.sender.email",
    "messages.attachments.meta.id",
    "messages.content_attributes.email.type",
    "contact",
    "contact.email",
    "contact.custom_attributes.x",
    "x.id?",
];

type Rules = (Option<usize>, Vec<&'static str>, String, bool);

fn rules() -> impl Strategy<Value = Rules> {
    let statuses = prop_oneof![Just(vec![]), Just(vec!["open"]), Just(vec!["resolved", "pending", "open"])];
    let drop = prop::sample::subsequence(DROPS.to_vec(), 0..4).prop_map(|paths| paths.join(" "));
    let newest = prop::option::of(prop_oneof![9 => 0..4_usize, 1 => Just(5_000)]);
    (newest, statuses, drop, any::<bool>())
}

fn settings((messages, statuses, drop, sort): &Rules) -> PayloadSettings {
    trimming(*messages, statuses, drop, *sort)
}

/// White space wherever JSON allows it.
fn spaced(json: &str) -> String {
    let mut inside = false;
    let mut escaped = false;
    let mut out = String::new();
    for c in json.chars() {
        inside ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        if !inside && "{}[],:".contains(c) {
            write!(out, " {c}\n\t").expect("strings grow");
        } else {
            out.push(c);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// What comes out is what the slow way makes of it, byte for byte: kept parts stand as they stood.
    #[test]
    fn trims_as_the_model_does(list in list(), rules in rules()) {
        let (messages, statuses, drop, sort) = &rules;
        let expected = parse(&list).trim(*messages, statuses, drop, *sort).write();
        let outcome = apply(&Bytes::from(list.clone()), &settings(&rules)).expect("a list");
        prop_assert_eq!(std::str::from_utf8(&outcome.body).expect("UTF-8"), &expected);
        prop_assert_eq!(outcome.changed, expected != list);
    }

    #[test]
    fn output_is_valid_and_holds_nothing_dropped_nor_new(list in list(), rules in rules()) {
        let list = spaced(&list);
        let out = trimmed(&list, &settings(&rules));
        prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&out).is_ok());
        let tree = parse(&out);
        for path in rules.2.split_whitespace() {
            let path: Vec<&str> = path.trim_end_matches('?').split('.').collect();
            prop_assert!(!tree.has(&path), "{:?} in {}", path, out);
        }
        let (before, mut kept) = (parse(&list), Vec::new());
        let mut all = Vec::new();
        before.scalars(&mut all);
        tree.scalars(&mut kept);
        all.sort_unstable();
        for scalar in kept {
            prop_assert!(all.binary_search(&scalar).is_ok(), "{} is spelt as it was", scalar);
        }
    }

    #[test]
    fn trimming_twice_is_trimming_once(list in list(), rules in rules()) {
        let settings = settings(&rules);
        let once = trimmed(&list, &settings);
        let twice = apply(&Bytes::from(once.clone()), &settings).expect("a list");
        prop_assert!(!twice.changed);
        prop_assert_eq!(&twice.body[..], once.as_bytes());
    }

    #[test]
    fn scopes_do_not_depend_on_rules_or_white_space(list in list(), rules in rules()) {
        let outcome = apply(&Bytes::from(spaced(&list)), &settings(&rules)).expect("a list");
        prop_assert_eq!(outcome.scopes, scopes(list.as_bytes()).expect("a list"));
    }

    /// Documents without doubled keys: of those a `Value` shows only the last.
    #[test]
    fn the_jsonschema_crate_agrees(list in list()) {
        let validator = jsonschema::validator_for(&json_schema(ReadKind::Conversations)).expect("a valid schema");
        // A `Value` has no place for half a surrogate pair.
        let document: Value = list.replace(HALF, "\\ufffd").parse().expect("valid JSON");
        let body = Bytes::from(document.to_string());
        let outcome = check(body);
        prop_assert_eq!(outcome.violations.is_empty(), validator.is_valid(&document), "{:?}", outcome.violations);
    }

    #[test]
    fn random_bytes_are_refused_or_read_as_serde_json_would(bytes in vec(any::<u8>(), 0..200)) {
        agrees(&bytes)?;
    }

    #[test]
    fn broken_lists_are_refused_or_read_as_serde_json_would(
        list in list(),
        edits in vec((any::<prop::sample::Index>(), prop::sample::select(b"{}[]\",:\\u0-.e \n\x00\x80\xfftn".to_vec())), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = list.into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        agrees(&bytes)?;
    }
}

/// The same verdict as `serde_json` on a `Value`, except for what a `Value` has no place for.
fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_slice::<Value>(bytes);
    let everything = trimming(Some(1), &["open"], "messages.id contact", true);
    let ours = apply(&Bytes::copy_from_slice(bytes), &everything);
    if let Err(error) = &theirs
        && has_no_place_in_a_value(error)
    {
        return Ok(());
    }
    prop_assert_eq!(ours.is_ok(), theirs.as_ref().is_ok_and(Value::is_array), "{:?} {:?}", ours.err(), theirs.err());
    Ok(())
}

/// A number too large for a float is a number, and half of a surrogate pair is JSON.
fn has_no_place_in_a_value(error: &serde_json::Error) -> bool {
    let told = error.to_string();
    ["out of range", "lone leading surrogate", "unexpected end of hex escape"].iter().any(|why| told.contains(why))
}

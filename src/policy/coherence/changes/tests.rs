//! Every row of `api.md` section 7.4, wrong shapes, and lists in another order.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// When the older list was asked for.
const ASKED: u64 = 1_781_182_950_000;
const OLDER: Older = Older { asked: ASKED, by_status: false, newest: None };

/// Every sample of the contract's tests.
const SAMPLES: [&str; 4] = [
    crate::policy::payload::tests::PAGE_EXAMPLE,
    include_str!("../../../../tests/fixtures/payload/list-typical.json"),
    include_str!("../../../../tests/fixtures/payload/list-edge-cases.json"),
    include_str!("../../../../tests/fixtures/payload/list-older-server.json"),
];

fn typical() -> Value {
    SAMPLES[1].parse().expect("a valid sample")
}

fn between(old: &Value, new: &Value, older: Older) -> Changes {
    compare(old.to_string().as_bytes(), new.to_string().as_bytes(), older)
}

/// What is found, with the times as seconds after the older list was asked for.
fn found(changes: &Changes) -> Vec<(Change, Option<i64>)> {
    let after = |since: u64| (since.cast_signed() - ASKED.cast_signed()) / 1000;
    Change::ALL.into_iter().filter(|it| changes.has(*it)).map(|it| (it, changes.since(it).map(after))).collect()
}

fn changed(older: Older, change: impl FnOnce(&mut Value)) -> Changes {
    let old = typical();
    let mut new = old.clone();
    change(&mut new);
    between(&old, &new, older)
}

/// Unix seconds, so many after the older list was asked for.
fn seconds(after: i64) -> i64 {
    ASKED.cast_signed() / 1000 + after
}

fn message(id: u64, after: i64) -> Value {
    json!({
        "id": id, "content": "new", "message_type": 1, "content_type": "text", "content_attributes": {},
        "created_at": seconds(after), "conversation_id": 118,
    })
}

fn add(messages: &mut Value, message: Value) {
    messages.as_array_mut().expect("messages").push(message);
}

/// The first message from the contact, and the first from an agent.
fn sender<'a>(list: &'a mut Value, kind: &str) -> &'a mut Value {
    let messages = list[0]["messages"].as_array_mut().expect("messages");
    &mut messages.iter_mut().find(|message| message["sender"]["type"] == kind).expect("one of each kind")["sender"]
}

type Row = (&'static str, fn(&mut Value), &'static [(Change, Option<i64>)]);

/// `2026-06-11T13:02:35.000Z`, as the application writes times of contacts: 5 s after the older list was asked for.
const ISO_5: &str = "2026-06-11T13:02:35.000Z";

#[test]
#[rustfmt::skip] // A table.
fn every_row_of_the_table_is_told_apart() {
    let rows: &[Row] = &[
        ("agent, bot, campaign, automation, template message", |list| add(&mut list[0]["messages"], message(90000, 4)), &[
            (Change::MessageAdded, Some(4)),
        ]),
        ("several messages", |list| {
            add(&mut list[0]["messages"], message(90000, 9));
            add(&mut list[0]["messages"], message(90001, 7));
        }, &[(Change::MessageAdded, Some(7))]),
        ("private note, activity message: not in the list", |_| {}, &[]),
        ("message edited", |list| list[0]["messages"][2]["content"] = json!("edited"), &[(Change::MessageUpdated, None)]),
        ("message deleted", |list| {
            list[0]["messages"][2]["content"] = json!("This message was deleted");
            list[0]["messages"][2]["content_attributes"] = json!({ "deleted": true });
        }, &[(Change::MessageUpdated, None)]),
        ("survey answered", |list| list[0]["messages"][3]["content_attributes"]["submitted_values"] = json!({}), &[
            (Change::MessageUpdated, None),
        ]),
        ("delivery status", |list| list[0]["messages"][2]["content_attributes"]["external_error"] = json!(null), &[
            (Change::MessageUpdated, None),
        ]),
        ("attachment added", |list| list[0]["messages"][2]["attachments"] = json!([{ "id": 7 }]), &[
            (Change::MessageUpdated, None),
        ]),
        ("conversation created", |list| {
            let mut conversation = list[0].clone();
            conversation["id"] = json!(999);
            conversation["messages"] = json!([message(90000, 3), message(90001, 8)]);
            add(list, conversation);
        }, &[(Change::ConversationCreated, Some(3))]),
        ("conversation created without a message", |list| {
            let mut conversation = list[0].clone();
            conversation["id"] = json!(999);
            conversation["messages"] = json!([]);
            add(list, conversation);
        }, &[(Change::ConversationCreated, None)]),
        ("status", |list| list[0]["status"] = json!("snoozed"), &[(Change::StatusChanged, None)]),
        ("assignee, team, priority: not in the list", |_| {}, &[]),
        ("contact reads", |list| list[0]["contact_last_seen_at"] = json!(seconds(6)), &[(Change::ContactRead, Some(6))]),
        ("agent reads", |list| list[0]["agent_last_seen_at"] = json!(seconds(-2)), &[(Change::AgentRead, Some(-2))]),
        ("never read after all", |list| list[0]["agent_last_seen_at"] = json!(0), &[(Change::AgentRead, None)]),
        ("contact edited", |list| {
            list[0]["contact"]["name"] = json!("Somebody");
            list[0]["contact"]["updated_at"] = json!(ISO_5);
            sender(list, "contact")["name"] = json!("Somebody");
        }, &[(Change::ContactUpdated, Some(5))]),
        ("contact labelled", |list| list[0]["contact"]["label_list"] = json!(["new"]), &[(Change::ContactUpdated, None)]),
        ("contact blocked", |list| sender(list, "contact")["blocked"] = json!(true), &[(Change::ContactUpdated, None)]),
        ("contact active", |list| list[0]["contact"]["last_activity_at"] = json!(ISO_5), &[
            (Change::ContactUpdated, Some(5)),
        ]),
        ("contact saved, nobody knows what", |list| list[0]["contact"]["updated_at"] = json!(ISO_5), &[
            (Change::Other, Some(5)),
        ]),
        ("company linked", |list| {
            list[0]["contact"]["company_id"] = json!(77);
            list[0]["contact"]["updated_at"] = json!(ISO_5);
        }, &[(Change::CompanyLinked, Some(5))]),
        ("contact merged", |list| {
            list[0]["contact"]["id"] = json!(1);
            list[0]["contact"]["name"] = json!("Survivor");
            sender(list, "contact")["id"] = json!(1);
        }, &[(Change::ContactReplaced, None)]),
        ("contact being deleted", |list| list[0]["contact"] = json!(null), &[(Change::ContactReplaced, None)]),
        ("conversation deleted", |list| drop(list.as_array_mut().expect("a list").remove(0)), &[
            (Change::ConversationRemoved, None),
        ]),
        ("message gone", |list| drop(list[0]["messages"].as_array_mut().expect("messages").remove(1)), &[
            (Change::MessageRemoved, None),
        ]),
        ("agent renamed", |list| sender(list, "user")["name"] = json!("Agent"), &[(Change::SenderChanged, None)]),
        ("agent removed", |list| {
            list[0]["messages"][2].as_object_mut().expect("a message").remove("sender");
        }, &[(Change::SenderChanged, None)]),
        ("avatar downloaded", |list| sender(list, "contact")["thumbnail"] = json!("https://a.test/b.png"), &[
            (Change::FilledIn, None),
        ]),
        ("hmac_verified set", |list| {
            let mut conversation = list[0].clone();
            conversation["id"] = json!(999);
            add(list, conversation);
        }, &[(Change::ConversationMoved, None)]),
        ("message overlooked", |list| add(&mut list[0]["messages"], message(90000, -31)), &[
            (Change::MessageOverlooked, Some(-31)),
        ]),
        ("message committed late", |list| add(&mut list[0]["messages"], message(90000, -30)), &[
            (Change::MessageAdded, Some(-30)),
        ]),
        ("message without a time", |list| add(&mut list[0]["messages"], json!({ "id": 90000 })), &[
            (Change::MessageAdded, None),
        ]),
        ("keys of a fork", |list| {
            list[0]["group"] = json!({});
            list[0]["messages"][0]["group"] = json!(1);
        }, &[(Change::Other, None)]),
        ("new column of contacts", |list| list[0]["contact"]["mood"] = json!("good"), &[(Change::Other, None)]),
        ("what never changes", |list| list[0]["uuid"] = json!("another"), &[(Change::Other, None)]),
    ];
    for (name, change, expected) in rows {
        assert_eq!(found(&changed(OLDER, change)), *expected, "{name}");
    }
}

#[test]
fn a_message_that_was_given_an_old_time_was_not_overlooked() {
    for (conversation, id, expected) in [
        // Newer ones are there already: it was written before them, or after them with another time.
        (1, 88122, (Change::MessageOverlooked, Some(-31))),
        (1, 90000, (Change::MessageAdded, None)),
        // There is none.
        (0, 90000, (Change::MessageOverlooked, Some(-31))),
    ] {
        let changes = changed(OLDER, |list| add(&mut list[conversation]["messages"], message(id, -31)));
        assert_eq!(found(&changes), [expected], "{conversation} {id}");
    }
}

#[test]
fn measures_of_a_picture_come_later_and_nobody_tells() {
    let with = |picture: Value| {
        let mut list = typical();
        list[0]["messages"][2]["attachments"] = json!([{ "id": 6, "file_type": "file" }, picture, null]);
        list
    };
    let old = with(json!({ "id": 7, "width": null, "height": null, "transcribed_text": "" }));
    for (new, expected) in [
        (json!({ "id": 7, "width": 640, "height": 480.5, "transcribed_text": "" }), Change::FilledIn),
        (json!({ "id": 7, "width": null, "height": null, "transcribed_text": "Hello" }), Change::MessageUpdated),
        (json!({ "id": 8, "width": null, "height": null, "transcribed_text": "" }), Change::MessageUpdated),
        (json!(null), Change::MessageUpdated),
    ] {
        assert_eq!(found(&between(&old, &with(new), OLDER)), [(expected, None)]);
    }
}

#[test]
fn who_tells_is_as_in_the_table() {
    use Change::*;
    for (changes, expected) in [
        (&[][..], Verdict::Same),
        (&[AgentRead], Verdict::NoEvent),
        (&[ContactRead, SenderChanged, FilledIn, ContactReplaced, ConversationRemoved, Other], Verdict::NoEvent),
        (&[AgentRead, MessageAdded], Verdict::EventDue),
        (&[StatusChanged], Verdict::EventDue),
        (&[ContactUpdated], Verdict::EventDue),
        (&[MessageUpdated], Verdict::EventDue),
        (&[ConversationCreated], Verdict::EventDue),
        (&[MessageAdded, MessageOverlooked], Verdict::Overlooked),
    ] {
        let mut all = Changes::default();
        for change in changes {
            all.add(*change, None);
        }
        assert_eq!(all.verdict(), expected, "{changes:?}");
    }
    assert_eq!(Changes::gone().verdict(), Verdict::NoEvent);
}

#[test]
fn staleness_counts_from_the_change_to_the_last_reader() {
    let list = |since: Option<u64>| {
        let mut changes = Changes::default();
        changes.add(Change::StatusChanged, None);
        changes.add(Change::MessageAdded, since);
        changes.add(Change::MessageAdded, since.map(|since| since + 900));
        changes
    };
    for (since, asked, until, expected) in [
        (Some(10_000), 5_000, 17_500, Some(7_500)),
        (Some(10_000), 10_000, 10_001, Some(1)),
        (Some(10_000), 5_000, 10_000, None),
        (Some(10_000), 5_000, 9_000, None),
        // It was not served before it was asked for.
        (Some(1_000), 5_000, 9_000, Some(4_000)),
        (None, 5_000, 9_000, None),
    ] {
        assert_eq!(list(since).stale_for(asked, until), expected.map(Duration::from_millis), "{since:?}");
    }
}

#[test]
#[expect(clippy::many_single_char_names, reason = "messages in their order")]
fn messages_beyond_the_limit_are_neither_removed_nor_overlooked() {
    let limited = Older { newest: Some(3), ..OLDER };
    let list = |messages: &[&Value]| json!([{ "id": 1, "messages": messages }]);
    let times = [(1, -900), (2, -800), (3, -700), (4, 1), (5, 2), (6, 3)];
    let [a, b, c, d, e, f] = &times.map(|(id, after)| message(id, after));
    for (old, new, expected) in [
        (&[a, b, c][..], &[b, c, d][..], &[(Change::MessageAdded, Some(1))][..]),
        (&[a, b, c], &[c, d, e], &[(Change::MessageAdded, Some(1))]),
        (&[b, c], &[b, c, d], &[(Change::MessageAdded, Some(1))]),
        (&[b, c, d], &[a, b, c], &[(Change::MessageRemoved, None)]),
        (&[a, b], &[b], &[(Change::MessageRemoved, None)]),
        (&[a, b, c], &[a, c, d], &[(Change::MessageAdded, Some(1)), (Change::MessageRemoved, None)]),
        (&[c, d], &[b, c, d], &[(Change::MessageOverlooked, Some(-800))]),
        (&[], &[d], &[(Change::MessageAdded, Some(1))]),
        (&[a, b, c], &[d, e, f], &[(Change::MessageAdded, Some(1))]),
    ] {
        assert_eq!(found(&between(&list(old), &list(new), limited)), expected, "{old:?} {new:?}");
    }
    assert_eq!(
        found(&between(&list(&[a, b, c]), &list(&[b, c, d]), OLDER)),
        [(Change::MessageAdded, Some(1)), (Change::MessageRemoved, None),]
    );
}

#[test]
fn conversations_that_are_left_out_by_status_come_and_go_with_it() {
    let by_status = Older { by_status: true, ..OLDER };
    let none = json!([]);
    let older = json!([{ "id": 1, "messages": [message(1, -900)] }]);
    let newer = json!([{ "id": 1, "messages": [message(1, 2)] }]);
    assert_eq!(found(&between(&older, &none, by_status)), [(Change::StatusChanged, None)]);
    assert_eq!(found(&between(&none, &older, by_status)), [(Change::StatusChanged, None)]);
    assert_eq!(found(&between(&none, &newer, by_status)), [(Change::ConversationCreated, Some(2))]);
    assert_eq!(found(&between(&older, &none, OLDER)), [(Change::ConversationRemoved, None)]);
    assert_eq!(found(&between(&none, &older, OLDER)), [(Change::ConversationMoved, None)]);
}

#[test]
fn times_are_read_as_older_servers_write_them() {
    let list = |messages: Value| json!([{ "id": 1, "messages": messages }]);
    for created_at in [json!(seconds(4).to_string()), json!("2026-06-11T13:02:34.000Z"), json!(seconds(4))] {
        let new = list(json!([{ "id": 1, "created_at": created_at }]));
        assert_eq!(found(&between(&list(json!([])), &new, OLDER)), [(Change::MessageAdded, Some(4))]);
    }
    for created_at in [json!(0), json!(-5), json!("yesterday"), json!([1]), json!(null), json!(1e300)] {
        let new = list(json!([{ "id": 1, "created_at": created_at }]));
        assert_eq!(found(&between(&list(json!([])), &new, OLDER)), [(Change::MessageAdded, None)]);
    }
}

/// Whatever is where a list, a conversation, a message or a part of one belongs.
#[test]
fn what_cannot_be_read_is_a_change_nobody_tells_of() {
    let odd = [
        "",
        "null",
        "{}",
        "[",
        "[1,2]",
        "[[]]",
        "[null]",
        "\"x\"",
        "7",
        "[{\"id\":1",
        "[{\"messages\":7}]",
        "\u{feff}[]",
    ];
    let good = typical().to_string();
    for text in odd {
        for (old, new) in [(text, good.as_str()), (good.as_str(), text)] {
            let changes = compare(old.as_bytes(), new.as_bytes(), OLDER);
            assert_ne!(changes.verdict(), Verdict::Same, "{text}");
            assert_ne!(changes.verdict(), Verdict::Overlooked, "{text}");
        }
    }
    assert_eq!(found(&compare(b"[\xff]", b"[]", OLDER)), [(Change::Other, None)]);
    for place in
        ["", "/0", "/0/messages", "/0/messages/2", "/0/messages/2/sender", "/0/messages/0/sender", "/0/contact"]
    {
        for odd in [json!(7), json!("x"), json!([3]), json!({ "id": [] }), json!(null), json!([[[]]])] {
            let changes = changed(OLDER, |list| *list.pointer_mut(place).expect("there") = odd.clone());
            assert_ne!(changes.verdict(), Verdict::Same, "{place} {odd}");
        }
    }
}

#[test]
fn deep_and_wide_bodies_are_bounded() {
    let deep = format!("[{{\"id\":1,\"messages\":{}{}}}]", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("[{}0]", "1,".repeat(1_000_000));
    let keys: String = (0..100_000).map(|key| format!("\"{key}\":1,")).collect();
    let keys = format!("[{{{keys}\"id\":1}}]");
    for body in [&deep, &wide, &keys] {
        assert_eq!(found(&compare(b"[{\"id\":1}]", body.as_bytes(), OLDER)), [(Change::Other, None)]);
        assert!(found(&compare(body.as_bytes(), body.as_bytes(), OLDER)).is_empty());
    }
}

#[test]
fn spelling_and_the_order_of_keys_are_no_change() {
    let old = br#"[{"id":1,"status":"open","messages":[{"id":2,"content":"a"}]}]"#;
    let new = br#"[ {"status":"open", "messages":[{"content":"a","id":2}],"id":1} ]"#;
    assert_eq!(compare(old, new, OLDER).verdict(), Verdict::Same);
    // Of two members with one name the later one counts.
    let twice = br#"[{"id":1,"status":"resolved","status":"open","messages":[{"id":2,"content":"a"}]}]"#;
    assert_eq!(compare(old, twice, OLDER).verdict(), Verdict::Same);
}

#[test]
fn things_without_names_are_matched_by_what_they_say() {
    let list = |messages: &[&str]| json!([{ "messages": messages.iter().map(|content| json!({ "content": content })).collect::<Vec<_>>() }]);
    assert_eq!(found(&between(&list(&["a", "b"]), &list(&["c", "a", "b"]), OLDER)), [(Change::MessageAdded, None)]);
    assert_eq!(found(&between(&list(&["a", "b"]), &list(&["b", "c"]), OLDER)), [(Change::MessageUpdated, None)]);
}

/// A list of what samples have, some of it twice.
fn lists() -> impl Strategy<Value = Vec<Value>> {
    let all = SAMPLES.iter().flat_map(|sample| match sample.parse() {
        Ok(Value::Array(conversations)) => conversations,
        other => panic!("{other:?}"),
    });
    let odd = [json!(1), json!(null), json!({}), json!({ "id": null }), json!([])];
    prop::collection::vec(prop::sample::select(all.chain(odd).collect::<Vec<_>>()), 0..8)
}

proptest! {
    #[test]
    fn a_list_in_another_order_has_not_changed(
        (list, mixed) in lists().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        newest in proptest::option::of(0_usize..4),
        by_status: bool,
    ) {
        let older = Older { by_status, newest, ..OLDER };
        prop_assert_eq!(found(&between(&json!(list), &json!(list), older)), []);
        prop_assert_eq!(found(&between(&json!(list), &json!(mixed), older)), []);
    }

    #[test]
    fn messages_in_another_order_have_not_changed(
        mixed in Just(typical()[0]["messages"].as_array().expect("messages").clone()).prop_shuffle(),
    ) {
        prop_assert_eq!(found(&changed(OLDER, |list| list[0]["messages"] = json!(mixed))), []);
    }

    #[test]
    fn whatever_comes_is_compared(old in any::<Vec<u8>>(), new in any::<Vec<u8>>(), cut in 0_usize..4000) {
        compare(&old, &new, OLDER);
        let good = typical().to_string().into_bytes();
        let cut = &good[..cut.min(good.len())];
        compare(cut, &good, OLDER);
        compare(&good, cut, OLDER);
        compare(cut, &new, OLDER);
    }
}

use serde_json::{Value, json};

use super::*;

const SOURCE: &str = "9b9d46b9-8542-43f5-8077-082d54682581";
const CREATED: u64 = 1_781_182_950_000;
const UPDATED: u64 = 1_781_182_950_551;

fn webhook(name: &str) -> Value {
    let samples = include_bytes!("../../../../tests/fixtures/events/webhooks.json");
    serde_json::from_slice::<Value>(samples).unwrap()[name].clone()
}

/// The frames that the server of the sample sends.
fn frames() -> Vec<Value> {
    let samples = include_bytes!("../../../../tests/fixtures/events/cable-frames.json");
    let samples: Vec<Value> = serde_json::from_slice(samples).unwrap();
    samples.into_iter().filter(|sample| sample["dir"] == "server").map(|mut sample| sample["frame"].take()).collect()
}

fn message_frame() -> Value {
    frames().into_iter().find(|frame| frame["message"]["event"] == "message.created").unwrap()
}

/// A conversation's frame has the keys of its webhook, and the account beside them.
fn conversation_frame(event: &str) -> Value {
    let mut data = webhook("conversation_status_changed");
    for key in ["event", "account", "changed_attributes"] {
        data.as_object_mut().unwrap().remove(key);
    }
    data["account_id"] = json!(7);
    json!({ "identifier": message_frame()["identifier"], "message": { "event": event, "data": data } })
}

fn of_sample(sample: &Value) -> Option<Heard> {
    of_webhook(sample.to_string().as_bytes())
}

fn of_frame(frame: &Value) -> Option<Heard> {
    of_cable(&frame.to_string()).map(|overheard| overheard.heard)
}

fn touched(source: Option<&str>, contacts: &[u64], conversation: Option<(u64, u64)>) -> Touched {
    Touched { source: source.map(str::to_owned), contacts: contacts.to_vec(), conversation }
}

fn whole() -> Touched {
    touched(Some(SOURCE), &[5012], Some((7, 131)))
}

/// One change to a sample: a value in the place of another; `null` for the word "gone" takes the key away.
fn with(mut sample: Value, place: &str, value: Value) -> Value {
    let (parent, key) = place.rsplit_once('/').unwrap();
    let parent = sample.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value == "gone" {
        assert!(parent.remove(key).is_some(), "{place} was there");
    } else {
        parent.insert(key.to_owned(), value);
    }
    sample
}

#[test]
fn every_webhook_of_the_samples_is_read() {
    let heard =
        |event, touched, message, happened| Some(Heard { event, changes_lists: true, touched, message, happened });
    for (name, expected) in [
        ("message_created", heard(Event::MessageCreated, whole(), Some(88_125), Some(CREATED))),
        ("conversation_status_changed", heard(Event::ConversationStatusChanged, whole(), None, Some(UPDATED))),
        ("contact_updated", heard(Event::ContactUpdated, touched(None, &[5012], None), None, None)),
    ] {
        assert_eq!(of_sample(&webhook(name)), expected, "{name}");
    }
    let samples = include_bytes!("../../../../tests/fixtures/events/webhooks.json");
    assert_eq!(serde_json::from_slice::<Value>(samples).unwrap().as_object().unwrap().len(), 3, "all of them");
}

#[test]
fn every_frame_of_the_samples_is_read() {
    let event = |frame: &Value| of_frame(frame).map(|heard| (heard.event, heard.changes_lists));
    let read: Vec<_> = frames().iter().map(event).collect();
    let presence = Some((Event::Other, false));
    // welcome, confirm_subscription, presence.update, ping, message.created
    assert_eq!(read, [None, None, presence, None, Some((Event::MessageCreated, true))]);
    let heard = of_frame(&message_frame()).unwrap();
    assert_eq!((heard.touched, heard.happened), (touched(Some(SOURCE), &[], Some((7, 131))), Some(CREATED)));
    for (name, event) in [
        ("conversation.created", Event::ConversationCreated),
        ("conversation.updated", Event::ConversationUpdated),
        ("conversation.status_changed", Event::ConversationStatusChanged),
    ] {
        let heard = of_frame(&conversation_frame(name)).unwrap();
        assert_eq!(
            heard,
            Heard { event, changes_lists: true, touched: whole(), message: None, happened: Some(UPDATED) }
        );
    }
    for name in
        ["conversation.typing_on", "conversation.typing_off", "presence.update", "conversation.read", "", "message"]
    {
        assert!(!of_frame(&conversation_frame(name)).unwrap().changes_lists, "{name}");
    }
}

#[test]
fn what_is_wrong_in_one_place_of_a_webhook_loses_nothing_of_the_others() {
    let source = Some(SOURCE);
    for (place, value, expected) in [
        // The identifier of the contact.
        ("/conversation/contact_inbox/source_id", json!("gone"), touched(None, &[5012], Some((7, 131)))),
        ("/conversation/contact_inbox/source_id", json!(null), touched(None, &[5012], Some((7, 131)))),
        ("/conversation/contact_inbox/source_id", json!({}), touched(None, &[5012], Some((7, 131)))),
        (
            "/conversation/contact_inbox/source_id",
            json!(15_550_100),
            touched(Some("15550100"), &[5012], Some((7, 131))),
        ),
        (
            "/conversation/contact_inbox/source_id",
            json!("a\"\u{1F69A}\n"),
            touched(Some("a\"\u{1F69A}\n"), &[5012], Some((7, 131))),
        ),
        ("/conversation/contact_inbox", json!("gone"), touched(None, &[5012], Some((7, 131)))),
        ("/conversation/contact_inbox", json!(null), touched(None, &[5012], Some((7, 131)))),
        ("/conversation/contact_inbox", json!("text"), touched(None, &[5012], Some((7, 131)))),
        ("/conversation/contact_inbox", json!([{ "source_id": "s" }]), touched(None, &[5012], Some((7, 131)))),
        // The message's own.
        ("/source_id", json!("wamid.1"), whole()),
        ("/conversation/messages/0/source_id", json!("wamid.1"), whole()),
        ("/conversation/messages", json!(null), whole()),
        // The contact: named twice.
        ("/conversation/meta/sender/id", json!("gone"), whole()),
        ("/conversation/meta/sender/id", json!("5012"), whole()),
        ("/conversation/meta/sender/id", json!(5013), touched(source, &[5013, 5012], Some((7, 131)))),
        ("/conversation/meta/sender/id", json!(-1), whole()),
        ("/conversation/meta/sender/id", json!(5012.5), whole()),
        ("/conversation/meta/sender", json!(null), whole()),
        ("/conversation/meta", json!([]), whole()),
        ("/conversation/contact_inbox/contact_id", json!(null), whole()),
        // The conversation.
        ("/conversation/id", json!("131"), whole()),
        ("/conversation/id", json!(null), touched(source, &[5012], None)),
        ("/conversation/id", json!(u64::MAX), touched(source, &[5012], Some((7, u64::MAX)))),
        ("/account", json!("gone"), touched(source, &[5012], None)),
        ("/account", json!(7), touched(source, &[5012], None)),
        ("/account/id", json!("7"), whole()),
        ("/conversation", json!("gone"), Touched::default()),
        ("/conversation", json!(131), Touched::default()),
        ("/id", json!(null), whole()),
    ] {
        let sample = with(webhook("message_created"), place, value);
        let heard = of_sample(&sample).unwrap();
        assert_eq!((heard.touched, heard.changes_lists), (expected, true), "{place}");
    }
    // Conversation events name their account since 4.14.2 only.
    let older = with(webhook("conversation_status_changed"), "/account", json!("gone"));
    assert_eq!(of_sample(&older).unwrap().touched, touched(source, &[5012], None));
    for id in [json!(null), json!({}), json!("five"), json!("gone")] {
        let heard = of_sample(&with(webhook("contact_updated"), "/id", id)).unwrap();
        assert!(heard.touched.is_empty() && heard.changes_lists);
    }
    let widget = json!({ "event": "webwidget_triggered", "id": 1, "source_id": "s", "contact": { "id": 42 } });
    assert_eq!(of_sample(&widget).unwrap().touched, touched(Some("s"), &[42], None));
}

#[test]
fn what_is_wrong_in_one_place_of_a_frame_loses_nothing_of_the_others() {
    let (source, conversation) = (Some(SOURCE), Some((7, 131)));
    for (place, value, expected) in [
        ("/conversation/contact_inbox/source_id", json!("gone"), touched(None, &[], conversation)),
        ("/conversation/contact_inbox/source_id", json!(17), touched(Some("17"), &[], conversation)),
        ("/conversation/contact_inbox", json!(null), touched(None, &[], conversation)),
        ("/conversation", json!("text"), touched(None, &[], conversation)),
        ("/source_id", json!("wamid.1"), touched(source, &[], conversation)),
        ("/conversation_id", json!("131"), touched(source, &[], conversation)),
        ("/conversation_id", json!("gone"), touched(source, &[], None)),
        ("/account_id", json!(null), touched(source, &[], None)),
        ("/account_id", json!({ "id": 7 }), touched(source, &[], None)),
        // The id of an agent is none of a contact.
        ("/sender_type", json!("Contact"), touched(source, &[31], conversation)),
        ("/sender_type", json!("AgentBot"), touched(source, &[], conversation)),
        ("/sender_type", json!(null), touched(source, &[], conversation)),
        ("/sender_id", json!("gone"), touched(source, &[], conversation)),
        ("/id", json!([]), touched(source, &[], conversation)),
    ] {
        let frame = with(message_frame(), &format!("/message/data{place}"), value);
        assert_eq!(of_frame(&frame).unwrap().touched, expected, "{place}");
    }
    for (place, value, contacts) in [
        ("/meta/sender/id", json!(5013), &[5013, 5012][..]),
        ("/meta/sender", json!(null), &[5012]),
        ("/contact_inbox", json!(null), &[5012]),
    ] {
        let frame = with(conversation_frame("conversation.updated"), &format!("/message/data{place}"), value);
        assert_eq!(of_frame(&frame).unwrap().touched.contacts, contacts, "{place}");
    }
    // An agent's socket tells of contacts.
    let data = json!({ "id": 5012, "account_id": 7, "type": "contact" });
    let contact = json!({ "identifier": "{}", "message": { "event": "contact.updated", "data": data } });
    assert_eq!(of_frame(&contact).unwrap().touched, touched(None, &[5012], None));
}

#[test]
fn what_shows_in_no_list_changes_none() {
    for private in [json!(true), json!(false), json!("true"), json!(null), json!(1)] {
        // Only what is surely a note is one.
        let expected = private != true;
        let sample = with(webhook("message_created"), "/private", private.clone());
        assert_eq!(of_sample(&sample).unwrap().changes_lists, expected);
        let frame = with(message_frame(), "/message/data/private", private);
        assert_eq!(of_frame(&frame).unwrap().changes_lists, expected);
    }
    for event in Event::ALL {
        let expected = !matches!(event.label(), "inbox_created" | "inbox_updated")
            && !event.label().starts_with("conversation_typing");
        let sample = with(webhook("conversation_status_changed"), "/event", json!(event.label()));
        assert_eq!(of_sample(&sample).map(|heard| (heard.event, heard.changes_lists)), Some((event, expected)));
        let name = event.label().replacen('_', ".", 1);
        let heard = of_frame(&conversation_frame(&name)).unwrap();
        assert_eq!((heard.event, heard.changes_lists), (event, expected && event != Event::Other));
    }
}

#[test]
fn an_event_whose_name_nobody_knows_touches_what_it_names() {
    let of = |name: &str, sample: &str| of_sample(&with(webhook(sample), "/event", json!(name))).unwrap();
    for name in ["automation_event.message_created", "macro.executed", "conversation_opened", "of_next_year", ""] {
        for sample in ["conversation_status_changed", "message_created"] {
            let heard = of(name, sample);
            assert_eq!((heard.event, heard.changes_lists, &heard.touched), (Event::Other, true, &whole()), "{name}");
            assert_eq!(heard.identities().count(), 0, "a conversation is not another contact's: {name}");
        }
    }
    let of_text = |text: &str| of_webhook(text.as_bytes()).unwrap();
    let contact = of_text(r#"{"event":"contact_merged","contact":{"id":42}}"#);
    assert_eq!(contact.touched, touched(None, &[42], None));
    assert_eq!(contact.identities().collect::<Vec<_>>(), [Scope::Identity(42)]);
    for nobody in [r#"{"event":"new","id":7,"account":{"id":1}}"#, r#"{"event":"new"}"#] {
        let heard = of_text(nobody);
        assert_eq!((heard.changes_lists, heard.touched), (false, Touched::default()), "{nobody}");
    }
}

#[test]
fn only_an_event_of_a_message_proves_that_messages_are_told_of() {
    for event in Event::ALL {
        let heard = of_sample(&with(webhook("message_created"), "/event", json!(event.label()))).unwrap();
        assert_eq!(heard.tells_of_messages(), event == Event::MessageCreated, "{event:?}");
    }
    let note = with(webhook("message_created"), "/private", json!(true));
    assert!(of_sample(&note).unwrap().tells_of_messages(), "those of notes come on the same way");
    assert!(!of_webhook(br#"{"event":"message_created"}"#).unwrap().tells_of_messages(), "it names nobody");
}

#[test]
fn what_is_no_event_is_none() {
    let sample = webhook("message_created").to_string();
    let frame = message_frame().to_string();
    let deep = |with: &str| format!("{}{}{}", "[".repeat(100_000), with, "]".repeat(100_000));
    for text in [
        "",
        " ",
        "null",
        "7",
        "[]",
        "{}",
        "\"event\"",
        "{\"event\":null}",
        "{\"event\":{}}",
        "{\"event\"",
        "\u{feff}{}",
    ] {
        assert_eq!(of_webhook(text.as_bytes()), None, "{text}");
        assert_eq!(of_cable(text), None, "{text}");
        assert_eq!(of_cable(&format!("{{\"message\":{text}}}")), None, "{text}");
    }
    assert_eq!(of_webhook(b"{\"event\":\"\xff\"}"), None);
    // Cut off anywhere.
    for end in (0..sample.len()).filter(|end| sample.is_char_boundary(*end)) {
        assert_eq!(of_webhook(&sample.as_bytes()[..end]), None, "{end}");
    }
    for end in (0..frame.len()).filter(|end| frame.is_char_boundary(*end)) {
        assert_eq!(of_cable(&frame[..end]), None, "{end}");
    }
    assert_eq!(of_cable(&deep("")), None);
    assert_eq!(of_webhook(deep("").as_bytes()), None);
    // Another subscription's messages.
    assert_eq!(of_cable(r#"{"identifier":"x","message":"text"}"#), None);
    let bare = of_cable(r#"{"identifier":"x","message":{"event":"message.created"}}"#).unwrap();
    assert!(bare.heard.touched.is_empty() && bare.heard.changes_lists && bare.subscriber.is_none());
}

#[test]
fn odd_json_is_read_as_most_readers_have_it() {
    // Twice: the later one, each key for itself.
    let twice = r#"{"event":"x","event":"contact_updated","id":1,"id":{"id":3},"id":2}"#;
    assert_eq!(of_webhook(twice.as_bytes()).unwrap().touched, touched(None, &[2], None));
    let nested = r#"{"event":"message_created","conversation":{"id":1,"contact_inbox":{"source_id":"a","source_id":"b"}},
                     "conversation":{"contact_inbox":{"source_id":"c"},"contact_inbox":{"source_id":"d"}}}"#;
    assert_eq!(of_webhook(nested.as_bytes()).unwrap().touched, touched(Some("d"), &[], None));
    // Escaped.
    let escaped = r#"{"\u0065vent":"contact\u005fupdated","i\u0064":5}"#;
    assert_eq!(of_webhook(escaped.as_bytes()).unwrap().touched, touched(None, &[5], None));
    // Deep where nobody looks, and where somebody does.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let beside = format!(r#"{{"event":"contact_updated","custom_attributes":{deep},"id":5}}"#);
    assert_eq!(of_webhook(beside.as_bytes()).unwrap().touched, touched(None, &[5], None));
    let inside = format!(r#"{{"event":"contact_updated","id":{deep}}}"#);
    assert!(of_webhook(inside.as_bytes()).unwrap().touched.is_empty());
    // Numbers of any size.
    for number in [
        "18446744073709551616",
        "1e400",
        "-0",
        "5e0",
        "5.0",
        "99999999999999999999999999999999999999",
        "\"\"",
        "\"5 \"",
    ] {
        let text = format!(r#"{{"event":"contact_updated","id":{number},"updated_at":{number}}}"#);
        assert!(of_webhook(text.as_bytes()).unwrap().touched.is_empty(), "{number}");
    }
    for (number, expected) in
        [("1e400", None), ("-1", None), ("0", None), ("1781182950.551", Some(UPDATED)), ("\"\"", None)]
    {
        let text = format!(r#"{{"event":"conversation_updated","updated_at":{number}}}"#);
        assert_eq!(of_webhook(text.as_bytes()).unwrap().happened, expected, "{number}");
    }
    // Half a pair of surrogates where nobody looks.
    let half = r#"{"event":"contact_updated","name":"\ud83d","id":5}"#;
    assert_eq!(of_webhook(half.as_bytes()).unwrap().touched, touched(None, &[5], None));
}

#[test]
fn the_subscriber_is_a_contact_or_nobody() {
    let subscriber = |text: &str| of_cable(text).and_then(|overheard| overheard.subscriber);
    let token = Some("pUbSuBtOkEnExAmPlE000001".to_owned());
    assert_eq!(subscriber(&message_frame().to_string()), token);
    let agent = r#"{"channel":"RoomChannel","pubsub_token":"t","account_id":7,"user_id":31}"#;
    for (identifier, expected) in [
        (json!(r#"{"pubsub_token":"t","user_id":null}"#), Some("t")),
        (json!(r#"{"pubsub_token":"t","user_id":""}"#), Some("t")),
        (json!(r#"{"pubsub_token":"u","pubsub_token":"t"}"#), Some("t")),
        (json!(agent), None),
        (json!(r#"{"channel":"RoomChannel"}"#), None),
        (json!(r#"{"pubsub_token":null}"#), None),
        (json!("{"), None),
        (json!("7"), None),
        (json!({ "pubsub_token": "t" }), None),
        (json!(null), None),
    ] {
        let frame = with(message_frame(), "/identifier", identifier.clone());
        assert_eq!(subscriber(&frame.to_string()).as_deref(), expected, "{identifier}");
    }
    assert_eq!(subscriber("{\"type\":\"ping\"}"), None);
}

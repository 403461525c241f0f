//! Fuzzing of the reading of events, webhooks and messages of the cable, against a reading by way of a tree: `make fuzz`.

mod mutator;

use std::collections::BTreeSet;

use anteroom::policy::coherence::event::{Event, Heard, Touched, of_cable, of_webhook};
use mutator::{Dice, Seed, mutated, number};
use serde_json::Value;

const BRIEFLY: u64 = 10_000;

/// The samples that tell of an event, each alone.
fn seeds() -> (Vec<Seed>, Vec<Seed>) {
    let webhooks: Value = serde_json::from_str(include_str!("../tests/fixtures/events/webhooks.json")).expect("valid");
    let frames: Value =
        serde_json::from_str(include_str!("../tests/fixtures/events/cable-frames.json")).expect("valid");
    let webhooks = webhooks.as_object().expect("samples by name");
    let frames = frames.as_array().expect("samples in order");
    let events = frames.iter().filter(|sample| sample["frame"]["message"]["event"].is_string());
    let mut in_frames: Vec<Seed> = events.map(|sample| Seed::new(&sample["frame"].to_string())).collect();
    // An event of the cable about a conversation is as the webhook's, but for its wrapping.
    let changed = serde_json::json!({ "identifier": "{}", "message": {
        "event": "conversation.updated", "data": webhooks["conversation_status_changed"] } });
    in_frames.push(Seed::new(&changed.to_string()));
    (webhooks.values().map(|sample| Seed::new(&sample.to_string())).collect(), in_frames)
}

fn id(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| Some(value.as_u64()?.to_string()))
}

fn of_conversation(conversation: &Value, account: &Value) -> Touched {
    let contacts = [&conversation["meta"]["sender"]["id"], &conversation["contact_inbox"]["contact_id"]];
    let mut contacts: Vec<u64> = contacts.into_iter().filter_map(id).collect();
    contacts.dedup();
    let source = text(&conversation["contact_inbox"]["source_id"]);
    Touched { source, contacts, conversation: id(account).zip(id(&conversation["id"])) }
}

/// What a webhook touches, by another way.
fn touched_by_webhook(value: &Value, event: Event) -> Touched {
    match event {
        Event::MessageCreated | Event::MessageUpdated => {
            of_conversation(&value["conversation"], &value["account"]["id"])
        }
        Event::ContactCreated | Event::ContactUpdated => {
            Touched { contacts: Vec::from_iter(id(&value["id"])), ..Touched::default() }
        }
        Event::WebwidgetTriggered => {
            let contacts = Vec::from_iter(id(&value["contact"]["id"]));
            Touched { source: text(&value["source_id"]), contacts, conversation: None }
        }
        Event::Other => of_any_name(value),
        _ => of_conversation(value, &value["account"]["id"]),
    }
}

/// What an event touches whose name nobody knows: whoever is named in it, by a conversation or as a contact.
fn of_any_name(value: &Value) -> Touched {
    let [outer, inner] = [value, &value["conversation"]].map(|it| of_conversation(it, &value["account"]["id"]));
    let contacts: BTreeSet<u64> =
        outer.contacts.into_iter().chain(inner.contacts).chain(id(&value["contact"]["id"])).collect();
    let source = inner.source.or(outer.source);
    if source.is_none() && contacts.is_empty() {
        // A number alone may be that of anything.
        return Touched::default();
    }
    Touched {
        source,
        contacts: contacts.into_iter().collect(),
        conversation: inner.conversation.or(outer.conversation),
    }
}

/// What a message of the cable touches, by another way.
fn touched_by_cable(data: &Value, event: Event) -> Touched {
    match event {
        Event::MessageCreated | Event::MessageUpdated => {
            let contact = id(&data["sender_id"]).filter(|_| data["sender_type"] == "Contact");
            let source = text(&data["conversation"]["contact_inbox"]["source_id"]);
            let conversation = id(&data["account_id"]).zip(id(&data["conversation_id"]));
            Touched { source, contacts: Vec::from_iter(contact), conversation }
        }
        Event::ContactCreated | Event::ContactUpdated => {
            Touched { contacts: Vec::from_iter(id(&data["id"])), ..Touched::default() }
        }
        _ => of_conversation(data, &data["account_id"]),
    }
}

/// What must hold of a reading, if the tree could be made at all.
fn examine(heard: Option<Heard>, name: &Value, touched: impl FnOnce(Event) -> Touched) {
    let named = text(name).map(|name| name.replacen('.', "_", 1));
    assert_eq!(heard.is_some(), named.is_some(), "an event has a name, and what has a name is an event");
    let (Some(heard), Some(named)) = (heard, named) else { return };
    let event = Event::ALL.into_iter().find(|event| event.label() == named).unwrap_or(Event::Other);
    assert_eq!(heard.event, event);
    assert_eq!(heard.touched, touched(event));
}

#[test]
fn fuzz_events() {
    let executions = number("ANTEROOM_FUZZ_EXECUTIONS", BRIEFLY);
    let mut dice = Dice(number("ANTEROOM_FUZZ_SEED", 0x5eed).max(1));
    let (webhooks, frames) = seeds();
    let mut read = 0;
    for execution in 0..executions {
        let of_a_webhook = dice.roll(2) == 0;
        let input = mutated(&mut dice, if of_a_webhook { &webhooks } else { &frames });
        let ended = std::panic::catch_unwind(|| {
            let tree = serde_json::from_slice::<Value>(&input);
            if of_a_webhook {
                let heard = of_webhook(&input);
                let has_heard = heard.is_some();
                if let Ok(value) = &tree {
                    examine(heard, &value["event"], |event| touched_by_webhook(value, event));
                }
                has_heard
            } else {
                let Ok(text) = std::str::from_utf8(&input) else { return false };
                let heard = of_cable(text).map(|overheard| overheard.heard);
                let has_heard = heard.is_some();
                if let Ok(value) = &tree {
                    let message = &value["message"];
                    examine(heard, &message["event"], |event| touched_by_cable(&message["data"], event));
                }
                has_heard
            }
        });
        assert!(ended.is_ok(), "execution {execution} on {:?}", String::from_utf8_lossy(&input));
        read += u64::from(ended.unwrap_or_default());
    }
    // A mutator that makes only rubbish would test nothing but the refusal.
    assert!(read * 4 > executions, "{read} of {executions} inputs were events");
}

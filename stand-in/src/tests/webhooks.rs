//! Webhooks as their receiver sees them.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::json::{Map, Value as Ordered};
use super::super::{Delivery, Fate, OTHER_INBOX, Options, StandIn, Trouble, Webhook};
use super::receiver::{Received, Receiver, SECRET, assert_signed};
use super::{contact_path, list, send, start};

/// The same keys in the same order, and values of the same types.
pub(super) fn assert_same_shape(sample: &Ordered, actual: &Ordered, place: &str) {
    let kind = |value: &Ordered| match value {
        Ordered::Null => "null",
        Ordered::Bool(_) => "bool",
        Ordered::Number(number) if number.is_f64() => "float",
        Ordered::Number(_) => "int",
        Ordered::String(_) => "string",
        Ordered::Array(_) => "array",
        Ordered::Object(_) => "object",
    };
    assert_eq!(kind(sample), kind(actual), "{place}: {actual}");
    match (sample, actual) {
        (Ordered::Object(sample), Ordered::Object(actual)) => {
            let keys = |it: &Map| it.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(sample), keys(actual), "{place}");
            sample.iter().for_each(|(key, it)| assert_same_shape(it, &actual[key], &format!("{place}.{key}")));
        }
        (Ordered::Array(sample), Ordered::Array(actual)) => {
            assert_eq!(sample.len(), actual.len(), "{place}");
            sample.iter().zip(actual).for_each(|(one, other)| assert_same_shape(one, other, &format!("{place}[]")));
        }
        _ => {}
    }
}

fn events(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|it| it.event.as_str()).collect()
}

async fn contact_writes(stand_in: &StandIn, source_id: &str, conversation: i64) {
    let path = format!("{}/{conversation}/messages", list(source_id));
    send(stand_in, "POST", &path, &json!({"content": "hello"})).await;
}

fn list_text(stand_in: &StandIn, source_id: &str) -> String {
    String::from_utf8(stand_in.list_body(source_id).to_vec()).expect("JSON")
}

#[tokio::test]
async fn a_signed_delivery_verifies_and_an_unsigned_one_has_no_signature() {
    let (stand_in, mut signed, mut unsigned) = (start().await, Receiver::start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&signed.url).signed_with(SECRET));
    stand_in.send_webhooks_to(Webhook::account(&unsigned.url));
    stand_in.agent_message("visitor-a", "It is <here> 🚚");
    let (one, other) = (signed.next().await, unsigned.next().await);
    assert_signed(&one.headers, &one.body);
    assert_eq!(one.body, other.body);
    assert!(String::from_utf8_lossy(&one.body).contains("It is \\u003chere\\u003e 🚚"));
    for received in [&one, &other] {
        assert_eq!(received.line, "POST /hooks?token=letmein HTTP/1.1");
        assert_eq!(
            (received.header("content-type"), received.header("accept")),
            ("application/json", "application/json")
        );
        let id = received.header("x-chatwoot-delivery");
        assert_eq!((id.len(), id.split('-').map(str::len).collect::<Vec<_>>()), (36, vec![8, 4, 4, 4, 12]));
    }
    assert_ne!(one.header("x-chatwoot-delivery"), other.header("x-chatwoot-delivery"));
    assert_eq!((other.header("x-chatwoot-signature"), other.header("x-chatwoot-timestamp")), ("", ""));
    stand_in.wait_for_deliveries("both", |all| all.len() == 2).await;
    for delivery in stand_in.deliveries() {
        assert_eq!(delivery.fate, Fate::Answered(StatusCode::NO_CONTENT));
        assert!(delivery.headers.iter().all(|(name, value)| [&one, &other].iter().any(|it| it.headers[name] == value)));
    }
}

#[tokio::test]
async fn payloads_have_the_keys_of_the_samples_in_their_order() {
    let (stand_in, receiver) = (start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url));
    stand_in.agent_message("visitor-a", "Sorry about that!");
    contact_writes(&stand_in, "visitor-a", 131).await;
    stand_in.agent_message("visitor-a", "Thanks!");
    stand_in.agent_toggle_status("visitor-a");
    stand_in.wait_for_deliveries("all", |all| all.len() == 6).await;
    let samples: Ordered =
        serde_json::from_str(include_str!("../../../tests/fixtures/events/webhooks.json")).expect("JSON");
    for (event, sample) in samples.as_object().expect("an object") {
        let deliveries = stand_in.deliveries();
        let from_agent = |it: &Ordered| event != "message_created" || it["message_type"] == "outgoing";
        let read = |it: &Delivery| serde_json::from_slice::<Ordered>(&it.body).expect("JSON");
        let payloads = deliveries.iter().filter(|it| it.event == *event).map(read);
        let payload = payloads.filter(from_agent).last().expect("it happened");
        assert_same_shape(sample, &payload, event);
    }
}

/// What exactly these events said, which an act causes.
async fn told<T>(stand_in: &StandIn, act: impl Future<Output = T>, expected: &[&str]) -> Vec<Value> {
    let before = stand_in.deliveries().len();
    act.await;
    stand_in.wait_for_deliveries(&expected.join(" "), |all| all.len() >= before + expected.len()).await;
    let deliveries = stand_in.deliveries().split_off(before);
    let mut names = events(&deliveries);
    names.sort_unstable();
    assert_eq!(names, expected);
    deliveries.iter().map(Delivery::json).collect()
}

#[tokio::test]
async fn every_event_tells_what_happened() {
    let (stand_in, receiver) = (&start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url));
    let (path, fields) = (contact_path(""), json!({"source_id": "new", "name": "New"}));
    let act = send(stand_in, "POST", path.trim_end_matches('/'), &fields);
    assert_eq!(told(stand_in, act, &["contact_created"]).await[0]["name"], "New");
    let (path, fields) = (list("new"), json!({}));
    let opened = told(stand_in, send(stand_in, "POST", &path, &fields), &["conversation_created"]).await;
    assert_eq!(opened[0]["messages"], json!([]));
    let id = stand_in.conversation_ids("new")[0];
    told(stand_in, contact_writes(stand_in, "new", id), &["contact_updated", "message_created"]).await;

    let note = told(stand_in, async { stand_in.agent_note("new", "psst") }, &["message_created"]).await;
    assert_eq!((&note[0]["private"], &note[0]["content"]), (&json!(true), &json!("psst")));
    assert_eq!(note[0]["conversation"]["messages"][0]["content"], "hello", "the newest message of the chat");
    let expected = ["conversation_status_changed", "conversation_updated"];
    let resolved = told(stand_in, async { stand_in.agent_toggle_status("new") }, &expected).await;
    let changed = json!([{"status": {"previous_value": "open", "current_value": "resolved"}}]);
    assert!(resolved.iter().all(|it| it["changed_attributes"] == changed), "and no activity message");
    let named = told(stand_in, async { stand_in.rename_contact("new", "Other") }, &["contact_updated"]).await;
    let changed = json!({"name": {"previous_value": "New", "current_value": "Other"}});
    assert_eq!(named[0]["changed_attributes"][0], changed);

    let answer = told(stand_in, async { stand_in.agent_message("new", "hi") }, &["message_created"]).await;
    let message_id = answer[0]["id"].as_i64().expect("an id");
    let edited = async { stand_in.edit_message("new", message_id, "ho") };
    assert_eq!(told(stand_in, edited, &["message_updated"]).await[0]["content"], "ho");
    let (path, fields) = (format!("{}/{id}/update_last_seen", list("new")), json!({}));
    let read = told(stand_in, send(stand_in, "POST", &path, &fields), &["message_updated"]).await;
    assert_eq!(read[0]["conversation"]["messages"][0]["status"], "read");
    send(stand_in, "POST", &path, &fields).await;
    let deleted = async { stand_in.delete_message("new", message_id) };
    let deleted = told(stand_in, deleted, &["message_updated"]).await;
    assert_eq!(deleted[0]["content_attributes"], json!({"deleted": true}), "reading again told nothing");
    assert!(list_text(stand_in, "new").contains("This message was deleted"));
}

#[tokio::test]
async fn the_webhook_of_the_inbox_knows_neither_contacts_nor_other_inboxes() {
    let (stand_in, receiver) = (&start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::api_inbox(&receiver.url));
    stand_in.rename_contact("visitor-a", "Other");
    send(stand_in, "POST", &list("visitor-b").replace(super::INBOX, OTHER_INBOX), &json!({})).await;
    let (path, fields) = (format!("{}/131/toggle_typing", list("visitor-a")), json!({"typing_status": "on"}));
    let typing = told(stand_in, send(stand_in, "POST", &path, &fields), &["conversation_typing_on"]).await;
    assert_eq!((&typing[0]["user"]["name"], &typing[0]["conversation"]["id"]), (&json!("Other"), &json!(131)));
    let typing = told(stand_in, async { stand_in.agent_types("visitor-a", false) }, &["conversation_typing_off"]).await;
    assert_eq!(typing[0]["user"]["type"], "user");
    told(stand_in, contact_writes(stand_in, "visitor-a", 131), &["message_created"]).await;
}

#[tokio::test]
async fn of_silent_changes_nobody_is_told() {
    let (stand_in, receiver) = (start().await, Receiver::start().await);
    stand_in.agent_message("visitor-c", "soon gone");
    let upload = "content-type: multipart/form-data; boundary=B\r\n";
    let picture = "--B\r\nContent-Disposition: form-data; name=\"attachments[]\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\nPNG\r\n--B--\r\n";
    super::ask(&stand_in, "POST", &format!("{}/131/messages", list("visitor-a")), upload, picture).await;
    stand_in.send_webhooks_to(Webhook::account(&receiver.url));
    stand_in.send_webhooks_to(Webhook::api_inbox(&receiver.url));
    let gate = stand_in.hold_deliveries();
    let silent: [(&str, &dyn Fn()); 6] = [
        ("visitor-a", &|| stand_in.touch_agent_last_seen("visitor-a")),
        ("visitor-a", &|| stand_in.rename_agent("Another Name")),
        ("visitor-a", &|| stand_in.analyse_attachments("visitor-a")),
        ("visitor-a", &|| stand_in.link_company("visitor-a")),
        ("visitor-c", &|| stand_in.delete_conversation("visitor-c")),
        ("visitor-a", &|| stand_in.delete_conversation("visitor-a")),
    ];
    for (number, (source_id, act)) in silent.iter().enumerate() {
        let before = stand_in.list_body(source_id);
        act();
        assert_ne!(stand_in.list_body(source_id), before, "act {number} changes the list");
    }
    stand_in.attach("visitor-a", "second");
    stand_in.verify("second");
    stand_in.delete_contact("visitor-a");
    // Deliveries come to the gate in the order of events as long as nothing delays them.
    stand_in.agent_message("visitor-c", "this is told");
    gate.arrived(4).await;
    gate.release_all();
    stand_in.wait_for_deliveries("what is told", |all| all.len() == 4).await;
    let deliveries = stand_in.deliveries();
    let mut names = events(&deliveries);
    names.sort_unstable();
    assert_eq!(names, ["conversation_created", "conversation_created", "message_created", "message_created"]);
}

#[tokio::test]
async fn merging_tells_of_the_survivor_only_if_he_gained() {
    let (stand_in, receiver) = (start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url).only(&["contact_updated", "message_created"]));
    let change = json!({"custom_attributes": {"shoe": 44}});
    send(&stand_in, "PATCH", &contact_path("phone:+15550100003"), &change).await;
    let survivor = stand_in.contact_id("visitor-a");
    stand_in.merge_contacts("visitor-a", "phone:+15550100003");
    stand_in.merge_contacts("visitor-a", "visitor-c");
    assert_eq!([stand_in.contact_id("phone:+15550100003"), stand_in.contact_id("visitor-c")], [survivor; 2]);
    stand_in.agent_message("visitor-a", "the end");
    stand_in.wait_for_deliveries("the end", |all| all.len() == 3).await;
    let deliveries = stand_in.deliveries();
    let gained = deliveries.iter().map(Delivery::json).find(|it| it["id"] == survivor).expect("told");
    assert_eq!(gained["custom_attributes"]["shoe"], 44);
    assert_eq!(events(&deliveries).iter().filter(|it| **it == "contact_updated").count(), 2);
}

#[tokio::test]
async fn what_is_lost_never_arrives_and_what_comes_twice_has_two_ids() {
    let (stand_in, mut lossy, mut double) = (start().await, Receiver::start().await, Receiver::start().await);
    let none = Webhook::account(&lossy.url).with(Trouble { lost: 1.0, ..Trouble::default() });
    let two = Webhook::account(&double.url).with(Trouble { twice: 1.0, ..Trouble::default() });
    stand_in.send_webhooks_to(none);
    stand_in.send_webhooks_to(two);
    stand_in.agent_message("visitor-a", "one");
    stand_in.wait_for_deliveries("all three", |all| all.len() == 3).await;
    let (one, other) = (double.next().await, double.next().await);
    assert_eq!(one.body, other.body);
    assert_ne!(one.header("x-chatwoot-delivery"), other.header("x-chatwoot-delivery"));
    assert!(lossy.received.try_recv().is_err());
    assert_eq!(stand_in.deliveries().iter().filter(|it| it.fate == Fate::Lost && it.headers.is_empty()).count(), 1);
}

#[tokio::test]
async fn a_held_delivery_is_overtaken_and_comes_when_it_is_released() {
    let (stand_in, mut receiver) = (start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url).signed_with(SECRET));
    let gate = stand_in.hold_deliveries_when(|it| it.event == "message_created");
    stand_in.agent_message("visitor-a", "first");
    stand_in.agent_message("visitor-a", "second");
    stand_in.agent_types("visitor-a", true);
    gate.arrived(2).await;
    let event = |received: &Received| serde_json::from_slice::<Value>(&received.body).expect("JSON")["event"].clone();
    assert_eq!(event(&receiver.next().await), "conversation_typing_on");
    gate.release_one();
    stand_in.wait_for_deliveries("the released one", |all| all.len() == 2).await;
    assert_eq!(event(&receiver.next().await), "message_created");
    drop(gate);
    let last = receiver.next().await;
    assert_signed(&last.headers, &last.body);
    assert_eq!(event(&last), "message_created");
}

#[tokio::test]
async fn an_old_delivery_can_be_sent_again_and_overheard() {
    let (stand_in, mut receiver) = (start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url).signed_with(SECRET));
    stand_in.agent_message("visitor-a", "once");
    let first = receiver.next().await;
    stand_in.wait_for_deliveries("the first", |all| all.len() == 1).await;
    let delivery = stand_in.deliveries().remove(0);
    // Whoever was taken away still gets what a test sends him.
    stand_in.stop_webhooks();
    assert_eq!(stand_in.deliver_again(&delivery).await.status(), Some(StatusCode::NO_CONTENT));
    let again = receiver.next().await;
    assert_eq!((&again.body, again.header("x-chatwoot-delivery")), (&first.body, delivery.id.as_str()));
    assert_signed(&again.headers, &again.body);
    assert_eq!(stand_in.replay_delivery(&delivery).await.status(), Some(StatusCode::NO_CONTENT));
    assert_eq!(receiver.next().await.headers, first.headers);
    assert_eq!(stand_in.deliveries().len(), 3);
}

#[tokio::test]
async fn a_message_that_the_inbox_webhook_does_not_take_has_failed() {
    for (status, complaint) in [("500 Oops", "500 Internal Server Error"), ("302 Found", "302 Found")] {
        let (stand_in, receiver) = (start().await, Receiver::answering(Some(status)).await);
        stand_in.send_webhooks_to(Webhook::account(&receiver.url));
        stand_in.agent_message("visitor-a", "nobody minds");
        stand_in.wait_for_deliveries("the failure", |all| all.len() == 1).await;
        assert!(!list_text(&stand_in, "visitor-a").contains(complaint));

        stand_in.stop_webhooks();
        stand_in.send_webhooks_to(Webhook::api_inbox(&receiver.url));
        stand_in.agent_message("visitor-a", "this matters");
        let updated = |all: &[Delivery]| all.iter().filter(|it| it.event == "message_updated").count();
        stand_in.wait_for_deliveries("the update", |all| updated(all) == 1).await;
        let expected = format!("\"content_attributes\":{{\"external_error\":\"{complaint}\"}}");
        assert!(list_text(&stand_in, "visitor-a").contains(&expected));
        let update = stand_in.deliveries().pop().expect("the last");
        assert_eq!(update.json()["conversation"]["messages"][0]["status"], "failed");
        // The update has failed as well. That would have changed nothing, so nothing more is told.
        stand_in.agent_types("visitor-a", true);
        stand_in.wait_for_deliveries("the end", |all| all.len() == 4).await;
        assert_eq!(updated(&stand_in.deliveries()), 1);
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_has_failed_too() {
    let stand_in = start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    stand_in.send_webhooks_to(Webhook::api_inbox(format!("http://{nobody}/")));
    stand_in.agent_message("visitor-a", "into the void");
    stand_in.wait_for_deliveries("both", |all| all.len() == 2).await;
    assert!(stand_in.deliveries().iter().all(|it| it.fate == Fate::Failed));
    assert!(list_text(&stand_in, "visitor-a").contains("\"external_error\":\"Failed"));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_answer_is_given_up_after_five_seconds() {
    let (stand_in, receiver) = (start().await, Receiver::answering(None).await);
    stand_in.send_webhooks_to(Webhook::api_inbox(&receiver.url).only(&["message_created"]));
    let started = tokio::time::Instant::now();
    stand_in.agent_message("visitor-a", "hello?");
    stand_in.wait_for_deliveries("the failure", |all| all.len() == 1).await;
    assert_eq!(stand_in.deliveries()[0].fate, Fate::TimedOut);
    assert!(started.elapsed() >= Duration::from_secs(5) && started.elapsed() < Duration::from_secs(6));
    assert!(list_text(&stand_in, "visitor-a").contains("Timed out"));
}

#[tokio::test]
async fn what_was_not_sent_ends_with_its_receiver_and_with_the_stand_in() {
    let (stand_in, mut receiver) = (start().await, Receiver::start().await);
    stand_in.send_webhooks_to(Webhook::account(&receiver.url));
    let gate = stand_in.hold_deliveries();
    stand_in.agent_message("visitor-a", "held");
    gate.arrived(1).await;
    stand_in.stop_webhooks();
    gate.release_all();
    stand_in.agent_message("visitor-a", "for nobody");
    stand_in.send_webhooks_to(Webhook::account(&receiver.url));
    stand_in.agent_types("visitor-a", true);
    stand_in.wait_for_deliveries("the new one", |all| all.len() == 1).await;
    assert!(String::from_utf8_lossy(&receiver.next().await.body).contains("typing_on"));

    let late = Trouble { delay: Duration::from_secs(3600)..=Duration::from_secs(3600), ..Trouble::default() };
    stand_in.send_webhooks_to(Webhook::account(&receiver.url).with(late));
    let gate = stand_in.hold_deliveries();
    stand_in.agent_message("visitor-a", "one is held, one is not due");
    gate.arrived(1).await;
    stand_in.stop().await;
    assert!(receiver.received.try_recv().is_err());
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let (stand_in, receiver) = (start().await, Receiver::start().await);
    let webhook = Webhook::account(&receiver.url).signed_with(SECRET);
    stand_in.send_webhooks_to(webhook.clone());
    let source_id = "9b9d46b9-8542-43f5-8077-082d54682581";
    let options = Options::default();
    stand_in.recreate_contact(source_id);
    stand_in.agent_message(source_id, "hush");
    stand_in.wait_for_deliveries("three", |all| all.len() == 3).await;
    let deliveries = stand_in.deliveries();
    let signature = deliveries[0].headers["x-chatwoot-signature"].to_str().expect("text").to_owned();
    let shown = format!("{webhook:?} {deliveries:?} {stand_in:?} {options:?}");
    for secret in [SECRET, "letmein", source_id, "pUbSuB", "hush", &signature] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert!(shown.contains("message_created"));
}

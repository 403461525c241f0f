//! Webhooks: what is genuine puts lists out of date, everything is answered 204, and their silence is noticed.

use std::time::Duration;

use anteroom_stand_in::{INBOX, OTHER_INBOX, Options, Shape, StandIn, Trouble, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use sha2::Sha256;

use crate::support;
use crate::support::child::Program;
use crate::support::raw::{Talk, exchange};
use crate::support::{Answer, Proxy, get, jump, post, request, send, settings};

const SECRET: &str = "the application's secret";
const SETTINGS: &str = "webhook.secrets = [\"the application's secret\"]";
const PATH: &str = "/_anteroom/webhooks";
const A: &str = "visitor-a";

async fn both(more: &str) -> (StandIn, Proxy) {
    support::both(&format!("{SETTINGS}\n{more}")).await
}

/// A message of an agent, as the application tells of it.
fn message_created(stand_in: &StandIn, source: &str) -> String {
    serde_json::json!({
        "account": { "id": 7 },
        "conversation": { "id": 131, "contact_inbox": { "source_id": source, "contact_id": stand_in.contact_id(source) } },
        "source_id": "the message's own",
        "private": false,
        "event": "message_created",
    })
    .to_string()
}

fn signed(body: &str, timestamp: u64) -> [(&'static str, String); 2] {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    [("x-chatwoot-timestamp", timestamp.to_string()), ("x-chatwoot-signature", format!("sha256={digest}"))]
}

fn now() -> u64 {
    anteroom::engine::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

async fn tell(proxy: &Proxy, body: &str) -> Answer {
    let fields = signed(body, now());
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send(request("POST", &format!("{}{PATH}", proxy.url), &fields, body)).await
}

async fn counted(proxy: &Proxy, event: &str, result: &str) -> f64 {
    proxy.metric(&format!("anteroom_webhooks_total{{event=\"{event}\",result=\"{result}\"}}")).await
}

#[tokio::test]
async fn a_genuine_webhook_puts_the_list_out_of_date() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    stand_in.agent_message(A, "behind the proxy's back");
    assert!(proxy.list(A).await.is_hit(), "nobody has told");
    let answer = tell(&proxy, &message_created(&stand_in, A)).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::NO_CONTENT, ""));
    let read = proxy.list(A).await;
    assert!(!read.is_hit() && read.body == stand_in.list_body(A));
    assert!(proxy.list(A).await.is_hit());
    assert!((counted(&proxy, "message_created", "outdated").await - 1.0).abs() < 0.1);
    assert!((proxy.metric("anteroom_invalidations_total{source=\"webhook\"}").await - 1.0).abs() < 0.1);
    let ended = "anteroom_requests_total{method=\"POST\",outcome=\"webhook\",status_class=\"2xx\"}";
    proxy.wait_for_metric(ended, 1.0).await;
}

#[tokio::test]
async fn whatever_is_thought_of_it_the_answer_is_204_and_says_nothing() {
    let (stand_in, proxy) = both("webhook.unsigned_token = \"old server\"").await;
    proxy.list(A).await;
    let url = format!("{}{PATH}", proxy.url);
    let body = message_created(&stand_in, A);
    let fields = |fields: &[(&'static str, String); 2], timestamp: Option<u64>| {
        let [(timestamp_name, signed_at), signature] = fields.clone();
        vec![(timestamp_name, timestamp.map_or(signed_at, |at| at.to_string())), signature]
    };
    let old = now() - 301;
    for (query, fields, body, event, result) in [
        ("", vec![], body.as_str(), "other", "unsigned"),
        ("?token=new%20server", vec![], &body, "other", "unsigned"),
        ("?token=", vec![], &body, "other", "unsigned"),
        ("", fields(&signed(&body, now()), Some(now() - 1)), &body, "other", "bad_signature"),
        ("?token=old%20server", fields(&signed("", now()), None), &body, "other", "bad_signature"),
        ("", fields(&signed(&body, old), None), &body, "other", "too_old"),
        ("?token=old%20server", vec![], "not JSON", "other", "malformed"),
        ("?token=old%20server", vec![], "", "other", "malformed"),
        ("?token=old%20server", vec![], "[]", "other", "malformed"),
        ("?token=old%20server", vec![], r#"{"event":7}"#, "other", "no_change"),
        ("?token=old%20server", vec![], r#"{"event":"macro_executed","id":1}"#, "other", "no_change"),
        (
            "?token=old%20server",
            vec![],
            r#"{"event":"message_created","source_id":"visitor-a"}"#,
            "message_created",
            "unattributed",
        ),
        (
            "?token=old%20server",
            vec![],
            r#"{"event":"conversation_typing_on","conversation":{}}"#,
            "conversation_typing_on",
            "no_change",
        ),
        (
            "?x=1&token=old%20server",
            vec![],
            r#"{"event":"contact_created","id":"x"}"#,
            "contact_created",
            "unattributed",
        ),
    ] {
        let before = counted(&proxy, event, result).await;
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = send(request("POST", &format!("{url}{query}"), &fields, body)).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::NO_CONTENT, ""), "{result}");
        assert_eq!(answer.cache_status(), "anteroom", "the verdict is nobody's business");
        assert!((counted(&proxy, event, result).await - before - 1.0).abs() < 0.1, "{event} {result}");
        assert!(proxy.list(A).await.is_hit(), "{result}");
    }
    let answer = send(request("POST", &format!("{url}?token=old%20server"), &[], &body)).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!proxy.list(A).await.is_hit());
    assert!(stand_in.requests().iter().all(|seen| !seen.target.contains("webhooks")), "nothing of it is passed on");
}

#[tokio::test]
async fn a_contact_that_changed_is_known_by_its_id_alone() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    proxy.list("visitor-b").await;
    let body = serde_json::json!({ "event": "contact_updated", "id": stand_in.contact_id(A), "name": "New" });
    tell(&proxy, &body.to_string()).await;
    assert!(!proxy.list(A).await.is_hit());
    assert!(proxy.list("visitor-b").await.is_hit(), "another's list stays");
    // An empty list names nobody: whose it is was learned.
    proxy.list("visitor-c").await;
    assert!(proxy.list("visitor-c").await.is_hit());
    let body = serde_json::json!({ "event": "contact_updated", "id": stand_in.contact_id("visitor-c") });
    tell(&proxy, &body.to_string()).await;
    assert!(!proxy.list("visitor-c").await.is_hit());
}

#[tokio::test]
async fn more_than_a_mebibyte_is_too_large_and_half_a_webhook_is_none() {
    let (stand_in, proxy) = both("").await;
    let limit = 1024 * 1024;
    let long = |length: usize| {
        let body = r#"{"event":"message_created"}"#;
        body.to_owned() + &" ".repeat(length - body.len())
    };
    assert_eq!(tell(&proxy, &long(limit)).await.status, StatusCode::NO_CONTENT);
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n");
    let announced = exchange(&proxy.url, &format!("{head}content-length: {}\r\n\r\n", limit + 1)).await;
    assert_eq!(announced.status(), 413);
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", limit + 1, long(limit + 1));
    let chunked = exchange(&proxy.url, &format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}")).await;
    assert_eq!(chunked.status(), 413);
    assert!((counted(&proxy, "other", "too_large").await - 2.0).abs() < 0.1);
    // One that breaks off says nothing.
    proxy.list(A).await;
    let body = message_created(&stand_in, A);
    let mut half = Talk::to(&proxy.url).await;
    half.send(format!("{head}content-length: {}\r\n\r\n{}", body.len(), &body[..50])).await;
    drop(half);
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
    assert!(proxy.list(A).await.is_hit());
}

#[tokio::test]
async fn one_that_never_ends_is_answered_after_a_while() {
    let (_stand_in, proxy) = both("").await;
    let mut slow = Talk::to(&proxy.url).await;
    slow.send(format!("POST {PATH} HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\n{{")).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 1.0).await;
    jump(Duration::from_secs(10)).await;
    assert!(slow.head().await.unwrap().starts_with("HTTP/1.1 204 "));
    assert!((counted(&proxy, "other", "cut_short").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn without_a_secret_nobody_listens() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    assert_eq!(tell(&proxy, "{}").await.status, StatusCode::NOT_FOUND, "the upstream's answer");
    assert!(stand_in.requests().iter().any(|seen| seen.target == PATH));
    let here = Proxy::start(&stand_in, &format!("{SETTINGS}\nwebhook.path = \"/in/here\"")).await;
    assert_eq!(post(&format!("{}/in/here?a=b", here.url), "{}").await.status, StatusCode::NO_CONTENT);
    let read = get(&format!("{}/in/here", here.url)).await;
    assert_eq!((read.status, read.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, Some("POST")));
    assert_eq!(post(&format!("{}{PATH}", here.url), "{}").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_new_secret_is_added_before_the_old_one_goes() {
    let (stand_in, proxy) = both("").await;
    let body = message_created(&stand_in, A);
    let rotated = |secrets: &str| settings(&stand_in.url(), &format!("webhook.secrets = [{secrets}]"));
    for (secrets, result) in [
        ("\"new\", \"the application's secret\"", "outdated"),
        ("\"new\"", "bad_signature"),
        ("\"the application's secret\"", "outdated"),
    ] {
        proxy.state.reload(rotated(secrets)).unwrap();
        let event = if result == "outdated" { "message_created" } else { "other" };
        let before = counted(&proxy, event, result).await;
        tell(&proxy, &body).await;
        assert!((counted(&proxy, event, result).await - before - 1.0).abs() < 0.1, "{secrets}");
    }
}

#[tokio::test]
async fn a_message_without_a_webhook_means_that_webhooks_are_silent() {
    let more = "cache.ttl_with_events = \"5m\"\ncache.ttl = \"20s\"\ncache.ttl_without_events = \"2s\"\n\
                cache.stale_while_revalidate = \"0s\"\ncache.settle = \"0s\"\nupstream.pool_idle = \"1h\"";
    let (stand_in, proxy) = both(more).await;
    let ready = async || get(&format!("{}/ready", proxy.admin)).await.text();
    let ttl = async || {
        proxy.list(A).await;
        let again = proxy.list(A).await;
        let left = again.cache_status().rsplit("ttl=").next().unwrap().parse::<i64>().unwrap();
        assert!(again.is_hit());
        left
    };
    assert!((1..=2).contains(&ttl().await), "none has come yet");
    tell(&proxy, &message_created(&stand_in, A)).await;
    assert!(ttl().await > 200, "they come");
    let conversation = stand_in.conversation_ids(A)[0];
    let messages = format!("{}/{conversation}/messages", proxy.list_url(A));
    post(&messages, r#"{"content":"Hello"}"#).await;
    assert!(ttl().await > 200);
    jump(Duration::from_secs(59)).await;
    assert_eq!(ready().await, "ready\n");
    jump(Duration::from_secs(2)).await;
    assert!(ready().await.starts_with("ready\nwebhooks are silent: one was due 6"), "{}", ready().await);
    assert!((proxy.metric("anteroom_webhooks_silent").await - 1.0).abs() < 0.1);
    assert!((1..=2).contains(&ttl().await), "what was kept for longer is kept so no more");
    // What is no genuine webhook does not end the silence.
    post(&format!("{}{PATH}", proxy.url), "{}").await;
    assert!((proxy.metric("anteroom_webhooks_silent").await - 1.0).abs() < 0.1);
    // Nor does an event that could not have told of a message.
    tell(&proxy, r#"{"event":"conversation_typing_on"}"#).await;
    tell(&proxy, &message_created(&stand_in, A).replace("message_created", "automation_event.message_created")).await;
    assert!((proxy.metric("anteroom_webhooks_silent").await - 1.0).abs() < 0.1);
    tell(&proxy, &message_created(&stand_in, A)).await;
    assert!((proxy.metric("anteroom_webhooks_silent").await).abs() < 0.1);
    assert!(ttl().await > 200);
    assert_eq!(ready().await, "ready\n");
    // What need cause none is not waited for.
    post(&format!("{}/{conversation}/toggle_status", proxy.list_url(A)), "").await;
    post(&messages, "no message").await;
    jump(Duration::from_secs(61)).await;
    assert_eq!(ready().await, "ready\n");
}

/// A list that is kept: what it is called below, its inbox, and its contact's identifier as a path has it.
const KEPT: [(&str, &str, &str); 10] = [
    ("own", INBOX, A),
    // Another source of the same contact: verified, so that it shows the conversations of all.
    ("verified", INBOX, "a-verified"),
    // Another one, without a conversation: `[]`.
    ("empty", INBOX, "a-empty"),
    ("in-the-shop", OTHER_INBOX, "a-in-the-shop"),
    // Another contact who has the same identifier in another inbox.
    ("namesake", OTHER_INBOX, A),
    ("odd", INBOX, "%F0%9F%9A%9A%20%22%5C"),
    ("b", INBOX, "visitor-b"),
    ("c", INBOX, "visitor-c"),
    // So many conversations that it names none of them.
    ("many", INBOX, "many"),
    // 404.
    ("nobody", INBOX, "nobody"),
];
/// Those of the contact's identifier, whosever it is there, and those of the contact in whatever inbox.
const ALL: &str = "own verified empty in-the-shop namesake";
const CONTACTS: &str = "own verified empty in-the-shop";
const ODD: &str = "\u{1F69A} \"\\";

/// The lists of all kinds, kept, of which those in need of a fetch are told by name.
struct Lists(Proxy);

impl Lists {
    /// Which of them are no longer served from memory. They are fetched, and kept anew.
    async fn out_of_date(&self) -> String {
        let mut found = Vec::new();
        for (name, inbox, contact) in KEPT {
            let url = format!("{}/public/api/v1/inboxes/{inbox}/contacts/{contact}/conversations", self.0.url);
            let read = get(&url).await;
            assert_eq!(read.status.as_u16(), if name == "nobody" { 404 } else { 200 }, "{name}");
            if !read.is_hit() {
                found.push(name);
                assert!(get(&url).await.is_hit(), "{name} is kept");
            }
        }
        found.join(" ")
    }
}

#[tokio::test]
async fn every_event_puts_exactly_those_lists_out_of_date_that_it_may_have_changed() {
    let (stand_in, proxy) = both("cache.ttl = \"9m\"\ncache.negative_ttl = \"9m\"").await;
    stand_in.attach(A, "a-verified");
    stand_in.verify("a-verified");
    stand_in.attach(A, "a-empty");
    stand_in.seed("many", Shape { conversations: 33, messages: 1, bytes: 5 });
    stand_in.seed(ODD, Shape { conversations: 1, messages: 1, bytes: 5 });
    let shop = format!("{}/public/api/v1/inboxes/{OTHER_INBOX}/contacts", stand_in.url());
    post(&shop, r#"{"source_id":"a-in-the-shop","email":"visitor.a@example.test"}"#).await;
    post(&shop, r#"{"source_id":"visitor-a","name":"Namesake"}"#).await;
    let (a, c) = (stand_in.contact_id(A), stand_in.contact_id("visitor-c"));
    let lists = Lists(proxy);
    assert_eq!(lists.out_of_date().await, KEPT.map(|(name, ..)| name).join(" "), "nothing was kept yet");
    assert_eq!(lists.out_of_date().await, "");

    let samples: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/events/webhooks.json")).expect("the samples are JSON");
    // The samples, told of our contact; then one change each, by its place. "gone" takes a key away.
    let told = |sample: &str, changes: &[(&str, serde_json::Value)]| {
        let mut event = samples[sample].clone();
        let ours: [(&str, serde_json::Value); 7] = [
            ("/conversation/contact_inbox/source_id", A.into()),
            ("/conversation/contact_inbox/contact_id", a.into()),
            ("/conversation/meta/sender/id", a.into()),
            ("/contact_inbox/source_id", A.into()),
            ("/contact_inbox/contact_id", a.into()),
            ("/meta/sender/id", a.into()),
            ("/id", if sample == "contact_updated" { a.into() } else { event["id"].clone() }),
        ];
        for (place, value) in ours {
            if let Some(found) = event.pointer_mut(place) {
                *found = value;
            }
        }
        for (place, value) in changes {
            let (parent, key) = place.rsplit_once('/').unwrap();
            let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            if value == "gone" {
                assert!(parent.remove(key).is_some(), "{place}");
            } else {
                parent.insert(key.to_owned(), value.clone());
            }
        }
        event.to_string()
    };
    let gone = || serde_json::Value::from("gone");
    let (message, conversation, contact) = ("message_created", "conversation_status_changed", "contact_updated");
    let (sources, contacts) = ("/conversation/contact_inbox/source_id", "/conversation/contact_inbox/contact_id");
    let mut table = vec![
        // The samples as they are.
        (told(message, &[]), ALL),
        (told(conversation, &[]), ALL),
        (told(contact, &[]), CONTACTS),
        // The other events, which have the shape of one of these.
        (told(message, &[("/event", "message_updated".into())]), ALL),
        (told(conversation, &[("/event", "conversation_created".into())]), ALL),
        (told(conversation, &[("/event", "conversation_updated".into())]), ALL),
        (told(contact, &[("/event", "contact_created".into())]), CONTACTS),
        (format!(r#"{{"event":"webwidget_triggered","id":1,"source_id":"{A}","contact":{{"id":{a}}}}}"#), ALL),
        // What shows in no list.
        (told(message, &[("/private", true.into())]), ""),
        (told(message, &[("/event", "message_updated".into()), ("/private", true.into())]), ""),
        (told(message, &[("/event", "conversation_typing_on".into())]), ""),
        (told(message, &[("/event", "conversation_typing_off".into())]), ""),
        (told(conversation, &[("/event", "inbox_created".into())]), ""),
        (told(conversation, &[("/event", "inbox_updated".into())]), ""),
        (told(conversation, &[("/event", "conversation_exploded".into())]), ALL),
        (told(message, &[("/event", "automation_event.message_created".into())]), ALL),
        (told(conversation, &[("/event", "macro.executed".into())]), ALL),
        // A message's own source is not the contact's.
        (told(message, &[("/source_id", "visitor-c".into())]), ALL),
        // Before 4.14.2 conversations did not name their account.
        (told(conversation, &[("/account", gone())]), ALL),
        // One of the keys is not there.
        (told(message, &[(sources, gone())]), CONTACTS),
        (told(message, &[(contacts, gone())]), ALL),
        (told(message, &[("/conversation/meta", gone())]), ALL),
        // No contact: by the conversation, and those that do not name theirs.
        (
            told(message, &[("/conversation/meta", gone()), (contacts, gone())]),
            "own verified namesake many",
        ),
        (
            told(message, &[("/conversation/meta", gone()), ("/conversation/contact_inbox", gone())]),
            "own verified many",
        ),
        // Two contacts, as in the middle of a merge.
        (told(message, &[(contacts, c.into())]), "own verified empty in-the-shop namesake c"),
        // Others.
        (told(contact, &[("/id", c.into())]), "c"),
        (told(contact, &[("/id", stand_in.contact_id("visitor-b").into())]), "b"),
        (told(contact, &[("/id", stand_in.contact_id("many").into())]), "many"),
        (told(contact, &[("/id", 999_999.into())]), ""),
        // A contact who was unknown writes for the first time.
        (
            told(
                conversation,
                &[
                    ("/event", "conversation_created".into()),
                    ("/id", 9_999.into()),
                    ("/contact_inbox/source_id", "nobody".into()),
                    ("/contact_inbox/contact_id", 999_999.into()),
                    ("/meta/sender/id", 999_999.into()),
                ],
            ),
            "nobody",
        ),
        // Identifiers are compared as they are meant, not as they are written.
        (
            r#"{"event":"message_updated","conversation":{"contact_inbox":{"source_id":"\ud83d\ude9a\u0020\u0022\\"}}}"#
                .to_owned(),
            "odd",
        ),
        (
            r#"{"event":"message_updated","conversation":{"contact_inbox":{"source_id":"\ud83d \u0022\\"}}}"#.to_owned(),
            "",
        ),
        (
            r#"{"event":"message_updated","conversation":{"contact_inbox":{"source_id":"Visitor-A"}}}"#.to_owned(),
            "",
        ),
    ];
    // Twice, and in the other order: each time the same.
    let again: Vec<_> = table.iter().rev().cloned().collect();
    table.extend(again);
    for (body, expected) in &table {
        assert_eq!(tell(&lists.0, body).await.status, StatusCode::NO_CONTENT);
        assert_eq!(lists.out_of_date().await, *expected, "{body}");
    }
}

/// Numbers that look random, the same for the same seed (xorshift).
fn below(state: &mut u64, sides: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % sides
}

#[tokio::test]
async fn when_every_event_has_come_every_list_is_right_in_whatever_order_they_came() {
    const SOURCES: [&str; 5] = [A, "a-verified", "a-empty", "visitor-b", "visitor-c"];
    for seed in 1..=8_u64 {
        let (stand_in, proxy) = both("cache.ttl = \"9m\"\ncache.settle = \"0s\"").await;
        stand_in.attach(A, "a-verified");
        stand_in.verify("a-verified");
        stand_in.attach(A, "a-empty");
        let url = format!("{}{PATH}", proxy.url);
        for (at, webhook) in [Webhook::account(&url), Webhook::api_inbox(&url)].into_iter().enumerate() {
            let delay = Duration::ZERO..=Duration::from_millis(20);
            let trouble = Trouble { delay, twice: 0.2, seed: seed * 2 + at as u64, ..Trouble::default() };
            stand_in.send_webhooks_to(webhook.signed_with(SECRET).with(trouble));
        }
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut written = Vec::new();
        for step in 0..60 {
            let source = SOURCES[usize::try_from(below(&mut dice, 5)).unwrap()];
            let text = format!("step {step}");
            match below(&mut dice, 12) {
                0 | 1 => written.push((source, stand_in.agent_message(source, &text))),
                2 => drop(stand_in.agent_note(source, &text)),
                3 => stand_in.rename_contact(source, &text),
                4 => drop(stand_in.ask_csat(source)),
                5 if !stand_in.conversation_ids(source).is_empty() => stand_in.agent_toggle_status(source),
                6 => {
                    if let Some((source, id)) = written.last() {
                        stand_in.edit_message(source, *id, &text);
                    }
                }
                7 => {
                    if let Some((source, id)) = written.pop() {
                        stand_in.delete_message(source, id);
                    }
                }
                8 => drop(post(&proxy.list_url(source), "{}").await),
                _ => {
                    // Several at once, of whom some join.
                    let url = proxy.list_url(source);
                    let others = support::spawn(async move { get(&url).await });
                    proxy.list(source).await;
                    others.await.unwrap();
                }
            }
        }
        for source in SOURCES {
            let right = async {
                while proxy.list(source).await.body != stand_in.list_body(source) {
                    tokio::task::yield_now().await;
                }
            };
            let told = tokio::time::timeout(Duration::from_secs(20), right).await;
            assert!(told.is_ok(), "{source} stays out of date, seed {seed}");
        }
    }
}

#[tokio::test]
async fn a_crowd_of_senders_that_never_end_keeps_no_genuine_webhook_out() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    let mut crowd = Vec::new();
    let part = "x".repeat(250_000);
    // More than there is room for.
    for _ in 0..80 {
        let mut slow = Talk::to(&proxy.url).await;
        slow.send(format!("POST {PATH} HTTP/1.1\r\nhost: h\r\ncontent-length: 250001\r\n\r\n{part}")).await;
        crowd.push(slow);
    }
    proxy.wait_for_metric("anteroom_requests_in_flight", 80.0).await;
    // As long as a webhook may be.
    let mut body = message_created(&stand_in, A);
    body.push_str(&" ".repeat(1024 * 1024 - body.len()));
    for _ in 0..20 {
        assert_eq!(tell(&proxy, &body).await.status, StatusCode::NO_CONTENT);
        assert!(!proxy.list(A).await.is_hit());
        assert!(proxy.list(A).await.is_hit());
    }
    assert!((counted(&proxy, "message_created", "outdated").await - 20.0).abs() < 0.1);
    // Who had to make room is heard to the end all the same, and answered like everyone.
    for slow in &mut crowd {
        slow.send("y").await;
        assert!(slow.head().await.unwrap().starts_with("HTTP/1.1 204 "));
    }
    let crowded = counted(&proxy, "other", "crowded").await;
    assert!(crowded > 20.0 && (counted(&proxy, "other", "unsigned").await + crowded - 80.0).abs() < 0.1, "{crowded}");
}

#[tokio::test]
async fn only_the_very_path_is_that_of_webhooks() {
    let (stand_in, proxy) = both("").await;
    let ask = async |method: &str, target: &str, fields: &str| {
        let fields = format!("host: h\r\nconnection: close\r\ncontent-length: 2\r\n{fields}");
        exchange(&proxy.url, &format!("{method} {target} HTTP/1.1\r\n{fields}\r\n{{}}")).await.status()
    };
    let received = async || counted(&proxy, "other", "unsigned").await;
    for (target, fields) in [
        (PATH, ""),
        ("http://elsewhere.example/_anteroom/webhooks", ""),
        ("/_anteroom/webhooks?", ""),
        (PATH, "x-http-method-override: GET\r\n"),
        (PATH, "expect: 100-continue\r\n"),
    ] {
        let before = received().await;
        let status = ask("POST", target, fields).await;
        assert!(matches!(status, 100 | 204), "{target} {fields} {status}");
        proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
        assert!((received().await - before - 1.0).abs() < 0.1, "{target} {fields}");
    }
    let before = received().await;
    for method in ["HEAD", "OPTIONS", "PUT", "DELETE", "PURGE"] {
        assert_eq!(ask(method, PATH, "").await, 405, "{method}");
    }
    assert!(stand_in.requests().is_empty(), "nothing of it is passed on");
    // Other spellings are the upstream's business.
    for target in ["/_anteroom/webhooks/", "//_anteroom/webhooks", "/%5Fanteroom/webhooks", "/_anteroom/./webhooks"] {
        assert_eq!(ask("POST", target, "").await, 404, "{target}");
    }
    assert!((received().await - before).abs() < 0.1);
}

#[tokio::test]
async fn what_is_overridden_is_not_waited_for() {
    let (stand_in, proxy) = both("upstream.pool_idle = \"1h\"").await;
    let messages = format!("{}/{}/messages", proxy.list_url(A), stand_in.conversation_ids(A)[0]);
    let reading = [("x-http-method-override", "GET"), ("content-type", "application/json")];
    assert_eq!(send(request("POST", &messages, &reading, "{}")).await.status, StatusCode::OK);
    jump(Duration::from_secs(61)).await;
    assert_eq!(get(&format!("{}/ready", proxy.admin)).await.text(), "ready\n");
    post(&messages, r#"{"content":"Hello"}"#).await;
    jump(Duration::from_secs(61)).await;
    assert!(get(&format!("{}/ready", proxy.admin)).await.text().contains("silent"));
}

/// The log tells of it when it is so, not with the next request.
#[tokio::test]
async fn that_webhooks_are_silent_is_told_though_nobody_asks_for_anything() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let settings = "webhook.secrets = [\"known to both\"]\nwebhook.silent_after = \"1s\"";
    let program = Program::serve(&stand_in.url(), settings).await;
    let messages = format!("{}{}/131/messages", program.url, StandIn::list_path("visitor-a"));
    assert_eq!(post(&messages, r#"{"content":"Hello"}"#).await.status, StatusCode::OK);
    program.wait_for_stderr("webhooks are silent").await;
}

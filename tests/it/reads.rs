//! Every read of a contact from memory, alike; and what puts which of them out of date, row by row of the table.

use std::time::Duration;

use anteroom::policy::coherence::reach;
use anteroom_stand_in::{Delivery, Fault, INBOX, Matcher, Point, Shape, StandIn, Webhook};
use http::{Method, StatusCode};

use crate::support::script::{Script, json};
use crate::support::{Answer, Proxy, both, get, get_with, jump, post, request, send, settings, spawn};

const WHO: &str = "somebody";
const SECRET: &str = "webhook.secrets = [\"hush\"]";
const MESSAGES: [&str; 3] = ["messages", "messages before", "other messages"];
const SHAPE: Shape = Shape { conversations: 2, messages: 50, bytes: 20 };

/// A contact with two conversations of many messages, and a second identifier that sees all of it.
struct World {
    stand_in: StandIn,
    proxy: Proxy,
    /// The newest conversation, and the one before it.
    newest: i64,
    other: i64,
    /// Before this message there are older ones.
    before: i64,
}

const READS: [&str; 8] = [
    "conversations",
    "conversation",
    "other conversation",
    "messages",
    "messages before",
    "other messages",
    "contact",
    "of another identifier",
];

impl World {
    async fn new(more: &str) -> Self {
        let (stand_in, proxy) = both(&format!("{SECRET}\n{more}")).await;
        stand_in.seed(WHO, SHAPE);
        stand_in.attach(WHO, "twin");
        for source in [WHO, "twin"] {
            stand_in.verify(source);
        }
        let ids = stand_in.conversation_ids(WHO);
        let [other, newest] = ids[..] else { panic!("two conversations") };
        let page =
            format!("{}/public/api/v1/inboxes/{INBOX}/contacts/{WHO}/conversations/{newest}/messages", stand_in.url());
        let page: serde_json::Value = serde_json::from_slice(&get(&page).await.body).unwrap();
        Self { stand_in, proxy, newest, other, before: page[0]["id"].as_i64().unwrap() }
    }

    /// The path of a read, below the contact's.
    fn path(&self, read: &str) -> String {
        let Self { newest, other, before, .. } = self;
        let contact = format!("/public/api/v1/inboxes/{INBOX}/contacts");
        match read {
            "conversations" => format!("{contact}/{WHO}/conversations"),
            "conversation" => format!("{contact}/{WHO}/conversations/{newest}"),
            "other conversation" => format!("{contact}/{WHO}/conversations/{other}"),
            "messages" => format!("{contact}/{WHO}/conversations/{newest}/messages"),
            "messages before" => format!("{contact}/{WHO}/conversations/{newest}/messages?before={before}"),
            "other messages" => format!("{contact}/{WHO}/conversations/{other}/messages"),
            "contact" => format!("{contact}/{WHO}"),
            _ => format!("{contact}/twin/conversations/{newest}/messages"),
        }
    }

    async fn read(&self, read: &str) -> Answer {
        get(&format!("{}{}", self.proxy.url, self.path(read))).await
    }

    /// What the upstream has.
    async fn truth(&self, read: &str) -> Answer {
        get(&format!("{}{}", self.stand_in.url(), self.path(read))).await
    }

    /// All reads are kept.
    async fn all_kept(&self) {
        // What one shows first may put others out of date: those are fetched again.
        for _ in 0..2 {
            for read in READS {
                self.read(read).await;
            }
        }
        for read in READS {
            assert!(self.read(read).await.is_hit(), "{read} is not kept");
        }
    }

    /// Which reads have stayed. All of them show what the upstream has by now.
    async fn stayed(&self, after: &str) -> Vec<&'static str> {
        let mut stayed = Vec::new();
        for read in READS {
            let answer = self.read(read).await;
            let truth = self.truth(read).await;
            assert!(
                answer.body == truth.body,
                "after {after}, {read} is not what the upstream has ({})",
                answer.cache_status()
            );
            if answer.is_hit() {
                stayed.push(read);
            }
        }
        stayed
    }

    fn url(&self, below: &str) -> String {
        format!("{}{below}", self.proxy.contact_url(WHO))
    }

    async fn write(&self, method: &str, below: &str, body: &str) {
        let fields = [("content-type", "application/json")];
        let answer = send(request(method, &self.url(below), &fields, body)).await;
        assert!(answer.status.is_success(), "{method} {below}: {}", answer.status);
    }

    /// Something happens upstream, of which one webhook tells, and nobody else.
    async fn told(&self, event: &str, act: impl FnOnce(&StandIn)) {
        let before = self.stand_in.deliveries().len();
        let url = format!("{}/_anteroom/webhooks", self.proxy.url);
        self.stand_in.send_webhooks_to(Webhook::account(url).signed_with("hush").only(&[event]));
        act(&self.stand_in);
        self.stand_in.wait_for_deliveries("the event", |all: &[Delivery]| all.len() > before).await;
        self.stand_in.stop_webhooks();
    }
}

/// The rows of the table, by their words, in its order: what happens, and which reads stay.
#[tokio::test]
async fn every_row_of_the_table_reaches_what_it_must_and_nothing_else() {
    let unseen =
        |more: &[&'static str]| -> Vec<&'static str> { READS.into_iter().filter(|read| more.contains(read)).collect() };
    let mut rows = Vec::new();
    for row in reach::TABLE.map(|(_, words, ..)| words) {
        let world = World::new("").await;
        let World { stand_in, newest, .. } = &world;
        let conversation = format!("/conversations/{newest}");
        let message = world.before;
        world.all_kept().await;
        let stays: Vec<&str> = match row {
            "`POST .../conversations`" => {
                world.write("POST", "/conversations", "{}").await;
                READS[1..].to_vec()
            }
            "`POST .../toggle_status`" => {
                world.write("POST", &format!("{conversation}/toggle_status"), "").await;
                unseen(&["other conversation", "messages before", "other messages", "contact"])
            }
            "`POST .../update_last_seen`" => {
                world.write("POST", &format!("{conversation}/update_last_seen"), "").await;
                let stays = ["other conversation", "messages", "messages before", "other messages", "contact"];
                unseen(&[&stays[..], &["of another identifier"]].concat())
            }
            "`POST .../messages`" => {
                world.write("POST", &format!("{conversation}/messages"), r#"{"content":"new"}"#).await;
                unseen(&["messages before", "other messages", "contact"])
            }
            "`PATCH`, `PUT .../messages/{M}`" => {
                let below = format!("{conversation}/messages/{message}");
                world.write("PATCH", &below, r#"{"submitted_values":[{"name":"a","value":"b"}]}"#).await;
                unseen(&["other conversation", "other messages", "contact"])
            }
            "`PATCH`, `PUT` of a contact, creation, verification" => {
                world.write("PATCH", "", r#"{"name":"Another Name"}"#).await;
                vec![]
            }
            "`PATCH`, `PUT .../csat_survey/{uuid}`" => {
                let uuid = stand_in.ask_csat(WHO);
                // Nobody has told of the question: what it is in is fetched again.
                purge(&world).await;
                world.all_kept().await;
                let answer = r#"{"message":{"submitted_values":{"csat_survey_response":{"rating":5}}}}"#;
                let url = format!("{}/public/api/v1/csat_survey/{uuid}", world.proxy.url);
                assert_eq!(
                    send(request("PUT", &url, &[("content-type", "application/json")], answer)).await.status,
                    StatusCode::OK
                );
                unseen(&["other conversation", "contact"])
            }
            "any other write, the account API" => {
                world.write("POST", &format!("{conversation}/messages.json"), r#"{"content":"new"}"#).await;
                vec![]
            }
            "`message_created`" => {
                world.told("message_created", |stand_in| _ = stand_in.agent_message(WHO, "an answer")).await;
                unseen(&["messages before", "other messages", "contact"])
            }
            "`message_updated`" => {
                world.told("message_updated", |stand_in| stand_in.edit_message(WHO, message, "edited")).await;
                unseen(&["other conversation", "other messages", "contact"])
            }
            "`conversation_created`" => {
                let one = Shape { conversations: 1, messages: 0, bytes: 0 };
                world.told("conversation_created", |stand_in| stand_in.seed(WHO, one)).await;
                READS[1..].to_vec()
            }
            "`conversation_updated`" => {
                world.told("conversation_updated", |stand_in| stand_in.agent_toggle_status(WHO)).await;
                unseen(&[&["other conversation", "contact", "of another identifier"], &MESSAGES[..]].concat())
            }
            "`conversation_status_changed`" => {
                world.told("conversation_status_changed", |stand_in| stand_in.agent_toggle_status(WHO)).await;
                unseen(&[&["other conversation", "contact", "of another identifier"], &MESSAGES[..]].concat())
            }
            "`contact_created`" => {
                // Of this contact there is none: it is as good as the event of another, and here it names this one.
                let body = format!(r#"{{"event":"contact_created","id":{}}}"#, stand_in.contact_id(WHO));
                world.proxy.state.invalidation.hear(body.as_bytes(), Duration::ZERO);
                vec![]
            }
            "`contact_updated`" => {
                world.told("contact_updated", |stand_in| stand_in.rename_contact(WHO, "A Third Name")).await;
                vec![]
            }
            "an event of another name" => {
                let body =
                    format!(r#"{{"event":"automation_event.x","contact":{{"id":{}}}}}"#, stand_in.contact_id(WHO));
                world.proxy.state.invalidation.hear(body.as_bytes(), Duration::ZERO);
                vec![]
            }
            shown if shown.starts_with("a read shows") => {
                rows.push(row);
                continue;
            }
            other => panic!("nobody tests {other}"),
        };
        assert_eq!(world.stayed(row).await, stays, "{row}");
        rows.push(row);
    }
    assert_eq!(rows.len(), reach::TABLE.len());
}

async fn purge(world: &World) {
    anteroom::admin::purging::purge(&world.proxy.state, anteroom::admin::purging::Purge::All);
    world.all_kept().await;
}

/// A page of messages does not say which conversation's it is, and the answer to a survey that, nor whose it is.
#[tokio::test]
async fn an_answered_survey_whose_own_answer_is_lost_reaches_pages_too() {
    let world = World::new("cache.ttl = \"5m\"").await;
    let uuid = world.stand_in.ask_csat(WHO);
    world.all_kept().await;
    world.stand_in.fault_times(Fault::ResetAfter, Matcher::writes(), 1);
    let rating = r#"{"message":{"submitted_values":{"csat_survey_response":{"rating":5}}}}"#;
    let url = format!("{}/public/api/v1/csat_survey/{uuid}", world.proxy.url);
    let rated = send(request("PUT", &url, &[("content-type", "application/json")], rating)).await;
    assert_eq!(rated.status, StatusCode::BAD_GATEWAY);
    for read in ["messages", "conversations"] {
        let page = get(&format!("{}{}", world.proxy.url, world.path(read))).await;
        assert!(!page.is_hit() && page.text().contains("\"rating\":5"), "{read}: {}", page.cache_status());
    }
}

#[tokio::test]
async fn a_contact_that_one_read_shows_is_not_missing_in_another() {
    let (stand_in, proxy) = both("cache.negative_ttl = \"60s\"").await;
    let contact = proxy.contact_url("late");
    for _ in 0..2 {
        assert_eq!(get(&contact).await.status, StatusCode::NOT_FOUND);
    }
    // Nobody tells of it.
    stand_in.attach("visitor-a", "late");
    assert_eq!(get(&contact).await.status, StatusCode::NOT_FOUND, "it is kept");
    assert_eq!(proxy.list("late").await.status, StatusCode::OK);
    assert_eq!(get(&contact).await.status, StatusCode::OK);
}

/// Nobody tells of anything here: what one read shows, the others show.
#[tokio::test]
async fn what_one_read_shows_another_does_not_hide() {
    let world = World::new("").await;
    let World { stand_in, .. } = &world;
    for (what, reads, others) in [
        ("a message", "messages", &["conversations", "conversation"][..]),
        ("a message", "conversation", &["conversations", "messages"]),
        ("a message", "conversations", &["conversation", "messages"]),
        ("a status", "conversation", &["conversations"]),
        ("a status", "conversations", &["conversation"]),
        ("read by an agent", "conversation", &["conversations"]),
        ("a name", "contact", &["conversations", "conversation", "other conversation", "messages", "messages before"]),
        ("a name", "messages", &["conversations", "conversation", "contact"]),
        ("a name", "conversations", &["contact", "messages", "other messages", "conversation"]),
        ("an edit of the newest", "messages", &["conversations", "conversation"]),
    ] {
        world.all_kept().await;
        let before = world.read("other messages").await;
        match what {
            "a message" => _ = stand_in.agent_message(WHO, "nobody tells"),
            "a status" => stand_in.agent_toggle_status(WHO),
            "read by an agent" => stand_in.touch_agent_last_seen(WHO),
            "a name" => stand_in.rename_contact(WHO, &format!("Name after {reads}")),
            _ => {
                let last = stand_in.agent_message(WHO, "first");
                purge(&world).await;
                stand_in.edit_message(WHO, last, "then");
            }
        }
        for read in others {
            assert!(world.read(read).await.is_hit(), "nobody has told of {what}");
        }
        // One of them is fetched again, for whatever reason.
        let key = format!("{}{}", world.proxy.url, world.path(reads));
        send(request("GET", &key, &[("cookie", "a=b")], "")).await;
        let fresh = get(&key).await;
        assert!(!fresh.is_hit() && fresh.body == world.truth(reads).await.body, "{reads}");
        for read in others {
            let answer = world.read(read).await;
            assert!(answer.body == world.truth(read).await.body, "{what}, seen in {reads}, is hidden by {read}");
        }
        if what != "a name" {
            assert!(
                before.body == world.read("other messages").await.body && world.read("other messages").await.is_hit()
            );
        }
    }
}

/// Of two reads under way at once nobody knows which is newer: whoever has seen the newer one does not see the older.
#[tokio::test]
async fn of_two_reads_that_were_under_way_at_once_the_older_hides_nothing() {
    let world =
        World::new("cache.wait = \"2m\"\nupstream.fetch_timeout = \"2m\"\nupstream.head_timeout = \"2m\"\n").await;
    let World { stand_in, .. } = &world;
    world.read("messages").await;
    purge(&world).await;
    anteroom::admin::purging::purge(&world.proxy.state, anteroom::admin::purging::Purge::All);
    // The page is asked for later, and made earlier.
    let list = stand_in.hold(Point::BeforeReading, Matcher::list_of(WHO));
    let page = stand_in.hold(Point::AfterReading, Matcher::request(Method::GET, &world.path("messages")));
    let reading = |read: &str| {
        let url = format!("{}{}", world.proxy.url, world.path(read));
        spawn(async move { get(&url).await })
    };
    let list_read = reading("conversations");
    list.arrived(1).await;
    let page_read = reading("messages");
    page.arrived(1).await;
    stand_in.agent_message(WHO, "meanwhile");
    page.release_all();
    let older = page_read.await.unwrap();
    list.release_all();
    let newer = list_read.await.unwrap();
    assert!(newer.text().contains("meanwhile") && !older.text().contains("meanwhile"));
    assert!(world.read("messages").await.text().contains("meanwhile"), "the list has shown it");
}

#[tokio::test]
async fn every_read_is_kept_and_given_in_every_form() {
    let world = World::new("").await;
    for read in ["conversation", "messages", "messages before", "contact"] {
        let (path, url) = (world.path(read), format!("{}{}", world.proxy.url, world.path(read)));
        let asked = || world.stand_in.requests().iter().filter(|seen| seen.target == path).count();
        let before = asked();
        // Many at once cost one request.
        let gate = world.stand_in.hold(Point::BeforeReading, Matcher::request(Method::GET, &path));
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let url = url.clone();
                spawn(async move { get(&url).await })
            })
            .collect();
        gate.arrived(1).await;
        world.proxy.wait_for_metric("anteroom_waiters", 20.0).await;
        gate.release_all();
        let mut first = None;
        for reader in readers {
            let answer = reader.await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{read}");
            assert_eq!(*first.get_or_insert(answer.body.clone()), answer.body);
        }
        assert_eq!(asked() - before, 1, "{read}");
        let hit = get(&url).await;
        assert!(hit.is_hit() && hit.header("age").is_some(), "{read}: {}", hit.cache_status());
        assert!(hit.body == world.truth(read).await.body, "{read}");
        let etag = hit.header("etag").unwrap().to_owned();
        let same = get_with(&url, &[("if-none-match", &etag)]).await;
        assert!(same.status == StatusCode::NOT_MODIFIED && same.is_hit() && same.body.is_empty(), "{read}");
        let head = send(request("HEAD", &url, &[], "")).await;
        assert!(head.is_hit() && head.header("content-length") == Some(&hit.body.len().to_string()), "{read}");
        let page = get_with(&url, &[("origin", "https://a.test")]).await;
        assert!(page.is_hit() && page.header("access-control-allow-origin") == Some("*"), "{read}");
        if hit.body.len() > 1024 {
            let coded = get_with(&url, &[("accept-encoding", "zstd")]).await;
            assert!(
                coded.is_hit() && coded.header("content-encoding") == Some("zstd") && coded.body.len() < hit.body.len()
            );
        }
        // Stale, and refreshed behind; then in the place of an error.
        jump(Duration::from_secs(16)).await;
        let stale = get(&url).await;
        assert!(stale.is_hit(), "{read}: {}", stale.cache_status());
        world.proxy.wait_for_metric("anteroom_flights", 0.0).await;
        assert!(get(&url).await.is_hit());
        world.stand_in.fault_on(Fault::Error, Matcher::any());
        jump(Duration::from_secs(60)).await;
        let instead = get(&url).await;
        assert!(
            instead.status == StatusCode::OK && instead.cache_status().contains("upstream-failing"),
            "{read}: {}",
            instead.cache_status()
        );
        world.stand_in.clear_faults();
        jump(Duration::from_secs(2)).await;
        // Who has credentials, or writes it otherwise, asks alone; what he sees is not hidden afterwards.
        assert!(get(&url).await.status == StatusCode::OK);
        world.proxy.wait_for_metric("anteroom_flights", 0.0).await;
        let spelt = url.replace("/contacts/", "//contacts/");
        for (url, fields) in [(&spelt, &[][..]), (&url, &[("authorization", "Bearer x")])] {
            let alone = get_with(url, fields).await;
            assert!(alone.cache_status().contains("fwd=bypass"), "{read}: {}", alone.cache_status());
        }
    }
    let preflight = [("origin", "https://a.test"), ("access-control-request-method", "GET")];
    for read in READS {
        let url = format!("{}{}", world.proxy.url, world.path(read));
        let first = send(request("OPTIONS", &url, &preflight, "")).await;
        assert_eq!(first.header("access-control-allow-origin"), Some("*"), "{read}");
        assert!(send(request("OPTIONS", &url, &preflight, "")).await.is_hit(), "{read}");
    }
}

#[tokio::test]
async fn a_contact_that_is_asked_for_with_a_hash_is_verified_and_never_from_memory() {
    let world = World::new("").await;
    world.all_kept().await;
    for query in ["identifier_hash=wrong", "%5Bidentifier_hash%5D=wrong", "a=1;identifier_hash[]=wrong"] {
        for _ in 0..2 {
            let answer = get(&world.url(&format!("?{query}"))).await;
            assert!(answer.cache_status().contains("fwd=method"), "{query}: {}", answer.cache_status());
        }
        assert!(!world.read("contact").await.is_hit(), "{query}: it may have changed everything");
        assert!(!world.read("messages").await.is_hit(), "{query}");
        world.all_kept().await;
    }
    let with_body = send(request("GET", &world.url(""), &[("content-length", "2")], "{}")).await;
    assert!(with_body.cache_status().contains("fwd=method"));
}

#[tokio::test]
async fn a_read_that_is_left_out_passes_through_and_a_reload_changes_that() {
    let world = World::new("cache.routes = [\"conversations\", \"messages\"]").await;
    for (read, kept) in [("conversations", true), ("messages", true), ("conversation", false), ("contact", false)] {
        world.read(read).await;
        assert_eq!(world.read(read).await.is_hit(), kept, "{read}");
    }
    assert!(world.read("contact").await.cache_status().contains("fwd=bypass"));
    let config = settings(&world.stand_in.url(), &format!("{SECRET}\ncache.routes = [\"contact\"]"));
    world.proxy.state.reload(config).unwrap();
    for (read, kept) in [("conversations", false), ("messages", false), ("conversation", false), ("contact", true)] {
        world.read(read).await;
        assert_eq!(world.read(read).await.is_hit(), kept, "{read}");
    }
}

/// The ids of messages are given out before they are there: one may come late, with an id from before a page.
#[tokio::test]
async fn a_message_that_was_being_written_when_a_page_was_made_puts_it_out_of_date() {
    let script = Script::start(|request| match (request.method().as_str(), request.uri().path()) {
        ("POST", path) => {
            let id = if path.contains("/conversations/7/") { 100 } else { 300 };
            json(&format!(
                r#"{{"id":{id},"conversation_id":7,"message_type":0,"sender":{{"id":42,"type":"contact"}}}}"#
            ))
        }
        (_, path) if path.ends_with("/messages") => {
            json(r#"[{"id":50,"conversation_id":7,"message_type":0,"sender":{"id":42,"type":"contact"}}]"#)
        }
        _ => json(r#"{"source_id":"s","pubsub_token":"t","id":42}"#),
    })
    .await;
    let proxy = Proxy::in_front_of(&script.url, "").await;
    let page = |conversation: u64, before: u64| {
        format!("{}/conversations/{conversation}/messages?before={before}", proxy.contact_url("s"))
    };
    for (conversation, before) in [(7, 101), (7, 100), (8, 200)] {
        get(&page(conversation, before)).await;
        assert!(get(&page(conversation, before)).await.is_hit());
    }
    for conversation in [7, 8] {
        post(&format!("{}/conversations/{conversation}/messages", proxy.contact_url("s")), "{}").await;
    }
    assert!(!get(&page(7, 101)).await.is_hit(), "message 100 belongs on it");
    assert!(get(&page(8, 200)).await.is_hit(), "message 300 does not");
}

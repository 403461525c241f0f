//! The named interleavings of the specification of coherence, one test each, by their numbers. *f* is a fetch that
//! begins, *e* the moment it lands, *w* an acknowledged write, *r* a reader who begins after what stands before it.
//!
//! Gates of the stand-in hold requests where a test wants them; a metric tells when a reader has joined a flight.
//! Nothing waits for time: `jump` moves it. 18 is here as far as there is something that refuses a write without
//! sending it: a connection that cannot be made.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom::policy::coherence::ledger::{Ledger, Scope};
use anteroom::policy::http::key::Key;
use anteroom_stand_in::{Delivery, Fate, Fault, Gate, INBOX, Matcher, Point, Shape, StandIn, Webhook};
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::support::script::{Script, answer, json};
use crate::support::{Proxy, both, get, get_with, is_up_to_date, jump, post, reading, request, send, settings, spawn};

const A: &str = "visitor-a";
const WAITERS: &str = "anteroom_waiters";
const FLIGHTS: &str = "anteroom_flights";
const CLIENTS: &str = "anteroom_connections{listener=\"public\"}";
const WRITES: &str = "anteroom_invalidations_total{source=\"write\"}";

/// A message of the contact in the newest of its conversations; acknowledged when this returns.
async fn write(stand_in: &StandIn, proxy: &Proxy, source: &str) {
    let answer = post(&message_url(stand_in, proxy, source), r#"{"content":"written"}"#).await;
    assert_eq!(answer.status, StatusCode::OK);
}

fn message_url(stand_in: &StandIn, proxy: &Proxy, source: &str) -> String {
    let conversation = *stand_in.conversation_ids(source).last().unwrap();
    format!("{}/conversations/{conversation}/messages", proxy.contact_url(source))
}

/// A second source of a contact, which sees all of its conversations.
fn second_source(stand_in: &StandIn, of: &str, source: &str) {
    stand_in.attach(of, source);
    stand_in.verify(source);
}

/// The first request that matches, and no later one.
fn first(matcher: Matcher) -> Matcher {
    let taken = AtomicBool::new(false);
    Matcher::when(move |seen| matcher.matches(seen) && !taken.swap(true, Ordering::SeqCst))
}

/// Holds the answers to a list when they have been made, before a byte of them is sent: *f* without *e*.
fn hold_answers(stand_in: &StandIn, source: &str) -> Gate {
    stand_in.hold(Point::AfterReading, Matcher::list_of(source))
}

#[tokio::test]
async fn i01_a_fetch_that_began_before_a_write_and_lands_after_it_is_not_served_to_later_readers() {
    let (stand_in, proxy) = both("").await;
    let gate = hold_answers(&stand_in, A);
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    let before = stand_in.list_body(A);
    write(&stand_in, &proxy, A).await;
    gate.release_all();
    assert!(early.await.unwrap().body == before, "it was asked before the write");
    is_up_to_date(&stand_in, &proxy, A).await;
    assert!(proxy.list(A).await.is_hit());
    assert_eq!(stand_in.list_requests(A), 2);
}

/// Nobody gives up while a test waits: else who had joined the wrong fetch would begin his own in the end.
const NOBODY_GIVES_UP: &str = "cache.wait = \"2m\"\nupstream.fetch_timeout = \"2m\"\nupstream.head_timeout = \"2m\"\n";

#[tokio::test]
async fn i02_a_reader_after_a_write_does_not_join_a_flight_from_before_it() {
    let (stand_in, proxy) = both(NOBODY_GIVES_UP).await;
    let gate = hold_answers(&stand_in, A);
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    let late = reading(&proxy, A);
    gate.arrived(2).await;
    gate.release_all();
    assert!(late.await.unwrap().body == stand_in.list_body(A));
    early.await.unwrap();
}

#[tokio::test]
async fn i03_a_reader_before_a_write_may_have_the_older_list_and_the_next_may_not() {
    let (stand_in, proxy) = both("").await;
    let gate = hold_answers(&stand_in, A);
    let leader = reading(&proxy, A);
    gate.arrived(1).await;
    let before = stand_in.list_body(A);
    let joined = reading(&proxy, A);
    proxy.wait_for_metric(WAITERS, 2.0).await;
    write(&stand_in, &proxy, A).await;
    gate.release_all();
    let joined = joined.await.unwrap();
    assert!(joined.body == before && joined.cache_status().contains("collapsed"), "{}", joined.cache_status());
    leader.await.unwrap();
    is_up_to_date(&stand_in, &proxy, A).await;
}

/// `tests/loom.rs` goes through every order of the atomics; here the machine's own orders, many times.
#[test]
fn i04_of_two_writes_that_reach_one_place_in_the_other_order_the_later_one_stays() {
    let ledger = Ledger::new(1, [1, 2]);
    let place = ledger.place(&Scope::Contact(1));
    let start = std::sync::Barrier::new(2);
    for _ in 0..2_000 {
        let write = || {
            start.wait();
            ledger.invalidate(place)
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(write);
            let other = write();
            (one.join().unwrap(), other)
        });
        assert!(!ledger.is_current(one.min(other), &[place]), "what began between the two is out of date");
        assert!(ledger.is_current(one.max(other), &[place]));
    }
}

#[tokio::test]
async fn i05_a_refresh_behind_that_began_before_a_write_is_not_served_after_it() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    jump(Duration::from_secs(16)).await;
    let gate = hold_answers(&stand_in, A);
    assert!(proxy.list(A).await.is_hit(), "stale, and refreshed behind");
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    gate.release_all();
    proxy.wait_for_metric(FLIGHTS, 0.0).await;
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i06_a_304_to_a_request_from_before_a_write_does_not_make_the_old_list_new() {
    let (stand_in, proxy) = both("").await;
    let etag = proxy.list(A).await.header("etag").unwrap().to_owned();
    jump(Duration::from_secs(31)).await;
    let gate = hold_answers(&stand_in, A);
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    let asked = stand_in.requests().pop().unwrap();
    assert_eq!(asked.headers["if-none-match"], etag.as_str());
    write(&stand_in, &proxy, A).await;
    gate.release_all();
    assert_eq!(early.await.unwrap().status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i07_a_refresh_of_a_captured_answer_does_not_replace_a_newer_one() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    jump(Duration::from_secs(16)).await;
    let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of(A)));
    assert!(proxy.list(A).await.is_hit());
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    is_up_to_date(&stand_in, &proxy, A).await;
    gate.release_all();
    proxy.wait_for_metric(FLIGHTS, 0.0).await;
    is_up_to_date(&stand_in, &proxy, A).await;
    let kept = proxy.state.cache.store.get(&Key::new(INBOX, A, None)).unwrap();
    assert!(kept.answer.body.kept().to_bytes() == stand_in.list_body(A), "the newer one is kept");
}

#[tokio::test]
async fn i08_a_write_through_one_source_outdates_the_lists_of_the_contacts_other_sources() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, A, "phone");
    proxy.list("phone").await;
    assert!(proxy.list("phone").await.is_hit());
    write(&stand_in, &proxy, A).await;
    is_up_to_date(&stand_in, &proxy, "phone").await;
}

#[tokio::test]
async fn i09_the_same_while_the_other_list_is_fetched_for_the_first_time() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, A, "phone");
    let gate = hold_answers(&stand_in, "phone");
    let early = reading(&proxy, "phone");
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    // Nothing in the path says that this list has changed: the reader joins, and finds out when the body is there.
    let late = reading(&proxy, "phone");
    proxy.wait_for_metric(WAITERS, 2.0).await;
    gate.release_all();
    assert!(late.await.unwrap().body == stand_in.list_body("phone"));
    early.await.unwrap();
    is_up_to_date(&stand_in, &proxy, "phone").await;
}

#[tokio::test]
async fn i10_the_same_through_a_source_never_seen_before_whose_contact_is_asked_for_once() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, A, "phone");
    proxy.list("phone").await;
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let seen = format!("{}/conversations/{conversation}/update_last_seen", proxy.contact_url(A));
    for _ in 0..2 {
        assert_eq!(post(&seen, "").await.body.len(), 0, "the answer names nobody");
        is_up_to_date(&stand_in, &proxy, "phone").await;
    }
    let asked = Matcher::request(Method::GET, &format!("/public/api/v1/inboxes/{INBOX}/contacts/visitor%2Da"));
    let asked_plain = Matcher::request(Method::GET, &format!("/public/api/v1/inboxes/{INBOX}/contacts/{A}"));
    let asked = stand_in.requests().iter().filter(|seen| asked.matches(seen) || asked_plain.matches(seen)).count();
    assert_eq!(asked, 1);
    assert!(proxy.metric("anteroom_writes_unattributed_total").await < 0.5);
}

#[tokio::test]
async fn i11_an_empty_list_is_outdated_by_a_conversation_opened_through_another_source() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, "visitor-c", "phone");
    assert_eq!(proxy.list("phone").await.text(), "[]");
    assert!(proxy.list("phone").await.is_hit());
    let opened = post(&format!("{}/conversations", proxy.contact_url("visitor-c")), "{}").await;
    assert_eq!(opened.status, StatusCode::OK);
    assert_ne!(proxy.list("phone").await.text(), "[]");
}

#[tokio::test]
async fn i12_a_404_in_flight_is_not_served_after_the_contact_was_created() {
    let (stand_in, proxy) = both("").await;
    let gate = hold_answers(&stand_in, "newcomer");
    let early = reading(&proxy, "newcomer");
    gate.arrived(1).await;
    create(&proxy, "newcomer").await;
    let late = reading(&proxy, "newcomer");
    gate.arrived(2).await;
    gate.release_all();
    assert_eq!(early.await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(late.await.unwrap().status, StatusCode::OK);
}

async fn create(proxy: &Proxy, source: &str) {
    let contacts = format!("{}/public/api/v1/inboxes/{INBOX}/contacts", proxy.url);
    assert_eq!(post(&contacts, &format!(r#"{{"source_id":"{source}"}}"#)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn i13_a_kept_404_is_outdated_by_a_creation() {
    let (stand_in, proxy) = both("cache.negative_ttl = \"1m\"").await;
    assert_eq!(proxy.list("newcomer").await.status, StatusCode::NOT_FOUND);
    assert_eq!(proxy.list("other").await.status, StatusCode::NOT_FOUND);
    assert!(proxy.list("newcomer").await.is_hit());
    create(&proxy, "newcomer").await;
    assert_eq!(proxy.list("newcomer").await.status, StatusCode::OK);
    proxy.list("other").await;
    assert_eq!(stand_in.list_requests("other"), 2, "whoever is missing in this inbox may have been created");
}

#[tokio::test]
async fn i14_a_source_deleted_and_created_again_is_another_contact() {
    let (stand_in, proxy) = both("").await;
    assert_eq!(proxy.list("visitor-c").await.text(), "[]");
    stand_in.delete_contact("visitor-c");
    create(&proxy, "visitor-c").await;
    stand_in.verify("visitor-c");
    // The upstream says 304: the list is as empty as that of the one before.
    assert_eq!(proxy.list("visitor-c").await.text(), "[]");
    assert!(proxy.list("visitor-c").await.is_hit());
    stand_in.attach("visitor-c", "phone");
    post(&format!("{}/conversations", proxy.contact_url("phone")), "{}").await;
    assert_ne!(proxy.list("visitor-c").await.text(), "[]", "the new contact has a conversation");
}

#[tokio::test]
async fn i15_a_422_after_the_hash_was_accepted_outdates_the_list() {
    let verified = std::sync::Arc::new(AtomicBool::new(false));
    let state = verified.clone();
    let upstream = Script::start(move |request| {
        if request.method() == Method::PATCH {
            state.store(true, Ordering::SeqCst);
            return answer(422, "application/json", r#"{"message":"Email is invalid"}"#);
        }
        if request.uri().path().ends_with("/conversations") {
            // A list that names its contact: no merge puts it out of date, but what the write did.
            let one = r#"[{"id":1,"contact":{"id":7}}]"#;
            return json(if state.load(Ordering::SeqCst) {
                r#"[{"id":2,"contact":{"id":7}},{"id":1,"contact":{"id":7}}]"#
            } else {
                one
            });
        }
        json(r#"{"id":7,"source_id":"someone"}"#)
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "").await;
    let before = proxy.list("someone").await.text();
    let patch = request("PATCH", &proxy.contact_url("someone"), &[("content-type", "application/json")], "{}");
    assert_eq!(send(patch).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(verified.load(Ordering::SeqCst));
    assert_ne!(proxy.list("someone").await.text(), before);
}

#[tokio::test]
async fn i16_a_write_that_times_out_and_is_committed_later_is_seen_soon() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::writes());
    let url = message_url(&stand_in, &proxy, A);
    let timed_out = spawn(async move { post(&url, r#"{"content":"late"}"#).await });
    gate.arrived(1).await;
    jump(Duration::from_secs(21)).await;
    assert_eq!(timed_out.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    assert!(!proxy.list(A).await.is_hit(), "it may have been done");
    // The stand-in gives up a request whose connection is gone; what a real one would do late is done here.
    stand_in.agent_message(A, "committed late");
    jump(Duration::from_secs(2)).await;
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i17_a_client_that_hangs_up_in_mid_upload_or_after_it_has_outdated_the_list() {
    let (stand_in, proxy) = both("").await;
    let url = message_url(&stand_in, &proxy, A);
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let body = r#"{"content":"written"}"#;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let half = &body[..10];

    proxy.list(A).await;
    let mut client = tokio::net::TcpStream::connect(host).await.unwrap();
    client.write_all(format!("{head}{half}").as_bytes()).await.unwrap();
    stand_in.wait_for("a write", |seen| seen.iter().any(anteroom_stand_in::Seen::is_write)).await;
    drop(client);
    proxy.wait_for_metric(WRITES, 1.0).await;
    assert!(!proxy.list(A).await.is_hit());

    let before = stand_in.list_body(A);
    let gate = stand_in.hold(Point::BeforeReading, Matcher::writes());
    let mut client = tokio::net::TcpStream::connect(host).await.unwrap();
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    gate.arrived(1).await;
    proxy.wait_for_metric(CLIENTS, 1.0).await;
    drop(client);
    proxy.wait_for_metric(CLIENTS, 0.0).await;
    gate.release_all();
    proxy.wait_for_metric(WRITES, 2.0).await;
    assert!(stand_in.list_body(A) != before, "the write went on without its client");
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i18_a_write_that_was_never_sent_outdates_nothing() {
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    let url = message_url(&stand_in, &proxy, A);
    // The connection of the list is too old to be used again, and a new one is refused.
    jump(Duration::from_secs(11)).await;
    stand_in.stop().await;
    assert_eq!(post(&url, "{}").await.status, StatusCode::BAD_GATEWAY);
    assert!(proxy.list(A).await.is_hit());
    assert!(proxy.metric(WRITES).await < 0.5);
}

#[tokio::test]
async fn i19_after_a_superseded_flight_that_landed_last_its_reader_sees_nothing_older() {
    let (stand_in, proxy) = both("").await;
    let gate = stand_in.hold(Point::BeforeReading, first(Matcher::list_of(A)));
    let first_reader = reading(&proxy, A);
    gate.arrived(1).await;
    write(&stand_in, &proxy, A).await;
    stand_in.agent_message(A, "of somebody with a name");
    is_up_to_date(&stand_in, &proxy, A).await;
    // Nobody tells the proxy of this; the flight that began first sees it. It is nothing that answers are compared by.
    stand_in.rename_agent("Newest");
    gate.release_all();
    assert!(first_reader.await.unwrap().body == stand_in.list_body(A));
    is_up_to_date(&stand_in, &proxy, A).await;
    assert!(proxy.metric("anteroom_flight_ends_total{end=\"superseded\"}").await > 0.5);
}

#[tokio::test]
async fn i20_a_newer_list_too_large_to_keep_removes_the_older_one() {
    let (stand_in, proxy) = both("cache.max_body = \"64KiB\"").await;
    proxy.list("visitor-c").await;
    let key = Key::new(INBOX, "visitor-c", None);
    assert!(proxy.state.cache.store.get(&key).is_some());
    stand_in.seed("visitor-c", Shape { conversations: 1, messages: 100, bytes: 1000 });
    jump(Duration::from_secs(31)).await;
    is_up_to_date(&stand_in, &proxy, "visitor-c").await;
    assert!(proxy.state.cache.store.get(&key).is_none());
    stand_in.fault(Fault::Error);
    assert_eq!(proxy.list("visitor-c").await.status, StatusCode::INTERNAL_SERVER_ERROR, "not the older list");
}

#[tokio::test]
async fn i21_what_a_bypassed_reader_has_seen_the_next_reader_sees_too() {
    for faults in [&[][..], &[Fault::NoEtag]] {
        let (stand_in, proxy) = both("").await;
        for fault in faults {
            stand_in.fault(*fault);
        }
        proxy.list(A).await;
        stand_in.agent_message(A, "nobody told the proxy");
        let bypassed = get_with(&proxy.list_url(A), &[("cookie", "a=b")]).await;
        assert!(bypassed.body == stand_in.list_body(A));
        is_up_to_date(&stand_in, &proxy, A).await;
    }
    // The same for a list that is gone, and for one that is being fetched.
    let (stand_in, proxy) = both("").await;
    proxy.list(A).await;
    stand_in.delete_contact(A);
    assert_eq!(get_with(&proxy.list_url(A), &[("cookie", "a=b")]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(proxy.list(A).await.status, StatusCode::NOT_FOUND);

    let b = "visitor-b";
    let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of(b)));
    let early = reading(&proxy, b);
    gate.arrived(1).await;
    stand_in.agent_message(b, "nobody told the proxy");
    get_with(&proxy.list_url(b), &[("cookie", "a=b")]).await;
    gate.release_all();
    early.await.unwrap();
    is_up_to_date(&stand_in, &proxy, b).await;
}

#[tokio::test]
async fn i22_readers_who_give_up_on_a_flight_begin_one_new_flight_together() {
    let (stand_in, proxy) = both("cache.wait = \"5s\"").await;
    let gate = stand_in.hold(Point::BeforeReading, first(Matcher::list_of(A)));
    let readers: Vec<_> = (0..20).map(|_| reading(&proxy, A)).collect();
    gate.arrived(1).await;
    proxy.wait_for_metric(WAITERS, 20.0).await;
    jump(Duration::from_secs(4)).await;
    for reader in readers {
        assert!(reader.await.unwrap().body == stand_in.list_body(A));
    }
    assert_eq!(stand_in.list_requests(A), 2);
    // The flight they gave up on lands last: what it brought, and what its successor brought, is out of date.
    stand_in.agent_message(A, "newest");
    gate.release_all();
    proxy.wait_for_metric(FLIGHTS, 0.0).await;
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i23_a_purge_reaches_what_is_kept_and_what_is_being_fetched() {
    let (stand_in, proxy) = both(&format!("{NOBODY_GIVES_UP}admin.token = \"let-me-in\"")).await;
    for (what, contact) in [
        (format!(r#"{{"contact":"{A}"}}"#), A),
        (format!(r#"{{"inbox":"{INBOX}"}}"#), "visitor-b"),
        (r#"{"all":true}"#.to_owned(), "phone:+15550100003"),
    ] {
        let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of(contact)));
        let contact_url = contact.replace('+', "%2B");
        let early = reading(&proxy, &contact_url);
        gate.arrived(1).await;
        stand_in.agent_message(contact, "nobody told the proxy");
        purge(&proxy, &what).await;
        let late = tokio::time::timeout(Duration::from_secs(20), reading(&proxy, &contact_url)).await;
        let late = late.expect("who comes after a purge waits for no fetch from before it").unwrap();
        assert!(late.body == stand_in.list_body(contact), "{what}");
        gate.release_all();
        early.await.unwrap();
        proxy.wait_for_metric(FLIGHTS, 0.0).await;

        proxy.list(&contact_url).await;
        assert!(proxy.list(&contact_url).await.is_hit());
        purge(&proxy, &what).await;
        assert!(!proxy.list(&contact_url).await.is_hit(), "{what}");
    }
}

async fn purge(proxy: &Proxy, what: &str) {
    let token = [("authorization", "Bearer let-me-in")];
    let purged = send(request("POST", &format!("{}/purge", proxy.admin), &token, what)).await;
    assert_eq!(purged.status, StatusCode::OK, "{what}");
}

/// By webhooks of the stand-in, signed and sent as the application does.
#[tokio::test]
async fn i24_a_webhook_while_filling_twice_or_late_is_a_change_each_time() {
    let (stand_in, proxy) = both("webhook.secrets = [\"hush\"]").await;
    let webhook = Webhook::account(format!("{}/_anteroom/webhooks", proxy.url)).signed_with("hush");
    stand_in.send_webhooks_to(webhook.only(&["message_created"]));
    let told = async |count: usize| {
        let told = |all: &[Delivery]| all.iter().filter(|it| it.fate == Fate::Answered(StatusCode::NO_CONTENT)).count();
        stand_in.wait_for_deliveries("a webhook", |all| told(all) == count).await;
    };
    let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of(A)));
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    stand_in.agent_message(A, "while filling");
    told(1).await;
    let late = reading(&proxy, A);
    proxy.wait_for_metric(WAITERS, 2.0).await;
    gate.release_all();
    early.await.unwrap();
    assert!(late.await.unwrap().body == stand_in.list_body(A));
    proxy.wait_for_metric(FLIGHTS, 0.0).await;
    // Twice.
    stand_in.agent_message(A, "again");
    told(2).await;
    is_up_to_date(&stand_in, &proxy, A).await;
    let second = stand_in.deliveries()[1].clone();
    assert_eq!(stand_in.replay_delivery(&second).await, Fate::Answered(StatusCode::NO_CONTENT));
    assert!(!proxy.list(A).await.is_hit(), "a needless fetch, not a stale answer");
    assert!(proxy.list(A).await.is_hit());
    // Late, and after a later one: what was fetched since is fetched once more.
    let gate = stand_in.hold_deliveries();
    stand_in.agent_message(A, "held up");
    gate.arrived(1).await;
    assert!(proxy.list(A).await.is_hit(), "nobody has told yet");
    assert_eq!(stand_in.deliver_again(&second).await, Fate::Answered(StatusCode::NO_CONTENT));
    is_up_to_date(&stand_in, &proxy, A).await;
    assert!(proxy.list(A).await.is_hit());
    gate.release_all();
    // With the two that were sent again.
    told(5).await;
    assert!(!proxy.list(A).await.is_hit());
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn i25_after_a_reload_nothing_made_under_other_settings_is_served() {
    let (stand_in, proxy) = both(NOBODY_GIVES_UP).await;
    proxy.list("visitor-b").await;
    let gate = hold_answers(&stand_in, A);
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    let other = format!("{NOBODY_GIVES_UP}cache.credentials = \"ignore\"\ncache.serve_outdated_on_error = true");
    proxy.state.reload(settings(&stand_in.url(), &other)).unwrap();
    let late = reading(&proxy, A);
    gate.arrived(2).await;
    gate.release_all();
    early.await.unwrap();
    assert!(late.await.unwrap().cache_status().contains("fwd=uri-miss"));
    proxy.list(A).await;
    assert!(proxy.list(A).await.is_hit());
    stand_in.fault(Fault::Error);
    let failed = proxy.list("visitor-b").await;
    assert_eq!(failed.status, StatusCode::INTERNAL_SERVER_ERROR, "not even instead of an error");
}

/// The two are of different settings, and compared with nothing.
#[tokio::test]
async fn i25_what_a_read_from_before_a_reload_shows_no_list_from_after_it_hides() {
    let (stand_in, proxy) = both(NOBODY_GIVES_UP).await;
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let url = format!("{}/conversations/{conversation}", proxy.contact_url(A));
    let target = url.strip_prefix(&proxy.url).unwrap().to_owned();
    let gate = stand_in.hold(Point::BeforeReading, first(Matcher::request(Method::GET, &target)));
    let early = spawn(async move { get(&url).await });
    gate.arrived(1).await;
    let other = format!("{NOBODY_GIVES_UP}cache.credentials = \"ignore\"");
    proxy.state.reload(settings(&stand_in.url(), &other)).unwrap();
    proxy.list(A).await;
    assert!(proxy.list(A).await.is_hit());
    stand_in.agent_message(A, "nobody tells");
    gate.release_all();
    assert!(early.await.unwrap().text().contains("nobody tells"));
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[test]
fn i26_two_scopes_in_one_place_cost_a_fetch_and_never_a_stale_answer() {
    let ledger = Ledger::new(1, [1, 2]);
    let (mine, other) = (ledger.place(&Scope::Source("mine")), ledger.place(&Scope::Source("other")));
    assert_eq!(mine, other);
    let noted = ledger.now();
    ledger.invalidate(other);
    assert!(!ledger.is_current(noted, &[mine]));
    let noted = ledger.now();
    assert!(ledger.is_current(noted, &[mine]));
    ledger.invalidate(mine);
    assert!(!ledger.is_current(noted, &[mine]));
}

#[tokio::test]
async fn i27_a_merge_outdates_the_lists_of_both_contacts_everywhere() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, A, "phone-a");
    second_source(&stand_in, A, "tablet-a");
    second_source(&stand_in, "visitor-b", "phone-b");
    let fields = [("content-type", "application/json")];
    let patch = |source, body| send(request("PATCH", &proxy.contact_url(source), &fields, body));
    let email = r#"{"email":"shared@example.test"}"#;
    assert_eq!(patch("visitor-b", email).await.status, StatusCode::OK);
    let (a, b) = (stand_in.contact_id(A), stand_in.contact_id("visitor-b"));
    assert_ne!(a, b);
    proxy.list("phone-a").await;
    proxy.list("tablet-a").await;
    proxy.list("phone-b").await;
    // The source through which they are merged was never seen before: afterwards nobody could say who it was.
    assert_eq!(patch(A, email).await.status, StatusCode::OK);
    assert_eq!(stand_in.contact_id("phone-a"), b);
    is_up_to_date(&stand_in, &proxy, "phone-a").await;
    is_up_to_date(&stand_in, &proxy, "phone-b").await;
    // What was known of a third source, from before the merge, is known no more.
    let conversation = *stand_in.conversation_ids("tablet-a").first().unwrap();
    let seen = format!("{}/conversations/{conversation}/update_last_seen", proxy.contact_url("tablet-a"));
    assert_eq!(post(&seen, "").await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, "phone-b").await;
}

#[tokio::test]
async fn i27_an_answer_from_before_a_merge_that_comes_after_it_teaches_nothing() {
    let (stand_in, proxy) = both("").await;
    second_source(&stand_in, "visitor-b", "phone-b");
    let fields = [("content-type", "application/json")];
    let patch = |source, body| send(request("PATCH", &proxy.contact_url(source), &fields, body));
    let email = r#"{"email":"shared@example.test"}"#;
    assert_eq!(patch("visitor-b", email).await.status, StatusCode::OK);
    // Written and answered while it was still the other contact's; the answer comes after the merge.
    let gate = stand_in.hold(Point::Acknowledging, first(Matcher::writes()));
    let messages = message_url(&stand_in, &proxy, A);
    let early = spawn(async move { post(&messages, r#"{"content":"written"}"#).await });
    gate.arrived(1).await;
    assert_eq!(patch(A, email).await.status, StatusCode::OK);
    // Nothing is unsettled any more.
    jump(Duration::from_secs(6)).await;
    gate.release_all();
    assert_eq!(early.await.unwrap().status, StatusCode::OK);
    proxy.list("phone-b").await;
    assert!(proxy.list("phone-b").await.is_hit());
    // A conversation whose answer is an error, though it is there: whom it is about has to be known.
    stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
    let opened = post(&format!("{}/conversations", proxy.contact_url(A)), "{}").await;
    assert_eq!(opened.status, StatusCode::INTERNAL_SERVER_ERROR);
    is_up_to_date(&stand_in, &proxy, "phone-b").await;
}

#[tokio::test]
async fn i28_a_fetch_begun_just_before_all_has_settled_is_soon_fetched_again() {
    let (stand_in, proxy) = both("").await;
    write(&stand_in, &proxy, A).await;
    jump(Duration::from_millis(4_900)).await;
    let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of(A)));
    let early = reading(&proxy, A);
    gate.arrived(1).await;
    stand_in.agent_message(A, "the bot answers, and nobody tells the proxy");
    jump(Duration::from_secs(1)).await;
    gate.release_all();
    early.await.unwrap();
    jump(Duration::from_millis(1_500)).await;
    is_up_to_date(&stand_in, &proxy, A).await;
    // What began after that is kept as long as any other.
    jump(Duration::from_secs(14)).await;
    assert!(proxy.list(A).await.is_hit());
}

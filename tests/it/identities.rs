//! Who is behind a source, when that changes: merges seen, lost, under way, past the proxy, or by another spelling; and
//! what is a write by the upstream's own routing. In each a list is read after something was acknowledged, and is not
//! from before it.
//!
//! Most of these write with a lost answer (`lost_write`): it names nobody, so that whom it was about must be known. The
//! lists that it must reach are those of a verified source, which sees all conversations of its contact.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anteroom::state::invalidation::Shown;
use anteroom_stand_in::{Fault, Gate, INBOX, Matcher, Point, Seen, Shape, StandIn};
use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::script::{Script, answer, json};
use crate::support::{
    Answer, Proxy, both, get, get_with, is_up_to_date, jump, post, reading, request, resolve, send, settings, spawn,
};

const A: &str = "visitor-a";
const B: &str = "visitor-b";
const SHARED: &str = r#"{"email":"shared@example.test"}"#;
const LONG: &str = "cache.ttl = \"60s\"\ncache.settle = \"0s\"\ncache.settle_unknown = \"0s\"\n";
const UNATTRIBUTED: &str = "anteroom_writes_unattributed_total";
const WRITES: &str = "anteroom_invalidations_total{source=\"write\"}";

async fn patch(proxy: &Proxy, source: &str, body: &str) -> Answer {
    send(request("PATCH", &proxy.contact_url(source), &[("content-type", "application/json")], body)).await
}

/// A second source of a contact, with a conversation of its own, which is all it sees.
async fn sibling(stand_in: &StandIn, proxy: &Proxy, of: &str, source: &str) {
    stand_in.attach(of, source);
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url(source)), "{}").await.status, StatusCode::OK);
}

/// A conversation whose answer is an error, though it is there. Its path names none that a list could be known by.
async fn lost_write(stand_in: &StandIn, proxy: &Proxy, source: &str) {
    let source = source.replace('@', "%40").replace('.', "%2E");
    stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
    let opened = post(&format!("{}/conversations", proxy.contact_url(&source)), "{}").await;
    assert_eq!(opened.status, StatusCode::INTERNAL_SERVER_ERROR);
}

fn first(matcher: Matcher) -> Matcher {
    let taken = AtomicBool::new(false);
    Matcher::when(move |seen| matcher.matches(seen) && !taken.swap(true, Ordering::SeqCst))
}

fn is_look_up(seen: &Seen) -> bool {
    seen.method == Method::GET && seen.target.contains("/contacts/") && !seen.target.contains("/conversations")
}

/// `visitor-a` and `a2` are one contact's; `visitor-b` is another's, who has an e-mail address.
async fn two_contacts(more: &str) -> (StandIn, Proxy) {
    let (stand_in, proxy) = both(&format!("{LONG}{more}")).await;
    sibling(&stand_in, &proxy, A, "a2").await;
    assert_eq!(patch(&proxy, B, SHARED).await.status, StatusCode::OK);
    (stand_in, proxy)
}

/// `visitor-c` and `phone` are one contact's, `newcomer` is another's, who has an e-mail address; no list names anybody.
async fn two_without_conversations() -> (StandIn, Proxy) {
    let (stand_in, proxy) = both(LONG).await;
    stand_in.attach("visitor-c", "phone");
    stand_in.verify("phone");
    let contacts = format!("{}/public/api/v1/inboxes/{INBOX}/contacts", proxy.url);
    let newcomer = r#"{"source_id":"newcomer","email":"shared@example.test"}"#;
    assert_eq!(post(&contacts, newcomer).await.status, StatusCode::OK);
    (stand_in, proxy)
}

#[tokio::test]
async fn an_empty_list_that_stays_empty_after_a_merge_is_the_other_contacts() {
    let (stand_in, proxy) = two_without_conversations().await;
    assert_eq!(proxy.list("phone").await.text(), "[]");
    assert_eq!(patch(&proxy, "visitor-c", SHARED).await.status, StatusCode::OK);
    assert_eq!(stand_in.contact_id("phone"), stand_in.contact_id("newcomer"));
    assert_eq!(proxy.list("phone").await.text(), "[]", "the upstream says 304");
    assert!(proxy.list("phone").await.is_hit());
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url("newcomer")), "{}").await.status, StatusCode::OK);
    assert_ne!(proxy.list("phone").await.text(), "[]");
}

#[tokio::test]
async fn after_a_merge_whose_answer_was_lost_a_siblings_write_reaches_the_merged_contact() {
    let (stand_in, proxy) = two_contacts("").await;
    for source in [A, "a2", B] {
        proxy.list(source).await;
    }
    stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
    assert_eq!(patch(&proxy, A, SHARED).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stand_in.contact_id("a2"), stand_in.contact_id(B), "they were merged all the same");
    is_up_to_date(&stand_in, &proxy, B).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn what_is_shown_after_a_merge_that_may_have_failed_is_not_believed_until_all_has_settled() {
    let (stand_in, proxy) = both("cache.ttl = \"60s\"\ncache.settle = \"0s\"\ncache.settle_unknown = \"60s\"\n").await;
    sibling(&stand_in, &proxy, A, "a2").await;
    stand_in.fault_times(Fault::Error, Matcher::writes(), 1);
    assert_eq!(patch(&proxy, A, SHARED).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&proxy.contact_url("a2")).await.status, StatusCode::OK, "it shows whose it is yet");
    // It has its effect after all.
    stand_in.merge_contacts(B, A);
    is_up_to_date(&stand_in, &proxy, B).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn a_write_that_is_acknowledged_while_a_merge_is_under_way_teaches_nothing() {
    let (stand_in, proxy) = two_contacts("").await;
    for source in [A, "a2", B] {
        proxy.list(source).await;
    }
    let gate = stand_in.hold(Point::Acknowledging, first(Matcher::writes()));
    let url = proxy.contact_url(A);
    let merging =
        spawn(async move { send(request("PATCH", &url, &[("content-type", "application/json")], SHARED)).await });
    gate.arrived(1).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
    gate.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, B).await;
    for source in [A, "a2"] {
        lost_write(&stand_in, &proxy, source).await;
        is_up_to_date(&stand_in, &proxy, B).await;
    }
}

#[tokio::test]
async fn what_is_shown_while_a_merge_is_under_way_is_believed_neither_then_nor_after_it() {
    let (stand_in, proxy) = two_contacts("").await;
    let patches = || first(Matcher::when(|seen: &Seen| seen.method == Method::PATCH));
    let (before, after) =
        (stand_in.hold(Point::BeforeReading, patches()), stand_in.hold(Point::Acknowledging, patches()));
    let url = proxy.contact_url(A);
    let merging =
        spawn(async move { send(request("PATCH", &url, &[("content-type", "application/json")], SHARED)).await });
    before.arrived(1).await;
    // Shown after the merge has begun, and before it is done.
    proxy.list("a2").await;
    before.release_all();
    after.arrived(1).await;
    proxy.list(B).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
    after.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
    proxy.list(B).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
}

/// The contact of `visitor-a` has just become that of `visitor-b`, and nobody has been told. `a2` sees all that is its
/// contact's, and its list from before is kept.
async fn just_merged() -> (StandIn, Proxy, Gate, JoinHandle<Answer>) {
    let (stand_in, proxy) = two_contacts("").await;
    stand_in.verify("a2");
    for source in ["a2", B] {
        proxy.list(source).await;
    }
    let gate = stand_in.hold(Point::Acknowledging, first(Matcher::when(|seen: &Seen| seen.method == Method::PATCH)));
    let url = proxy.contact_url(A);
    let merging =
        spawn(async move { send(request("PATCH", &url, &[("content-type", "application/json")], SHARED)).await });
    gate.arrived(1).await;
    assert_eq!(stand_in.contact_id("a2"), stand_in.contact_id(B));
    assert!(proxy.list("a2").await.is_hit());
    (stand_in, proxy, gate, merging)
}

#[tokio::test]
async fn a_write_reaches_who_is_just_being_merged() {
    let (stand_in, proxy, gate, merging) = just_merged().await;
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url(B)), "{}").await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, "a2").await;
    gate.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn an_event_reaches_who_is_just_being_merged() {
    let (stand_in, proxy, gate, merging) = just_merged().await;
    stand_in.agent_message(B, "to all of them");
    let event = format!(r#"{{"event":"contact_updated","id":{},"account":{{"id":1}}}}"#, stand_in.contact_id(B));
    proxy.state.invalidation.hear(event.as_bytes(), Duration::from_secs(1));
    is_up_to_date(&stand_in, &proxy, "a2").await;
    gate.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_write_to_a_conversation_that_is_just_moved_by_a_merge_waits_for_whom_that_names() {
    let (stand_in, proxy, gate, merging) = just_merged().await;
    assert!(proxy.list(B).await.is_hit(), "it does not have the conversation yet");
    let mut resolving = pin!(resolve(&stand_in, &proxy, A));
    let early = timeout(Duration::from_millis(100), &mut resolving).await;
    assert!(early.is_err(), "acknowledged, though nobody knows in whose list it is");
    gate.release_all();
    assert_eq!(resolving.await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, B).await;
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
    assert_eq!(proxy.state.metrics.writes_unattributed.get(), 0);
}

#[tokio::test]
async fn a_write_waits_for_a_second_for_a_merge_that_is_not_answered() {
    let (stand_in, proxy, gate, merging) = just_merged().await;
    assert_eq!(resolve(&stand_in, &proxy, A).await.status, StatusCode::OK);
    assert_eq!(proxy.state.metrics.writes_unattributed.get(), 1);
    gate.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn a_list_that_names_nobody_and_a_merge_under_way_that_moves_it_is_what_the_contact_before_had() {
    let (stand_in, proxy) = two_without_conversations().await;
    let read = stand_in.hold(Point::AfterReading, first(Matcher::list_of("phone")));
    let url = proxy.list_url("phone");
    let reading = |url: &str| {
        let url = url.to_owned();
        spawn(async move { get(&url).await })
    };
    let early = reading(&url);
    read.arrived(1).await;
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url("visitor-c")), "{}").await.status, StatusCode::OK);
    let merged = stand_in.hold(Point::Acknowledging, first(Matcher::when(|seen: &Seen| seen.method == Method::PATCH)));
    let contact = proxy.contact_url("visitor-c");
    let merging =
        spawn(async move { send(request("PATCH", &contact, &[("content-type", "application/json")], SHARED)).await });
    merged.arrived(1).await;
    // After the write's answer: he joins the fetch that is under way.
    let late = reading(&url);
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    read.release_all();
    assert_ne!(late.await.unwrap().text(), "[]");
    assert_eq!(early.await.unwrap().status, StatusCode::OK);
    merged.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_merge_by_another_spelling_of_the_path_is_a_merge() {
    let (stand_in, proxy) = two_contacts("").await;
    let mail = "mail@x.com";
    stand_in.attach(A, mail);
    let spelt = "mail%40x%2Ecom";
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url(spelt)), "{}").await.status, StatusCode::OK);
    for source in [spelt, "a2", B] {
        proxy.list(source).await;
    }
    assert_eq!(patch(&proxy, spelt, SHARED).await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, B).await;
    lost_write(&stand_in, &proxy, mail).await;
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn of_two_merges_through_one_source_the_second_knows_the_contact_between_them() {
    let (stand_in, proxy) = two_contacts("").await;
    let third = r#"{"email":"third@example.test"}"#;
    assert_eq!(patch(&proxy, "visitor-c", third).await.status, StatusCode::OK);
    proxy.list(A).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let patches = |seen: &Seen| seen.method == Method::PATCH;
    let (one, two) = (
        first(Matcher::when(patches)),
        Matcher::when(move |seen| patches(seen) && sent.fetch_add(1, Ordering::SeqCst) == 1),
    );
    let (answering, sending) = (stand_in.hold(Point::Acknowledging, one), stand_in.hold(Point::BeforeReading, two));
    let merging = |body: &'static str| {
        let url = proxy.contact_url(A);
        spawn(async move { send(request("PATCH", &url, &[("content-type", "application/json")], body)).await })
    };
    let first = merging(SHARED);
    answering.arrived(1).await;
    let second = merging(third);
    answering.release_all();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    sending.arrived(1).await;
    is_up_to_date(&stand_in, &proxy, B).await;
    sending.release_all();
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    assert_eq!(stand_in.contact_id(B), stand_in.contact_id("visitor-c"));
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn a_merge_through_a_source_whose_contact_is_not_shown_is_known_by_its_list() {
    let (stand_in, proxy) = two_contacts("").await;
    stand_in.fault_on(Fault::Error, Matcher::when(is_look_up));
    proxy.list("a2").await;
    assert_eq!(patch(&proxy, A, SHARED).await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, "a2").await;
    assert!(proxy.metric(UNATTRIBUTED).await < 0.5);
    // One whose list is empty is known to nobody: that is counted, and so is what it may have been about.
    assert_eq!(patch(&proxy, "visitor-c", SHARED).await.status, StatusCode::OK);
    assert!(proxy.metric(UNATTRIBUTED).await > 0.5);
}

#[tokio::test]
async fn what_was_merged_past_the_proxy_is_not_believed_for_longer_than_lists_are_kept() {
    let (stand_in, proxy) = two_contacts("cache.stale_while_revalidate = \"0s\"\n").await;
    proxy.list("a2").await;
    stand_in.merge_contacts(B, A);
    jump(Duration::from_secs(61)).await;
    is_up_to_date(&stand_in, &proxy, B).await;
    lost_write(&stand_in, &proxy, "a2").await;
    is_up_to_date(&stand_in, &proxy, B).await;
}

/// Whose an empty list was is known only when it has come; by then it may be somebody else's.
#[tokio::test]
async fn an_empty_list_is_out_of_date_by_a_write_of_whoever_had_it_before_a_merge_past_the_proxy() {
    let (stand_in, proxy) = two_without_conversations().await;
    assert_eq!(get(&proxy.contact_url("phone")).await.status, StatusCode::OK);
    jump(Duration::from_secs(600)).await;
    let gate = stand_in.hold(Point::AfterReading, first(Matcher::list_of("phone")));
    let early = reading(&proxy, "phone");
    gate.arrived(1).await;
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url("visitor-c")), "{}").await.status, StatusCode::OK);
    stand_in.merge_contacts("newcomer", "visitor-c");
    gate.release_all();
    assert_eq!(early.await.unwrap().text(), "[]", "it came before");
    is_up_to_date(&stand_in, &proxy, "phone").await;
}

#[tokio::test]
async fn a_write_to_a_conversation_reaches_every_list_that_has_it_whosever_it_is() {
    let (stand_in, proxy) = two_contacts("").await;
    stand_in.verify(B);
    proxy.list(A).await;
    stand_in.merge_contacts(B, A);
    is_up_to_date(&stand_in, &proxy, B).await;
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let seen = format!("{}/conversations/{conversation}/update_last_seen", proxy.contact_url(A));
    assert_eq!(post(&seen, "").await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, B).await;
}

#[tokio::test]
async fn a_write_to_a_conversation_that_is_just_being_begun_reaches_a_list_that_does_not_have_it() {
    let (stand_in, proxy) = both(LONG).await;
    assert_eq!(proxy.list("visitor-c").await.text(), "[]");
    let gate = stand_in.hold(Point::Acknowledging, first(Matcher::writes()));
    let url = format!("{}/conversations", proxy.contact_url("visitor-c"));
    let beginning = spawn(async move { post(&url, "{}").await });
    gate.arrived(1).await;
    assert_eq!(resolve(&stand_in, &proxy, "visitor-c").await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, "visitor-c").await;
    gate.release_all();
    assert_eq!(beginning.await.unwrap().status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, "visitor-c").await;
}

/// `visitor-c` and `phone` are one contact's, who has another number at another upstream; no list of it names anybody.
async fn two_upstreams() -> (StandIn, StandIn, Proxy) {
    let (one, proxy) = both(LONG).await;
    let other = StandIn::start(anteroom_stand_in::Options::default()).await.unwrap();
    other.delete_contact("visitor-c");
    other.recreate_contact("visitor-c");
    for stand_in in [&one, &other] {
        stand_in.attach("visitor-c", "phone");
        stand_in.verify("phone");
    }
    assert_ne!(one.contact_id("phone"), other.contact_id("phone"));
    (one, other, proxy)
}

/// Who took the settings before a reload may be sent after it, and note a later time than all that the reload put out of
/// date.
#[tokio::test]
async fn what_one_upstream_shows_after_a_reload_is_not_believed_of_the_other() {
    let (_one, other, proxy) = two_upstreams().await;
    let state = &proxy.state;
    let before = state.active();
    state.reload(settings(&other.url(), LONG)).unwrap();
    let (noted, began) = (state.invalidation.ledger.now(), anteroom::engine::clock::now());
    state.invalidation.learn(Shown { whose: before.whose(INBOX, "phone"), noted, began }, 7);
    assert_eq!(state.believed(&before, INBOX, "phone", began), Some(7));
    assert_eq!(state.believed(&state.active(), INBOX, "phone", began), None);
}

#[tokio::test]
async fn what_was_learned_of_another_upstream_is_not_believed() {
    let (_one, other, proxy) = two_upstreams().await;
    let verify = format!("{}?identifier_hash=valid-hash", proxy.contact_url(A));
    assert_eq!(get(&verify).await.status, StatusCode::OK);
    proxy.list("phone").await;
    proxy.state.reload(settings(&other.url(), LONG)).unwrap();
    assert_eq!(proxy.list("phone").await.text(), "[]");
    assert_eq!(post(&format!("{}/conversations", proxy.contact_url("visitor-c")), "{}").await.status, StatusCode::OK);
    assert_ne!(proxy.list("phone").await.text(), "[]");
    // Nor has the other one accepted a hash.
    sibling(&other, &proxy, A, "a2").await;
    proxy.list(A).await;
    assert_eq!(get(&verify).await.status, StatusCode::OK);
    is_up_to_date(&other, &proxy, A).await;
}

#[tokio::test]
async fn what_passed_before_a_merge_and_arrives_after_it_teaches_nothing() {
    // The contact comes from memory, and it passes.
    for routes in ["", "cache.routes = [\"conversations\"]"] {
        let (stand_in, proxy) = two_contacts(routes).await;
        let gate = stand_in.hold(Point::AfterReading, first(Matcher::when(is_look_up)));
        let url = proxy.contact_url(A);
        let early = spawn(async move { get(&url).await });
        gate.arrived(1).await;
        stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
        assert_eq!(patch(&proxy, A, SHARED).await.status, StatusCode::INTERNAL_SERVER_ERROR);
        gate.release_all();
        assert_eq!(early.await.unwrap().status, StatusCode::OK);
        proxy.list(B).await;
        lost_write(&stand_in, &proxy, A).await;
        is_up_to_date(&stand_in, &proxy, B).await;
    }
}

#[tokio::test]
async fn a_write_unsettles_the_lists_of_its_contacts_other_sources_too() {
    let (stand_in, proxy) = both("").await;
    sibling(&stand_in, &proxy, A, "a2").await;
    jump(Duration::from_secs(6)).await;
    lost_write(&stand_in, &proxy, A).await;
    is_up_to_date(&stand_in, &proxy, "a2").await;
    stand_in.agent_message("a2", "the bot answers late, and nobody tells the proxy");
    jump(Duration::from_secs(2)).await;
    is_up_to_date(&stand_in, &proxy, "a2").await;
}

#[tokio::test]
async fn a_write_with_an_answer_too_long_to_be_read_is_attributed_all_the_same() {
    let (stand_in, proxy) = two_contacts("").await;
    proxy.list("a2").await;
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let url = format!("{}/conversations/{conversation}/messages", proxy.contact_url(A));
    let answer = post(&url, &format!(r#"{{"content":"{}"}}"#, "x".repeat(100_000))).await;
    assert!(answer.status == StatusCode::OK && answer.body.len() > 64 * 1024);
    is_up_to_date(&stand_in, &proxy, "a2").await;
}

#[tokio::test]
async fn a_hash_that_was_refused_is_not_taken_for_accepted() {
    let (stand_in, proxy) = two_contacts("").await;
    let verify = format!("{}?identifier_hash=valid-hash", proxy.contact_url(A));
    stand_in.fault_times(Fault::Error, Matcher::when(is_look_up), 1);
    assert_eq!(get(&verify).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    proxy.list(A).await;
    assert_eq!(get(&verify).await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn a_304_that_passed_by_outdates_an_older_list() {
    let (stand_in, proxy) = both(LONG).await;
    proxy.list(A).await;
    stand_in.agent_message(A, "nobody told the proxy");
    let newer = get(&format!("{}{}", stand_in.url(), StandIn::list_path(A))).await.header("etag").unwrap().to_owned();
    let passed = get_with(&proxy.list_url(A), &[("cookie", "a=b"), ("if-none-match", &newer)]).await;
    assert_eq!(passed.status, StatusCode::NOT_MODIFIED);
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn an_agents_write_reaches_a_list_of_many_conversations() {
    let (stand_in, proxy) = both(LONG).await;
    stand_in.seed(A, Shape { conversations: 40, messages: 1, bytes: 10 });
    proxy.list(A).await;
    assert!(proxy.list(A).await.is_hit());
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let url = format!("{}/api/v1/accounts/7/conversations/{conversation}/messages", proxy.url);
    let fields = [("content-type", "application/json"), ("api_access_token", "agent-token")];
    let written = send(request("POST", &url, &fields, r#"{"content":"by an agent"}"#)).await;
    assert_eq!(written.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxy, A).await;
}

#[tokio::test]
async fn a_404_fetched_while_a_creation_is_unsettled_is_soon_asked_again() {
    let (stand_in, proxy) = both("cache.negative_ttl = \"60s\"").await;
    let gate = stand_in.hold(Point::BeforeReading, first(Matcher::writes()));
    let contacts = format!("{}/public/api/v1/inboxes/{INBOX}/contacts", proxy.url);
    let body = r#"{"source_id":"newcomer"}"#;
    let creating = spawn(async move { post(&contacts, body).await });
    gate.arrived(1).await;
    jump(Duration::from_secs(21)).await;
    assert_eq!(creating.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(proxy.list("newcomer").await.status, StatusCode::NOT_FOUND);
    let direct = format!("{}/public/api/v1/inboxes/{INBOX}/contacts", stand_in.url());
    assert_eq!(post(&direct, body).await.status, StatusCode::OK);
    jump(Duration::from_secs(2)).await;
    assert_eq!(proxy.list("newcomer").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_write_whose_look_up_hangs_is_acknowledged_after_a_second_and_outdates_whatever_names_nobody() {
    let (stand_in, proxy) = two_contacts("").await;
    assert_eq!(proxy.list("visitor-c").await.text(), "[]");
    assert!(proxy.list("visitor-c").await.is_hit());
    jump(Duration::from_secs(31)).await;
    stand_in.fault_on(Fault::Hang, Matcher::when(is_look_up));
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let seen = format!("{}/conversations/{conversation}/update_last_seen", proxy.contact_url(A));
    let writing = spawn(async move { post(&seen, "").await });
    stand_in.wait_for("the look-up", |all| all.last().is_some_and(is_look_up)).await;
    jump(Duration::from_millis(1_100)).await;
    assert_eq!(writing.await.unwrap().status, StatusCode::OK);
    assert!(proxy.metric(UNATTRIBUTED).await > 0.5);
    stand_in.clear_faults();
    assert!(!proxy.list("visitor-c").await.is_hit());
}

#[tokio::test]
async fn uploads_of_strangers_that_break_off_leave_lists_of_many_conversations_alone() {
    let (stand_in, proxy) = both(LONG).await;
    stand_in.seed(A, Shape { conversations: 40, messages: 1, bytes: 10 });
    proxy.list(A).await;
    let host = proxy.url.strip_prefix("http://").unwrap();
    for (count, path) in
        ["public/api/v1/csat_survey/0f0e0d0c-0b0a-4908-8706-050403020100", "api/v1/accounts/7/conversations/9/messages"]
            .into_iter()
            .enumerate()
    {
        let head = format!("PUT /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000\r\n\r\nhalf");
        let mut client = tokio::net::TcpStream::connect(host).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        stand_in.wait_for("a write", |seen| seen.iter().filter(|seen| seen.is_write()).count() > count).await;
        drop(client);
        proxy.wait_for_metric(WRITES, count as f64 + 1.0).await;
        assert!(proxy.list(A).await.is_hit(), "{path}");
    }
}

/// One contact (7) with one conversation (12 of account 1); every write changes it.
async fn scripted() -> (Script, Arc<AtomicU64>, Proxy) {
    let version = Arc::new(AtomicU64::new(0));
    let state = version.clone();
    let upstream = Script::start(move |request| {
        let path = request.uri().path();
        let hashed = request.uri().query().is_some_and(|query| query.contains("identifier_hash"));
        if request.method() != Method::GET || hashed {
            state.fetch_add(1, Ordering::SeqCst);
            return answer(200, "application/json", "");
        }
        if !path.ends_with("/conversations") {
            return json(r#"{"id":7,"source_id":"someone"}"#);
        }
        let version = state.load(Ordering::SeqCst);
        let uuid = "0f0e0d0c-0b0a-4908-8706-050403020100";
        json(&format!(
            r#"[{{"id":12,"uuid":"{uuid}","contact_last_seen_at":{version},"contact":{{"id":7,"account_id":1}},"messages":[]}}]"#
        ))
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, LONG).await;
    (upstream, version, proxy)
}

#[tokio::test]
async fn a_write_in_whatever_form_the_upstream_takes_it_outdates_the_list() {
    let (_upstream, _, proxy) = scripted().await;
    let form = "application/x-www-form-urlencoded";
    let parts = "multipart/form-data; boundary=b";
    let contact = "/public/api/v1/inboxes/in/contacts/someone";
    for (method, path, kind, body) in [
        ("PATCH", "/public/api/v1/csat_survey/0F0E0D0C0B0A49088706050403020100", "application/json", "{}"),
        ("POST", "/api/v1/accounts/1/conversations/12-x/toggle_status", "application/json", "{}"),
        ("POST", "/api/v1/accounts/1-a/conversations/12/toggle_status.json", "application/json", "{}"),
        ("PUT", "/api/v1/accounts/1/contacts/7-x", "application/json", "{}"),
        ("POST", "/api/v1/accounts/1/conversations", "application/json", r#"{"source_id":"someone","inbox_id":3}"#),
        ("POST", "/api/v1/accounts/1/conversations", "application/json", r#"{"contact_id":7}"#),
        ("POST", "/api/v1/accounts/1/bulk_actions", "application/json", r#"{"type":"Conversation","ids":[12]}"#),
        ("POST", "/api/v1/accounts/1/bulk_actions", form, "type=Conversation&ids%5B%5D=12"),
        ("POST", "/api/v1/accounts/1/bulk_actions", "application/json", r#"{"type":"Contact","ids":["7"]}"#),
        ("POST", "/api/v1/accounts/1/bulk_actions", parts, "--b\r\n\r\n"),
        ("POST", "/api/v1/accounts/1/macros/3/execute", "application/json", r#"{"conversation_ids":[12]}"#),
        (
            "POST",
            "/api/v1/accounts/1/actions/contact_merge",
            "application/json",
            r#"{"base_contact_id":9,"mergee_contact_id":7}"#,
        ),
        ("POST", "/api/v1/accounts/1/actions/contact_merge/", form, "base_contact_id=7&mergee_contact_id=9"),
        ("GET", &format!("{contact}?[identifier_hash]=h"), "application/json", ""),
        ("GET", &format!("{contact}.json?identifier_hash=h2"), "application/json", ""),
        ("DELETE", &format!("{contact}/"), "application/json", ""),
    ] {
        let list = format!("{}{contact}/conversations", proxy.url);
        get(&list).await;
        assert!(get(&list).await.is_hit(), "{method} {path} {body}");
        let write = request(method, &format!("{}{path}", proxy.url), &[("content-type", kind)], body);
        assert_eq!(send(write).await.status, StatusCode::OK, "{method} {path}");
        assert!(!get(&list).await.is_hit(), "{method} {path} {body}");
    }
}

#[tokio::test]
async fn searches_and_writes_to_other_conversations_leave_a_list_alone() {
    let (_upstream, _, proxy) = scripted().await;
    let list = format!("{}/public/api/v1/inboxes/in/contacts/someone/conversations", proxy.url);
    get(&list).await;
    for (path, body) in [
        ("/api/v1/accounts/1/conversations/filter", "{}"),
        ("/api/v1/accounts/1/contacts/filter", "{}"),
        ("/api/v1/accounts/1/bulk_actions", r#"{"type":"Conversation","ids":[13]}"#),
        ("/api/v1/accounts/1/actions/contact_merge", r#"{"base_contact_id":8,"mergee_contact_id":9}"#),
    ] {
        assert_eq!(post(&format!("{}{path}", proxy.url), body).await.status, StatusCode::OK);
        assert!(get(&list).await.is_hit(), "{path} {body}");
    }
}

//! What a list that was fetched again tells of the older one: for how long it was out of date, and why nobody knew. And
//! audits, which fetch hits again.
//!
//! Tokio's clock jumps and the wall clock does not, so the times in lists are made for the moment: an answer that is
//! `n` jumped seconds old counts as asked for `n` seconds ago.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anteroom::engine::clock;
use anteroom::engine::metrics::InvalidationSource;
use anteroom::policy::coherence::event::{Event, Touched};
use anteroom::policy::coherence::ledger::Scope;
use anteroom::policy::http::key::Key;
use anteroom::server::listeners::Drained;
use anteroom_stand_in::{Fault, INBOX, Matcher, Options, Point, Shape, StandIn};
use http::StatusCode;

use crate::support::child::Program;
use crate::support::script::{Script, json};
use crate::support::{Proxy, get, get_with, jump, post, reading};

const A: &str = "fresh";
const OTHERS: [&str; 3] = ["other-1", "other-2", "other-3"];
const TOLD: &str = "cache.stale_while_revalidate = \"0s\"\nwebhook.secrets = [\"s\"]\n";
const COUNT: &str = "anteroom_staleness_seconds_count";
const SUM: &str = "anteroom_staleness_seconds_sum";
const TTL: Duration = Duration::from_secs(15);
/// `webhook.silent_after`.
const SILENT: Duration = Duration::from_secs(60);

async fn both(more: &str) -> (StandIn, Proxy) {
    both_with(Options::default(), more).await
}

/// The same, where lists expire by a jump of the clock. The time of day does not jump: by it what is asked for now was
/// asked for so much earlier when it has expired, and the last moment it was served is now. What changes next changed
/// between the two.
async fn both_to_expire(more: &str) -> (StandIn, Proxy) {
    both_with(Options { behind: TTL / 3, ..Options::default() }, more).await
}

async fn both_with(options: Options, more: &str) -> (StandIn, Proxy) {
    let stand_in = StandIn::start(options).await.unwrap();
    let proxy = Proxy::start(&stand_in, more).await;
    stand_in.seed(A, Shape { conversations: 1, messages: 2, bytes: 10 });
    (stand_in, proxy)
}

fn class(class: &str) -> String {
    format!("anteroom_untold_changes_total{{class=\"{class}\"}}")
}

fn audits(result: &str) -> String {
    format!("anteroom_audits_total{{result=\"{result}\"}}")
}

/// Everything that was begun to measure has ended, and these are all the classes there are.
async fn classes(proxy: &Proxy, expected: &[(&str, f64)]) {
    idle(proxy).await;
    for name in ["event_late", "event_lost", "no_event", "bug"] {
        let wanted = expected.iter().find(|(class, _)| *class == name).map_or(0.0, |(_, count)| *count);
        let counted = proxy.metric(&class(name)).await;
        assert!((counted - wanted).abs() < 0.1, "{name}: {counted}");
    }
}

async fn idle(proxy: &Proxy) {
    let idle = async {
        while !proxy.state.lifecycle.tasks.is_empty() || proxy.state.cache.flights.under_way() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), idle).await.expect("measuring ends");
}

/// Reads again when what is kept has expired.
async fn after_the_ttl(proxy: &Proxy) {
    jump(TTL).await;
    assert!(!proxy.list(A).await.is_hit());
}

/// An event about everything of this contact.
fn event(stand_in: &StandIn, proxy: &Proxy) {
    let contact = u64::try_from(stand_in.contact_id(A)).unwrap();
    let touched = Touched { source: Some(A.to_owned()), contacts: vec![contact], conversation: None };
    proxy.state.invalidation.changed(&touched, Event::Other, None, InvalidationSource::Webhook);
}

/// Unix seconds of now.
fn now() -> u64 {
    clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// An upstream whose list has one more message each time, of these times.
async fn growing(times: &'static [i64]) -> Script {
    growing_by(0, times).await
}

/// The same, whose clock is so many seconds ahead of ours.
async fn growing_by(ahead: i64, times: &'static [i64]) -> Script {
    let asked = AtomicUsize::new(0);
    let began = i64::try_from(now()).unwrap();
    Script::start(move |_| {
        let shown = asked.fetch_add(1, Ordering::SeqCst).min(times.len());
        let messages = times[..shown].iter().enumerate();
        let messages = messages.map(|(id, at)| format!("{{\"id\":{id},\"created_at\":{}}}", began + at + ahead));
        let messages: Vec<String> = messages.collect();
        let mut answer = json(&format!(
            "[{{\"id\":1,\"uuid\":\"u\",\"messages\":[{}],\"contact\":{{\"id\":7,\"account_id\":3}}}}]",
            messages.join(",")
        ));
        let theirs = Duration::from_secs(now().checked_add_signed(ahead).unwrap());
        let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + theirs);
        answer.headers_mut().insert("date", date.parse().unwrap());
        answer
    })
    .await
}

#[tokio::test]
async fn staleness_counts_from_the_message_to_the_last_moment_the_list_was_served() {
    // 30 s after it was asked for, the list was fetched again; it was served for 25 s of them.
    let upstream = growing(&[-10]).await;
    let proxy = Proxy::in_front_of(&upstream.url, "cache.stale_while_revalidate = \"10s\"").await;
    proxy.list(A).await;
    jump(Duration::from_secs(30)).await;
    proxy.list(A).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    let stale_for = proxy.metric(SUM).await;
    assert!((4.5..8.0).contains(&stale_for), "{stale_for}");
    // Nobody says whether an event should have come.
    classes(&proxy, &[]).await;
}

#[tokio::test]
async fn a_change_after_the_list_had_expired_made_nobody_stale() {
    let upstream = growing(&[-10]).await;
    let proxy = Proxy::in_front_of(&upstream.url, TOLD).await;
    proxy.list(A).await;
    jump(Duration::from_secs(30)).await;
    proxy.list(A).await;
    jump(SILENT).await;
    classes(&proxy, &[("event_lost", 1.0)]).await;
    assert!(proxy.metric(COUNT).await < 0.1);
}

#[tokio::test]
async fn a_list_that_stood_in_for_failures_was_served_all_the_time() {
    let (stand_in, proxy) = both_to_expire("cache.stale_while_revalidate = \"0s\"").await;
    proxy.list(A).await;
    jump(TTL).await;
    stand_in.fault_times(Fault::Error, Matcher::list_of(A), 1);
    assert!(proxy.list(A).await.is_hit(), "it stands in");
    stand_in.agent_message(A, "hello");
    jump(Duration::from_secs(100)).await;
    assert!(!proxy.list(A).await.is_hit());
    proxy.wait_for_metric(COUNT, 1.0).await;
}

#[tokio::test]
async fn staleness_is_measured_behind_a_reader_who_gets_a_stale_list_too() {
    let (stand_in, proxy) = both_to_expire("cache.stale_while_revalidate = \"10s\"").await;
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    jump(TTL).await;
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(COUNT, 1.0).await;
    assert!(proxy.metric(SUM).await < 10.0);
    assert!(proxy.list(A).await.body == stand_in.list_body(A));
}

#[tokio::test]
async fn of_some_changes_nobody_tells() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    for (times, change) in [
        (1.0, Box::new(|| stand_in.touch_agent_last_seen(A)) as Box<dyn Fn()>),
        (2.0, Box::new(|| stand_in.rename_agent("Another"))),
        // The list itself is gone.
        (3.0, Box::new(|| stand_in.delete_contact(A))),
    ] {
        change();
        after_the_ttl(&proxy).await;
        proxy.wait_for_metric(&class("no_event"), times).await;
    }
    classes(&proxy, &[("no_event", 3.0)]).await;
    // The agent's reading bears its time, the name does not.
    assert!((proxy.metric(COUNT).await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn an_event_that_comes_later_was_late() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    after_the_ttl(&proxy).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    assert_eq!(proxy.state.lifecycle.tasks.len(), 1, "it waits for the event");
    event(&stand_in, &proxy);
    jump(SILENT / 2).await;
    classes(&proxy, &[("event_late", 1.0)]).await;
}

#[tokio::test]
async fn an_event_that_comes_at_the_last_moment_was_late() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    after_the_ttl(&proxy).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    for _ in 0..59 {
        jump(Duration::from_secs(1)).await;
    }
    assert_eq!(proxy.state.lifecycle.tasks.len(), 1, "it waits for the event");
    event(&stand_in, &proxy);
    jump(Duration::from_secs(2)).await;
    classes(&proxy, &[("event_late", 1.0)]).await;
}

#[tokio::test]
async fn an_event_that_never_comes_was_lost() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    // So many that it names none of them.
    stand_in.seed(A, Shape { conversations: 40, messages: 1, bytes: 10 });
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    after_the_ttl(&proxy).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    // What puts this list alone out of date is no event, nor is a purge of its inbox, nor another contact's event.
    proxy.state.invalidation.invalidate_list(&Key::new(INBOX, A, None), InvalidationSource::Flight);
    proxy.state.invalidation.changed(
        &Touched { contacts: vec![987_654], ..Touched::default() },
        Event::Other,
        None,
        InvalidationSource::Webhook,
    );
    proxy.state.invalidation.changed(
        &Touched { conversation: Some((987, 654)), ..Touched::default() },
        Event::Other,
        None,
        InvalidationSource::Cable,
    );
    proxy.state.invalidation.ledger.invalidate(proxy.state.invalidation.ledger.place(&Scope::Inbox(INBOX)));
    jump(SILENT).await;
    classes(&proxy, &[("event_lost", 1.0)]).await;
    // Nobody wrote through the proxy: it knows from this alone that webhooks are silent.
    proxy.wait_for_metric("anteroom_webhooks_silent", 1.0).await;
    // That somebody types proves nothing of messages.
    proxy.state.invalidation.hear(br#"{"event":"conversation_typing_on"}"#, Duration::ZERO);
    proxy.wait_for_metric("anteroom_webhooks_silent", 1.0).await;
    let of_another = br#"{"event":"message_created","account":{"id":987},"conversation":{"id":654}}"#;
    proxy.state.invalidation.hear(of_another, Duration::ZERO);
    proxy.wait_for_metric("anteroom_webhooks_silent", 0.0).await;
}

#[tokio::test]
async fn after_everything_was_purged_nothing_is_said_of_events() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    after_the_ttl(&proxy).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    proxy.state.invalidation.ledger.invalidate_all();
    jump(SILENT).await;
    classes(&proxy, &[]).await;
}

#[tokio::test]
async fn what_somebody_has_told_of_is_not_measured() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    // An event before it is fetched again.
    stand_in.agent_message(A, "hello");
    event(&stand_in, &proxy);
    after_the_ttl(&proxy).await;
    // An event while it is.
    stand_in.agent_message(A, "hello again");
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    jump(TTL).await;
    let reading = reading(&proxy, A);
    gate.arrived(1).await;
    event(&stand_in, &proxy);
    gate.release_all();
    reading.await.unwrap();
    // A write that passes through, and one whose effects go on.
    let conversation = stand_in.conversation_ids(A)[0];
    let url = format!("{}/conversations/{conversation}/messages", proxy.contact_url(A));
    assert_eq!(post(&url, r#"{"content":"written"}"#).await.status, StatusCode::OK);
    after_the_ttl(&proxy).await;
    jump(SILENT).await;
    classes(&proxy, &[]).await;
    assert!(proxy.metric(COUNT).await < 0.1);
}

#[tokio::test]
async fn a_list_that_is_the_same_or_only_in_another_order_is_not_stale() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    stand_in.seed(A, Shape { conversations: 2, messages: 1, bytes: 10 });
    proxy.list(A).await;
    after_the_ttl(&proxy).await;
    stand_in.fault(Fault::Reorder);
    after_the_ttl(&proxy).await;
    after_the_ttl(&proxy).await;
    classes(&proxy, &[]).await;
    assert!(proxy.metric(COUNT).await < 0.1);
}

#[tokio::test]
async fn a_message_from_before_the_list_was_asked_for_is_a_mistake_of_somebody() {
    let upstream = growing(&[-300, -200]).await;
    let proxy = Proxy::in_front_of(&upstream.url, TOLD).await;
    proxy.list(A).await;
    after_the_ttl(&proxy).await;
    classes(&proxy, &[("bug", 1.0)]).await;
    assert!(proxy.metric(SUM).await < 15.5, "it was not served before it was asked for");
}

#[tokio::test]
async fn the_upstreams_clock_may_be_wrong() {
    for ahead in [-3_600, -60, -3, 3, 60, 3_600] {
        // Written 5 s before it was fetched again, 10 s after it was asked for.
        let upstream = growing_by(ahead, &[-5]).await;
        let proxy = Proxy::in_front_of(&upstream.url, TOLD).await;
        proxy.list(A).await;
        after_the_ttl(&proxy).await;
        proxy.wait_for_metric(COUNT, 1.0).await;
        let stale_for = proxy.metric(SUM).await;
        assert!((4.0..8.5).contains(&stale_for), "{ahead}: {stale_for}");
        jump(SILENT).await;
        classes(&proxy, &[("event_lost", 1.0)]).await;
    }
}

#[tokio::test]
async fn such_a_mistake_is_logged_without_the_identifier() {
    let upstream = growing(&[-300]).await;
    let settings = "cache.ttl = \"0s\"\ncache.stale_while_revalidate = \"0s\"\nwebhook.secrets = [\"s\"]\n\
                    drain.notice = \"0s\"\nlog.format = \"json\"";
    let mut program = Program::serve(&upstream.url, settings).await;
    let url = format!("{}{}", program.url, StandIn::list_path("zebra:7f3"));
    get(&url).await;
    get(&url).await;
    let counted = format!("{} 1\n", class("bug"));
    let counting = async { while !get(&format!("{}/metrics", program.admin)).await.text().contains(&counted) {} };
    tokio::time::timeout(Duration::from_secs(20), counting).await.expect("it is counted");
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("lacked a message")).collect();
    let line: serde_json::Value = serde_json::from_str(lines[0]).expect("an object");
    assert_eq!((lines.len(), line["level"].as_str()), (1, Some("ERROR")));
    assert_eq!(line["contact"].as_str().map(str::len), Some(16));
    assert!(!log.contains("zebra"), "{log}");
}

#[tokio::test]
async fn large_lists_are_compared_aside() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    stand_in.seed(A, Shape { conversations: 3, messages: 100, bytes: 2000 });
    assert!(proxy.list(A).await.body.len() > anteroom::policy::payload::INLINE_LIMIT);
    stand_in.touch_agent_last_seen(A);
    after_the_ttl(&proxy).await;
    classes(&proxy, &[("no_event", 1.0)]).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_an_event() {
    let (stand_in, proxy) = both_to_expire(TOLD).await;
    proxy.list(A).await;
    stand_in.agent_message(A, "hello");
    after_the_ttl(&proxy).await;
    proxy.wait_for_metric(COUNT, 1.0).await;
    assert_eq!(proxy.state.lifecycle.tasks.len(), 1, "it waits for the event");
    let state = proxy.state.clone();
    // By the real clock: the test would take a minute.
    let stopped = tokio::time::timeout(Duration::from_secs(5), proxy.stop()).await;
    assert_eq!(stopped.expect("at once"), Drained::Whole);
    assert_eq!(state.metrics.untold_changes.with_label_values(&["event_lost"]).get(), 0);
}

#[tokio::test]
async fn an_audited_hit_is_fetched_again_behind() {
    let (stand_in, proxy) = both("audit.share = 1.0\nwebhook.secrets = [\"s\"]").await;
    proxy.list(A).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::list_of(A));
    assert!(proxy.list(A).await.is_hit(), "nobody waits for an audit");
    gate.arrived(1).await;
    // Nor are there two at once.
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("skipped"), 1.0).await;
    gate.release_all();
    proxy.wait_for_metric(&audits("same"), 1.0).await;
    stand_in.agent_message(A, "hello");
    let older = proxy.list(A).await;
    assert!(older.is_hit() && older.body != stand_in.list_body(A));
    proxy.wait_for_metric(&audits("differs"), 1.0).await;
    proxy.wait_for_metric("anteroom_flights", 0.0).await;
    // What the audit fetched is kept, and was measured.
    assert!(proxy.list(A).await.body == stand_in.list_body(A));
    proxy.wait_for_metric(COUNT, 1.0).await;
    event(&stand_in, &proxy);
    jump(SILENT / 2).await;
    proxy.wait_for_metric(&class("event_late"), 1.0).await;
}

#[tokio::test]
async fn an_audit_without_a_validator_compares_the_bodies() {
    let (stand_in, proxy) = both("audit.share = 1.0").await;
    stand_in.fault(Fault::NoEtag);
    proxy.list(A).await;
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("same"), 1.0).await;
    stand_in.agent_message(A, "hello");
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("differs"), 1.0).await;
}

#[tokio::test]
async fn audits_leave_a_failing_upstream_alone() {
    let (stand_in, proxy) = both("audit.share = 1.0").await;
    proxy.list(A).await;
    stand_in.seed(OTHERS[0], Shape { conversations: 1, messages: 1, bytes: 10 });
    proxy.list(OTHERS[0]).await;
    stand_in.fault(Fault::Error);
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("failed"), 1.0).await;
    jump(Duration::from_secs(5)).await;
    for (source, skipped) in [(A, 1.0), (A, 2.0), (OTHERS[0], 3.0)] {
        assert!(proxy.list(source).await.is_hit());
        proxy.wait_for_metric(&audits("skipped"), skipped).await;
    }
    assert_eq!((stand_in.list_requests(A), stand_in.list_requests(OTHERS[0])), (2, 1));
    // What is no list is no answer to an audit.
    stand_in.clear_faults();
    jump(Duration::from_secs(60)).await;
    assert!(!proxy.list(A).await.is_hit());
    stand_in.fault(Fault::Html);
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("failed"), 2.0).await;
}

#[tokio::test]
async fn audits_take_no_place_that_a_reader_needs() {
    let (stand_in, proxy) = both("audit.share = 1.0\nupstream.max_in_flight = 1").await;
    proxy.list(A).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::list_of("visitor-a"));
    let reading = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("skipped"), 1.0).await;
    assert_eq!(stand_in.list_requests(A), 1);
    gate.release_all();
    assert_eq!(reading.await.unwrap().status, StatusCode::OK);
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("same"), 1.0).await;
    assert_eq!(proxy.state.upstream.in_flight.free(), 1, "an audit gives its place back");
}

#[tokio::test]
async fn audits_leave_half_of_the_places_to_readers() {
    let (stand_in, proxy) = both("audit.share = 1.0\nupstream.max_in_flight = 4").await;
    for source in OTHERS {
        stand_in.seed(source, Shape { conversations: 1, messages: 1, bytes: 10 });
        proxy.list(source).await;
    }
    let gates = OTHERS.map(|source| stand_in.hold(Point::BeforeReading, Matcher::list_of(source)));
    for source in OTHERS {
        assert!(proxy.list(source).await.is_hit());
    }
    proxy.wait_for_metric(&audits("skipped"), 1.0).await;
    assert_eq!(proxy.state.upstream.in_flight.free(), 2);
    // However slow the upstream is, a reader does not wait for audits.
    assert_eq!(proxy.list(A).await.status, StatusCode::OK);
    for gate in &gates {
        gate.release_all();
    }
    proxy.wait_for_metric(&audits("same"), 2.0).await;
    assert_eq!(proxy.state.upstream.in_flight.free(), 4);
}

#[tokio::test]
async fn a_failed_audit_costs_no_reader_a_fetch() {
    let (stand_in, proxy) = both("audit.share = 1.0").await;
    proxy.list(A).await;
    stand_in.fault_times(Fault::Error, Matcher::list_of(A), 1);
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("failed"), 1.0).await;
    stand_in.agent_message(A, "hello");
    jump(Duration::from_secs(40)).await;
    // As if many fetches had failed: what has is not tried again for its own sake.
    while proxy.state.upstream.may_probe() {}
    assert!(proxy.list(A).await.body == stand_in.list_body(A), "an older list than the upstream has");
}

#[tokio::test]
async fn only_a_share_of_hits_is_audited_and_none_by_default() {
    for (more, expected) in [("", 0), ("audit.share = 0.0", 0), ("audit.share = 0.25", 2)] {
        let (stand_in, proxy) = both(more).await;
        proxy.list(A).await;
        for _ in 0..8 {
            assert!(proxy.list(A).await.is_hit());
            proxy.wait_for_metric("anteroom_flights", 0.0).await;
        }
        assert_eq!(stand_in.list_requests(A), 1 + expected, "{more:?}");
    }
}

#[tokio::test]
async fn a_404_is_not_audited_and_a_list_that_is_gone_differs() {
    let (stand_in, proxy) = both("audit.share = 1.0\ncache.negative_ttl = \"10s\"").await;
    assert_eq!(proxy.list("nobody").await.status, StatusCode::NOT_FOUND);
    assert!(proxy.list("nobody").await.is_hit());
    assert_eq!(stand_in.list_requests("nobody"), 1);
    proxy.list(A).await;
    stand_in.delete_contact(A);
    assert!(proxy.list(A).await.is_hit());
    proxy.wait_for_metric(&audits("differs"), 1.0).await;
    assert_eq!(proxy.list(A).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_reads_past_the_memory_is_no_hit_and_not_audited() {
    let (stand_in, proxy) = both("audit.share = 1.0").await;
    proxy.list(A).await;
    get_with(&proxy.list_url(A), &[("cookie", "a=b")]).await;
    assert_eq!(stand_in.list_requests(A), 2);
    let audited: f64 = {
        let mut sum = 0.0;
        for result in ["same", "differs", "failed", "skipped"] {
            sum += proxy.metric(&audits(result)).await;
        }
        sum
    };
    assert!(audited < 0.1);
}

//! While the upstream fails or refuses, while too many ask, and right after: who is asked how often, who waits how long,
//! and whose answer is whose.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::engine::clock;
use anteroom_stand_in::{Fault, Matcher, Point, Shape};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::support::script::{Script, Scripted, answer, json};
use crate::support::{Answer, Proxy, both, get_with, jump, reading, spawn};

/// Readers say whom they ask for, as a proxy in front would.
const TRUST: &str = "listen.trusted_proxies = [\"127.0.0.0/8\"]";

const LIST: &str = r#"[{"id":1,"contact":{"id":7}}]"#;

/// An upstream that counts what it is asked for, and answers with a status that a test sets.
struct Moody {
    script: Script,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    retry_after: Arc<Mutex<Option<HeaderValue>>>,
}

impl Moody {
    async fn start() -> Self {
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let retry_after = Arc::<Mutex<Option<HeaderValue>>>::default();
        let (says, counts, told) = (status.clone(), asked.clone(), retry_after.clone());
        let script = Script::start(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            match says.load(Ordering::SeqCst) {
                200 => json(LIST),
                status => {
                    let mut answer = answer(status, "text/plain", "not now");
                    answer.headers_mut().extend(told.lock().unwrap().clone().map(|told| (header::RETRY_AFTER, told)));
                    answer
                }
            }
        })
        .await;
        Self { script, status, asked, retry_after }
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn refuses(&self, status: u16, retry_after: &str) {
        *self.retry_after.lock().unwrap() = Some(HeaderValue::from_str(retry_after).unwrap());
        self.answers(status);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn stands_in(answer: &Answer) -> bool {
    answer.status == StatusCode::OK && answer.cache_status().contains("upstream-failing")
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("visitor-{number}")).collect()
}

/// A reader behind a proxy of one's own.
fn reading_for(proxy: &Proxy, source: &str, address: &'static str) -> JoinHandle<Answer> {
    let url = proxy.list_url(source);
    spawn(async move { get_with(&url, &[("x-forwarded-for", address)]).await })
}

#[tokio::test]
async fn after_an_outage_the_first_success_makes_every_list_as_new_as_the_lifetimes_say() {
    let upstream = Moody::start().await;
    let proxy =
        Proxy::in_front_of(&upstream.script.url, "cache.ttl = \"1s\"\ncache.stale_while_revalidate = \"1s\"").await;
    let lists = names(150);
    for list in &lists {
        assert_eq!(proxy.list(list).await.status, StatusCode::OK);
    }
    jump(Duration::from_millis(2_500)).await;
    upstream.answers(500);
    for _ in 0..2 {
        for list in &lists {
            assert!(stands_in(&proxy.list(list).await));
        }
        jump(Duration::from_millis(1_100)).await;
    }
    // The budget of attempts is used up by now.
    let asked = upstream.asked();
    let again = lists.iter().take(20);
    for list in again {
        assert!(stands_in(&proxy.list(list).await));
    }
    assert!(upstream.asked() < asked + 20, "a failing upstream is not asked for each reader");
    upstream.answers(200);
    assert_eq!(proxy.list("somebody-new").await.status, StatusCode::OK);
    for list in &lists {
        let answer = proxy.list(list).await;
        assert_eq!((answer.status, answer.header("age")), (StatusCode::OK, Some("0")), "{}", answer.cache_status());
    }
}

#[tokio::test]
async fn what_fails_alone_does_not_make_others_old_and_has_a_pause() {
    let (stand_in, proxy) = both("").await;
    for list in ["visitor-a", "visitor-b"] {
        proxy.list(list).await;
    }
    jump(Duration::from_secs(31)).await;
    stand_in.fault_times(Fault::ErrorAfter, Matcher::list_of("visitor-a"), 1_000);
    assert!(stands_in(&proxy.list("visitor-a").await));
    assert_eq!(proxy.list("visitor-b").await.header("age"), Some("0"));
    // The upstream has worked since: asked once more, and then it is this list's own trouble.
    for _ in 0..5 {
        assert!(stands_in(&proxy.list("visitor-a").await));
    }
    assert_eq!(stand_in.list_requests("visitor-a"), 3);
    jump(Duration::from_millis(1_100)).await;
    assert!(stands_in(&proxy.list("visitor-a").await));
    assert_eq!(stand_in.list_requests("visitor-a"), 4);
}

#[tokio::test]
async fn a_crowd_gets_no_older_list_than_one_reader_while_the_upstream_works() {
    let (stand_in, proxy) = both("cache.max_waiters = 1").await;
    proxy.list("visitor-a").await;
    jump(Duration::from_secs(31)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-b"));
    let waiting = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    let crowded = proxy.list("visitor-a").await;
    assert_eq!((crowded.status, crowded.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    gate.release_all();
    assert_eq!(waiting.await.unwrap().status, StatusCode::OK);
    assert_eq!(proxy.list("visitor-a").await.header("age"), Some("0"));
}

#[tokio::test]
async fn a_crowd_gets_the_last_good_list_while_the_upstream_fails() {
    let (stand_in, proxy) = both("cache.max_waiters = 1").await;
    proxy.list("visitor-a").await;
    jump(Duration::from_secs(31)).await;
    stand_in.fault(Fault::Error);
    assert_eq!(proxy.list("visitor-b").await.status, StatusCode::INTERNAL_SERVER_ERROR);
    jump(Duration::from_millis(1_100)).await;
    stand_in.clear_faults();
    stand_in.fault(Fault::Hang);
    let waiting = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    assert!(stands_in(&proxy.list("visitor-a").await));
    waiting.abort();
}

#[tokio::test]
async fn an_upstream_that_says_when_to_ask_again_is_left_alone_until_then() {
    let date = httpdate::fmt_http_date(clock::wall() + Duration::from_secs(30));
    for (status, retry_after) in [(503, "30"), (429, "30"), (503, &*date)] {
        let upstream = Moody::start().await;
        let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
        proxy.list("kept").await;
        jump(Duration::from_secs(31)).await;
        upstream.refuses(status, retry_after);
        assert!(stands_in(&proxy.list("kept").await));
        let first = proxy.list("new").await;
        assert_eq!((first.status.as_u16(), first.header("retry-after")), (status, Some(retry_after)));
        assert_eq!(upstream.asked(), 3);
        for _ in 0..4 {
            jump(Duration::from_secs(6)).await;
            assert!(stands_in(&proxy.list("kept").await));
            let again = proxy.list("new").await;
            assert_eq!((again.status.as_u16(), again.text()), (status, "not now".to_owned()));
            let left: u32 = again.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=25).contains(&left), "{left}");
            assert!(again.cache_status().contains("retry-after"), "{}", again.cache_status());
        }
        assert_eq!(upstream.asked(), 3, "{status} {retry_after}");
        upstream.answers(200);
        jump(Duration::from_secs(8)).await;
        for list in ["kept", "new"] {
            assert_eq!(proxy.list(list).await.header("age"), Some("0"), "{status} {retry_after}");
        }
        assert_eq!(upstream.asked(), 5);
    }
}

#[tokio::test]
async fn no_upstream_is_left_alone_for_longer_than_is_sensible() {
    let upstream = Moody::start().await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    upstream.refuses(503, "86400");
    proxy.list("new").await;
    upstream.answers(200);
    jump(Duration::from_secs(5 * 60 - 2)).await;
    assert_eq!(proxy.list("new").await.status, StatusCode::SERVICE_UNAVAILABLE);
    jump(Duration::from_secs(3)).await;
    assert_eq!(proxy.list("new").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_upstream_that_works_again_is_asked_before_the_time_it_said_but_once() {
    let upstream = Moody::start().await;
    let proxy = Proxy::in_front_of(&upstream.script.url, "").await;
    upstream.refuses(503, "60");
    for list in ["a", "b"] {
        assert_eq!(proxy.list(list).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    upstream.answers(200);
    assert_eq!(proxy.list("c").await.status, StatusCode::OK);
    assert_eq!(proxy.list("a").await.status, StatusCode::OK);
    // This one is refused again: then it is meant.
    upstream.answers(503);
    assert_eq!(proxy.list("b").await.status, StatusCode::SERVICE_UNAVAILABLE);
    upstream.answers(200);
    assert_eq!(proxy.list("d").await.status, StatusCode::OK);
    let asked = upstream.asked();
    assert_eq!(proxy.list("b").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(upstream.asked(), asked);
    jump(Duration::from_secs(61)).await;
    assert_eq!(proxy.list("b").await.status, StatusCode::OK);
}

/// An upstream behind a gate that refuses some addresses, and says to each whom it refused.
async fn refusing(status: u16, refused: &'static str) -> (Script, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = asked.clone();
    let script = Script::gated(gate.clone(), move |request| -> Scripted {
        counts.fetch_add(1, Ordering::SeqCst);
        let whom = request.headers().get("x-forwarded-for").unwrap().to_str().unwrap();
        if whom.starts_with(refused) { answer(status, "text/plain", whom) } else { json(LIST) }
    })
    .await;
    (script, gate, asked)
}

#[tokio::test]
async fn a_refusal_is_for_the_one_who_asked_and_the_others_ask_on() {
    for status in [400, 401, 403, 429] {
        let (upstream, gate, asked) = refusing(status, "6.6.6.6").await;
        let proxy = Proxy::in_front_of(&upstream.url, TRUST).await;
        let leader = reading_for(&proxy, "someone", "6.6.6.6");
        proxy.wait_for_metric("anteroom_waiters", 1.0).await;
        let others: Vec<_> = ["198.51.100.1", "198.51.100.2", "198.51.100.3"]
            .map(|address| reading_for(&proxy, "someone", address))
            .into();
        let same = reading_for(&proxy, "someone", "6.6.6.6");
        proxy.wait_for_metric("anteroom_waiters", 5.0).await;
        gate.add_permits(100);
        for refused in [leader, same] {
            let refused = refused.await.unwrap();
            assert_eq!((refused.status.as_u16(), refused.text()), (status, "6.6.6.6, 127.0.0.1".to_owned()));
        }
        for other in others {
            let other = other.await.unwrap();
            assert_eq!((other.status.as_u16(), other.text()), (200, LIST.to_owned()), "{status}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one at a time");
        let ends = proxy.metric("anteroom_flight_ends_total{end=\"refused\"}").await;
        assert!((ends - 1.0).abs() < 0.1);
        assert!(proxy.list("someone").await.is_hit(), "a refusal takes nothing away");
    }
}

#[tokio::test]
async fn where_all_are_refused_each_gets_his_own_refusal_and_nobody_waits_for_all_others() {
    const ADDRESSES: [&str; 8] = [
        "198.51.100.1",
        "198.51.100.2",
        "198.51.100.3",
        "198.51.100.4",
        "198.51.100.5",
        "198.51.100.6",
        "198.51.100.7",
        "198.51.100.8",
    ];
    let (upstream, gate, asked) = refusing(403, "198.51.100.").await;
    let proxy = Proxy::in_front_of(&upstream.url, TRUST).await;
    let readers: Vec<_> = ADDRESSES.iter().map(|address| reading_for(&proxy, "someone", address)).collect();
    proxy.wait_for_metric("anteroom_waiters", 8.0).await;
    for flights in 1..=3 {
        gate.add_permits(1);
        while asked.load(Ordering::SeqCst) == flights {
            tokio::task::yield_now().await;
        }
    }
    gate.add_permits(100);
    for (reader, address) in readers.into_iter().zip(ADDRESSES) {
        let refused = reader.await.unwrap();
        assert_eq!((refused.status.as_u16(), refused.text()), (403, format!("{address}, 127.0.0.1")));
    }
    assert_eq!(asked.load(Ordering::SeqCst), ADDRESSES.len());
}

#[tokio::test]
async fn a_throttled_reader_makes_no_other_wait() {
    let (upstream, gate, asked) = refusing(429, "6.6.6.6").await;
    gate.add_permits(100);
    let proxy = Proxy::in_front_of(&upstream.url, TRUST).await;
    proxy.list("someone").await;
    jump(Duration::from_secs(31)).await;
    for _ in 0..3 {
        assert!(stands_in(&reading_for(&proxy, "someone", "6.6.6.6").await.unwrap()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.list("someone").await.header("age"), Some("0"));
}

#[tokio::test]
async fn lists_that_nobody_waits_for_any_more_are_not_fetched() {
    let (stand_in, proxy) = both(&format!("{TRUST}\nupstream.max_in_flight = 1")).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let first = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    let left: Vec<_> = names(100).iter().map(|list| reading(&proxy, list)).collect();
    proxy.wait_for_metric("anteroom_waiters", 101.0).await;
    for reader in left {
        reader.abort();
    }
    proxy.wait_for_metric("anteroom_flights", 1.0).await;
    let next = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    gate.release_all();
    assert!(first.await.unwrap().body == stand_in.list_body("visitor-a"));
    assert!(next.await.unwrap().body == stand_in.list_body("visitor-b"));
    assert_eq!(stand_in.requests().iter().filter(|seen| seen.is_list).count(), 2);
    let ends = proxy.metric("anteroom_flight_ends_total{end=\"not_sent\"}").await;
    assert!((ends - 100.0).abs() < 0.1, "{ends}");
}

#[tokio::test]
async fn a_fetch_that_has_been_sent_goes_on_without_readers_and_one_that_is_waited_for_keeps_its_turn() {
    let (stand_in, proxy) = both(&format!("{TRUST}\nupstream.max_in_flight = 1")).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let sent = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    sent.abort();
    let leader = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_flights", 2.0).await;
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    let follower = reading(&proxy, "visitor-b");
    proxy.wait_for_metric("anteroom_waiters", 2.0).await;
    leader.abort();
    proxy.wait_for_metric("anteroom_waiters", 1.0).await;
    gate.release_all();
    assert!(follower.await.unwrap().body == stand_in.list_body("visitor-b"));
    assert!(proxy.list("visitor-a").await.is_hit());
    assert_eq!(stand_in.requests().iter().filter(|seen| seen.is_list).count(), 2);
}

#[tokio::test]
async fn a_stale_list_is_refreshed_though_nobody_waits_and_no_place_is_free() {
    let (stand_in, proxy) = both(&format!("{TRUST}\nupstream.max_in_flight = 1")).await;
    proxy.list("visitor-b").await;
    jump(Duration::from_secs(16)).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let first = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    assert!(proxy.list("visitor-b").await.is_hit());
    gate.release_all();
    first.await.unwrap();
    proxy.wait_for_metric("anteroom_flights", 0.0).await;
    assert_eq!(stand_in.list_requests("visitor-b"), 2);
}

#[tokio::test]
async fn a_client_who_asks_for_much_waits_for_himself() {
    let (gate, log) = (Arc::new(Semaphore::new(0)), Arc::<Mutex<Vec<String>>>::default());
    let told = log.clone();
    let upstream = Script::gated(gate.clone(), move |request| {
        told.lock().unwrap().push(request.uri().path().to_owned());
        json(LIST)
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, &format!("{TRUST}\nupstream.max_in_flight = 1")).await;
    let greedy: Vec<_> = names(30).iter().map(|list| reading_for(&proxy, list, "198.51.100.1")).collect();
    proxy.wait_for_metric("anteroom_waiters", 30.0).await;
    let modest = reading_for(&proxy, "modest", "198.51.100.2");
    proxy.wait_for_metric("anteroom_waiters", 31.0).await;
    // The one that is under way, perhaps one whose turn it was already, and then the other client.
    gate.add_permits(3);
    assert_eq!(modest.await.unwrap().status, StatusCode::OK);
    let before = log.lock().unwrap().iter().position(|path| path.contains("modest")).unwrap();
    assert!(before <= 2, "{before}");
    gate.add_permits(100);
    for reader in greedy {
        assert_eq!(reader.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn one_client_whose_lists_hang_keeps_nobody_from_the_upstream() {
    let (stand_in, proxy) = both(&format!("{TRUST}\nupstream.max_in_flight = 4")).await;
    let gate = stand_in.hold(Point::BeforeReading, Matcher::list_of("visitor-b"));
    let hung: Vec<_> = (0..8)
        .map(|number| {
            let url = format!("{}?number={number}", proxy.list_url("visitor-b"));
            tokio::spawn(async move { get_with(&url, &[("x-forwarded-for", "198.51.100.1")]).await })
        })
        .collect();
    gate.arrived(3).await;
    proxy.wait_for_metric("anteroom_waiters", 8.0).await;
    for source in ["visitor-a", "visitor-c"] {
        let answer = get_with(&proxy.list_url(source), &[("x-forwarded-for", "198.51.100.2")]).await;
        assert_eq!(answer.status, StatusCode::OK, "{source}");
    }
    assert_eq!(gate.arrivals(), 3, "a place is kept for others");
    gate.release_all();
    for answer in hung {
        assert_eq!(answer.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn no_reader_waits_longer_than_he_may_for_a_place_either() {
    let (stand_in, proxy) = both("upstream.max_in_flight = 1\ncache.wait = \"3s\"").await;
    proxy.list("visitor-c").await;
    jump(Duration::from_secs(31)).await;
    stand_in.fault(Fault::Hang);
    let hung = reading(&proxy, "visitor-a");
    stand_in
        .wait_for("the list", |seen| seen.iter().any(|seen| seen.is_list && seen.target.contains("visitor-a")))
        .await;
    let (queued, old) = (reading(&proxy, "visitor-b"), reading(&proxy, "visitor-c"));
    proxy.wait_for_metric("anteroom_waiters", 3.0).await;
    jump(Duration::from_millis(3_100)).await;
    for late in [queued, old] {
        let late = late.await.unwrap();
        assert_eq!((late.status, late.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
        assert!(late.cache_status().contains("too-many-in-flight"), "{}", late.cache_status());
    }
    assert_eq!(hung.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(stand_in.list_requests("visitor-b"), 0);
}

#[tokio::test]
async fn a_hung_body_is_waited_for_within_the_same_limit() {
    let (stand_in, proxy) = both("cache.wait = \"3s\"").await;
    stand_in.fault(Fault::HangBody);
    let reader = reading(&proxy, "visitor-a");
    for (asked, passes) in [(1, 2_100), (2, 1_000)] {
        proxy.wait_for_metric("anteroom_flights", f64::from(asked)).await;
        let asked = usize::try_from(asked).unwrap();
        stand_in.wait_for("the list", |seen| seen.iter().filter(|seen| seen.is_list).count() == asked).await;
        jump(Duration::from_millis(passes)).await;
    }
    assert_eq!(reader.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn what_is_asked_for_alone_begins_within_the_same_limit() {
    let (stand_in, proxy) = both("cache.wait = \"3s\"\ncache.max_body = \"64KiB\"").await;
    stand_in.seed("visitor-a", Shape { conversations: 1, messages: 100, bytes: 1000 });
    assert_eq!(proxy.list("visitor-a").await.status, StatusCode::OK);
    stand_in.fault(Fault::Hang);
    let reader = reading(&proxy, "visitor-a");
    stand_in.wait_for("the list", |seen| seen.iter().filter(|seen| seen.is_list).count() == 2).await;
    jump(Duration::from_millis(3_100)).await;
    assert_eq!(reader.await.unwrap().status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn the_first_flight_serves_a_reader_who_has_begun_a_second_one() {
    let (stand_in, proxy) = both("cache.wait = \"3s\"").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of("visitor-a"));
    let reader = reading(&proxy, "visitor-a");
    gate.arrived(1).await;
    jump(Duration::from_millis(2_100)).await;
    gate.arrived(2).await;
    gate.release_one();
    assert!(reader.await.unwrap().body == stand_in.list_body("visitor-a"));
    gate.release_all();
}

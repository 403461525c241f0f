//! What each failure costs: reads are exact, writes wait no longer than they may, and all is as before when it is over.

use std::time::Duration;

use anteroom_stand_in::{Matcher, Options, Point, StandIn};
use http::StatusCode;

use super::{A, fleet, is_served_from_memory, join, write};
use crate::support::child::Program;
use crate::support::redis::{Redis, signal};
use crate::support::{Proxy, get, post, reading};

pub(super) const LONG: &str = "cache.ttl = \"5m\"\ncache.settle = \"0s\"";
const ALONE: &str = "anteroom_replicas_state{state=\"alone\"}";
pub(super) const LEASED: &str = "anteroom_replicas_state{state=\"leased\"}";

/// Whoever reads, wherever, gets what the upstream has, and nothing from memory.
pub(super) async fn all_are_alone(stand_in: &StandIn, proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.wait_for_metric(ALONE, 1.0).await;
        for _ in 0..2 {
            let read = proxy.list(A).await;
            assert!(!read.is_hit() && read.body == stand_in.list_body(A));
        }
    }
}

/// Memory is served again, and writes are told.
pub(super) async fn all_is_well(stand_in: &StandIn, proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.wait_for_metric(LEASED, 1.0).await;
    }
    write(&proxies[0], stand_in, A).await;
    for proxy in proxies {
        assert!(proxy.list(A).await.body == stand_in.list_body(A));
        is_served_from_memory(proxy).await;
    }
}

/// Both replicas have the list; then `happens`, and both are alone with it, until it is over.
async fn while_redis_is(redis: Redis, begins: &str, ends: &str) {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxies = join(&stand_in, &redis, 2, LONG).await;
    for proxy in &proxies {
        proxy.list(A).await;
    }
    redis.ask(begins).await;
    all_are_alone(&stand_in, &proxies).await;
    // It passes, is acknowledged when it could not be told in time, and seen by all who are alone.
    let took = write(&proxies[0], &stand_in, A).await;
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");
    proxies[0].wait_for_metric("anteroom_writes_untold_total", 1.0).await;
    all_are_alone(&stand_in, &proxies).await;
    redis.ask(ends).await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_gives_no_leases() {
    while_redis_is(Redis::start(&[]).await, "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE").await;
}

#[tokio::test]
async fn a_redis_that_lacks_its_replicas_gives_no_leases() {
    while_redis_is(Redis::start(&[]).await, "CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0")
        .await;
}

#[tokio::test]
async fn a_redis_that_is_full_gives_no_leases() {
    while_redis_is(Redis::start(&[]).await, "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0").await;
}

#[tokio::test]
async fn a_redis_that_stands_still_gives_no_leases() {
    let (stand_in, redis, proxies) = fleet(2, LONG).await;
    for proxy in &proxies {
        proxy.list(A).await;
    }
    redis.signal("STOP").await;
    all_are_alone(&stand_in, &proxies).await;
    write(&proxies[0], &stand_in, A).await;
    all_are_alone(&stand_in, &proxies).await;
    let ready = get(&format!("{}/ready", proxies[0].admin)).await;
    assert!(ready.status == StatusCode::OK && ready.text().contains("every list is fetched"), "{}", ready.text());
    redis.signal("CONT").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn without_a_lease_nobody_gets_a_fetch_from_before_he_came() {
    let (stand_in, redis, proxies) = fleet(2, LONG).await;
    redis.signal("STOP").await;
    for proxy in &proxies {
        proxy.wait_for_metric(ALONE, 1.0).await;
    }
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let early = reading(&proxies[1], A);
    gate.arrived(1).await;
    // It has been made, and is on its way; then this is acknowledged, through the other one.
    write(&proxies[0], &stand_in, A).await;
    let waiting: Vec<_> = (0..3).map(|_| reading(&proxies[1], A)).collect();
    proxies[1].wait_for_metric("anteroom_waiters", 4.0).await;
    let fetched = stand_in.list_requests(A);
    drop(gate);
    early.await.unwrap();
    for read in waiting {
        assert!(read.await.unwrap().body == stand_in.list_body(A), "older than what was acknowledged before he came");
    }
    assert_eq!(stand_in.list_requests(A), fetched + 1, "all who waited share one");
    redis.signal("CONT").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_puts_everything_out_of_date_once() {
    let (stand_in, mut redis, proxies) = fleet(2, LONG).await;
    for proxy in &proxies {
        proxy.list(A).await;
    }
    redis.restart().await;
    let epoch = "anteroom_epochs_total{cause=\"missing\"}";
    let waiting = async {
        while proxies[0].metric(epoch).await + proxies[1].metric(epoch).await < 2.0 {
            tokio::task::yield_now().await;
        }
    };
    // One at the very first, one now.
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("they begin anew");
    all_is_well(&stand_in, &proxies).await;
    assert_eq!(redis.ask("FLUSHALL").await, "+OK");
    all_is_well(&stand_in, &proxies).await;
    assert_eq!(redis.ask("DEL {anteroom}:1:log").await, ":1");
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn writes_are_refused_while_nobody_can_be_told_if_that_is_wanted() {
    let (stand_in, redis, proxies) = fleet(2, &format!("{LONG}\nreplicas.cut_off = \"refuse\"")).await;
    redis.signal("STOP").await;
    all_are_alone(&stand_in, &proxies).await;
    let display = stand_in.conversation_ids(A)[0];
    let url = format!("{}/conversations/{display}/messages", proxies[0].contact_url(A));
    let refused = async {
        loop {
            let answer = post(&url, "{\"content\":\"x\"}").await;
            if answer.status == StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
            assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "never acknowledged");
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("refused");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(get(&format!("{}/ready", proxies[0].admin)).await.status, StatusCode::SERVICE_UNAVAILABLE);
    redis.signal("CONT").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn a_replica_that_stands_still_delays_one_write_and_is_right_when_it_goes_on() {
    let (stand_in, redis, proxies) = fleet(1, LONG).await;
    let mut stopped = Program::serve(&stand_in.url(), &redis.settings(LONG)).await;
    proxies[0].wait_for_metric("anteroom_replicas_members", 2.0).await;
    let list = format!("{}{}", stopped.url, StandIn::list_path(A));
    get(&list).await;
    while !get(&list).await.is_hit() {}
    signal(stopped.id(), "STOP").await;
    let first = write(&proxies[0], &stand_in, A).await;
    assert!(first < Duration::from_secs(2), "{first:?}");
    proxies[0].wait_for_metric("anteroom_replicas_members", 1.0).await;
    write(&proxies[0], &stand_in, A).await;
    proxies[0].wait_for_metric("anteroom_replicas_left_out_total", 1.0).await;
    let settled = proxies[0].metric("anteroom_write_wait_seconds_count{by=\"settled\"}").await;
    assert!(settled >= 1.0, "who was left out delays nobody");
    signal(stopped.id(), "CONT").await;
    let read = get(&list).await;
    assert!(read.body == stand_in.list_body(A), "it has slept through two writes");
    stopped.signal("TERM").await;
    assert!(stopped.ended().await.success());
    proxies[0].wait_for_metric("anteroom_replicas_members", 1.0).await;
}

#[tokio::test]
async fn one_that_leaves_in_order_delays_no_write() {
    let (stand_in, _redis, mut proxies) = fleet(2, LONG).await;
    proxies.remove(1).stop().await;
    let timer = "anteroom_write_wait_seconds_count{by=\"timer\"}";
    let before = proxies[0].metric(timer).await;
    write(&proxies[0], &stand_in, A).await;
    assert!((proxies[0].metric(timer).await - before).abs() < 0.1, "nobody waited for its lease");
    proxies[0].wait_for_metric("anteroom_replicas_members", 1.0).await;
}

/// It is told to stop while a write waits for its answer: the others hear of that write before its client does.
#[tokio::test]
async fn one_that_leaves_in_the_middle_of_a_write_tells_of_it() {
    let (stand_in, _redis, mut proxies) = fleet(2, LONG).await;
    let leaving = proxies.remove(1);
    let kept = proxies[0].list(A).await.body;
    let gate = stand_in.hold(Point::Acknowledging, Matcher::writes());
    let display = stand_in.conversation_ids(A)[0];
    let url = format!("{}/conversations/{display}/messages", leaving.contact_url(A));
    let writing = tokio::spawn(async move { post(&url, "{\"content\":\"x\"}").await });
    gate.arrived(1).await;
    let stopping = tokio::spawn(leaving.stop());
    // It has left: there is one member.
    proxies[0].wait_for_metric("anteroom_replicas_members", 1.0).await;
    assert!(proxies[0].list(A).await.body == kept, "nobody has told of it yet");
    drop(gate);
    assert_eq!(writing.await.unwrap().status, StatusCode::OK);
    assert!(proxies[0].list(A).await.body == stand_in.list_body(A), "it was acknowledged");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_write_under_way_when_redis_goes_is_not_acknowledged_if_that_is_wanted() {
    let (stand_in, redis, proxies) = fleet(2, &format!("{LONG}\nreplicas.cut_off = \"refuse\"")).await;
    let gate = stand_in.hold(Point::Acknowledging, Matcher::writes());
    let display = stand_in.conversation_ids(A)[0];
    let url = format!("{}/conversations/{display}/messages", proxies[0].contact_url(A));
    let writing = tokio::spawn(async move { post(&url, "{\"content\":\"x\"}").await });
    gate.arrived(1).await;
    redis.signal("STOP").await;
    for proxy in &proxies {
        proxy.wait_for_metric(ALONE, 1.0).await;
    }
    drop(gate);
    let answer = writing.await.unwrap();
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
    assert!(answer.text().contains("was passed on"), "{}", answer.text());
    redis.signal("CONT").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn async_waits_for_the_log_alone_and_serves_what_is_young_without_a_lease() {
    let more = format!("{LONG}\nreplicas.mode = \"async\"\nreplicas.alone_ttl = \"10m\"");
    let (stand_in, redis, proxies) = fleet(2, &more).await;
    // One that stands still delays nothing: nobody waits for its lease.
    let stopped = Program::serve(&stand_in.url(), &redis.settings(&more)).await;
    proxies[0].wait_for_metric("anteroom_replicas_members", 3.0).await;
    signal(stopped.id(), "STOP").await;
    for _ in 0..5 {
        let told = proxies[1].metric("anteroom_invalidations_total{source=\"replica\"}").await;
        write(&proxies[0], &stand_in, A).await;
        let hears = async {
            while proxies[1].metric("anteroom_invalidations_total{source=\"replica\"}").await <= told {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), hears).await.expect("it is told all the same");
        assert!(proxies[1].list(A).await.body == stand_in.list_body(A));
    }
    assert!(
        proxies[0].metric("anteroom_write_wait_seconds_count{by=\"timer\"}").await < 0.5,
        "nobody waited for a lease"
    );
    is_served_from_memory(&proxies[1]).await;
    redis.signal("STOP").await;
    for proxy in &proxies {
        proxy.wait_for_metric(ALONE, 1.0).await;
    }
    assert!(proxies[1].list(A).await.is_hit(), "it is young");
    // Acknowledged though nobody could be told, and never older here.
    write(&proxies[0], &stand_in, A).await;
    proxies[0].wait_for_metric("anteroom_writes_untold_total", 1.0).await;
    assert!(proxies[0].list(A).await.body == stand_in.list_body(A));
    assert!(proxies[1].list(A).await.is_hit(), "it cannot know");
    redis.signal("CONT").await;
    all_is_well_in_time(&stand_in, &proxies).await;
}

/// The same where what is acknowledged is told soon after.
async fn all_is_well_in_time(stand_in: &StandIn, proxies: &[Proxy]) {
    for proxy in proxies {
        proxy.wait_for_metric(LEASED, 1.0).await;
        let newest = async { while proxy.list(A).await.body != stand_in.list_body(A) {} };
        tokio::time::timeout(Duration::from_secs(20), newest).await.expect("it hears of it");
    }
}

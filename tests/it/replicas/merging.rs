//! Contacts that are merged through one replica while another one takes writes, or merges them too. What every replica tells
//! is in the log, in one order.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anteroom_stand_in::{Gate, Matcher, Point, Seen, StandIn};
use http::{Method, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{A, fleet};
use crate::support::redis::Redis;
use crate::support::{Answer, Proxy, is_up_to_date, post, request, resolve, send, spawn};

const B: &str = "visitor-b";
const SHARED: &str = r#"{"email":"shared@example.test"}"#;
const THIRD: &str = r#"{"email":"third@example.test"}"#;
const LONG: &str = "cache.ttl = \"5m\"\ncache.settle = \"0s\"\ncache.settle_unknown = \"0s\"\nlog.level = \"error\"\n\
                    replicas.lease = \"3s\"\nreplicas.timeout = \"1400ms\"\nreplicas.tell_within = \"4s\"";

fn patching(proxy: &Proxy, source: &str, body: &'static str) -> JoinHandle<Answer> {
    let url = proxy.contact_url(source);
    spawn(async move { send(request("PATCH", &url, &[("content-type", "application/json")], body)).await })
}

/// Holds the patch that is this one in order.
fn hold(stand_in: &StandIn, point: Point, which: usize) -> Gate {
    let sent = AtomicUsize::new(0);
    let is_it = move |seen: &Seen| seen.method == Method::PATCH && sent.fetch_add(1, Ordering::SeqCst) == which;
    stand_in.hold(point, Matcher::when(is_it))
}

/// `visitor-a` and `a2` are one contact's, and `a2` sees all that is its; `visitor-b` is another's, who has an e-mail address.
async fn two_contacts() -> (StandIn, Redis, Vec<Proxy>) {
    let (stand_in, redis, proxies) = fleet(3, LONG).await;
    stand_in.attach(A, "a2");
    assert_eq!(post(&format!("{}/conversations", proxies[0].contact_url("a2")), "{}").await.status, StatusCode::OK);
    assert_eq!(patching(&proxies[0], B, SHARED).await.unwrap().status, StatusCode::OK);
    stand_in.verify("a2");
    (stand_in, redis, proxies)
}

#[tokio::test]
async fn a_write_through_one_replica_reaches_who_is_just_being_merged_through_another() {
    let (stand_in, _redis, proxies) = two_contacts().await;
    proxies[2].list("a2").await;
    let gate = hold(&stand_in, Point::Acknowledging, 0);
    let merging = patching(&proxies[0], A, SHARED);
    gate.arrived(1).await;
    assert_eq!(stand_in.contact_id("a2"), stand_in.contact_id(B));
    // Its answer names the other contact, whose it is by now.
    assert_eq!(post(&format!("{}/conversations", proxies[1].contact_url(B)), "{}").await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxies[2], "a2").await;
    gate.release_all();
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxies[2], "a2").await;
}

#[tokio::test]
async fn a_write_to_a_conversation_waits_for_another_replicas_merge_that_may_just_have_moved_it() {
    let (stand_in, _redis, proxies) = two_contacts().await;
    proxies[2].list(B).await;
    let gate = hold(&stand_in, Point::Acknowledging, 0);
    let merging = patching(&proxies[0], A, SHARED);
    gate.arrived(1).await;
    let mut resolving = pin!(resolve(&stand_in, &proxies[1], A));
    let early = timeout(Duration::from_millis(100), &mut resolving).await;
    assert!(early.is_err(), "acknowledged, though nobody knows in whose list it is");
    gate.release_all();
    assert_eq!(resolving.await.status, StatusCode::OK);
    is_up_to_date(&stand_in, &proxies[2], B).await;
    assert_eq!(merging.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn of_two_merges_through_two_replicas_the_second_knows_the_contact_between_them() {
    let (stand_in, _redis, proxies) = two_contacts().await;
    assert_eq!(patching(&proxies[0], "visitor-c", THIRD).await.unwrap().status, StatusCode::OK);
    proxies[1].list(A).await;
    let (answering, sending) = (hold(&stand_in, Point::Acknowledging, 0), hold(&stand_in, Point::BeforeReading, 1));
    let first = patching(&proxies[0], A, SHARED);
    answering.arrived(1).await;
    let second = patching(&proxies[1], A, THIRD);
    answering.release_all();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    sending.arrived(1).await;
    is_up_to_date(&stand_in, &proxies[2], B).await;
    sending.release_all();
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    assert_eq!(stand_in.contact_id(B), stand_in.contact_id("visitor-c"));
    is_up_to_date(&stand_in, &proxies[2], B).await;
}

#[tokio::test]
async fn a_merge_waits_for_one_of_the_same_contact_through_another_replica() {
    let (stand_in, _redis, proxies) = two_contacts().await;
    let patches = |all: &[Seen]| all.iter().filter(|seen| seen.method == Method::PATCH).count();
    let of_a = |all: &[Seen]| all.iter().filter(|seen| seen.source_id.as_deref() == Some(A)).count();
    let (before, gate) = (patches(&stand_in.requests()), hold(&stand_in, Point::BeforeReading, 0));
    let first = patching(&proxies[0], A, SHARED);
    gate.arrived(1).await;
    // The second one has asked whose the source is, and then tells that it begins, if it does not wait.
    let asked = of_a(&stand_in.requests());
    let second = patching(&proxies[1], A, THIRD);
    stand_in.wait_for("the second merge asks whose it is", |all| of_a(all) > asked).await;
    // By the time others know of what was told after that, it would have been sent.
    for _ in 0..3 {
        assert_eq!(post(&format!("{}/conversations", proxies[1].contact_url(B)), "{}").await.status, StatusCode::OK);
    }
    assert_eq!(patches(&stand_in.requests()), before + 1);
    gate.release_all();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(second.await.unwrap().status, StatusCode::OK);
    assert_eq!(patches(&stand_in.requests()), before + 2);
    is_up_to_date(&stand_in, &proxies[2], B).await;
}

#[tokio::test]
async fn a_merge_that_nobody_can_be_told_of_is_not_begun_if_that_is_wanted() {
    let (stand_in, redis, proxies) = fleet(2, &format!("{LONG}\nreplicas.cut_off = \"refuse\"")).await;
    // So lately that nobody knows of it yet.
    redis.signal("STOP").await;
    let answer = patching(&proxies[0], A, SHARED).await.unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert!(answer.text().contains("nothing was done"), "{}", answer.text());
    assert!(stand_in.requests().iter().all(|seen| seen.method != Method::PATCH));
    redis.signal("CONT").await;
    while patching(&proxies[0], A, SHARED).await.unwrap().status != StatusCode::OK {}
}

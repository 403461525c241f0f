//! Several proxies that share through a real Redis: what was acknowledged by one is older than nothing that another serves,
//! whatever happens to Redis or to one of them.

mod balanced;
mod failover;
mod failures;
mod merging;
mod overlap;
mod tier;

use std::time::Duration;

use anteroom::engine::clock;
use anteroom_stand_in::{Options, StandIn};
use http::StatusCode;

use crate::cable::{hear, subscribed};
use crate::support::redis::Redis;
use crate::support::tls::Certificate;
use crate::support::{Proxy, post, request, send};

const A: &str = "visitor-a";
const SECRETS: &str = "webhook.secrets = [\"hush\"]\nadmin.token = \"let me in\"";

/// A stand-in with so many replicas in front of it, all of which have met.
async fn fleet(count: usize, more: &str) -> (StandIn, Redis, Vec<Proxy>) {
    let (stand_in, redis) = (StandIn::start(Options::default()).await.unwrap(), Redis::start(&[]).await);
    let proxies = join(&stand_in, &redis, count, more).await;
    (stand_in, redis, proxies)
}

async fn join(stand_in: &StandIn, redis: &Redis, count: usize, more: &str) -> Vec<Proxy> {
    let mut proxies = Vec::new();
    for _ in 0..count {
        proxies.push(Proxy::start(stand_in, &redis.settings(more)).await);
    }
    for proxy in &proxies {
        proxy.wait_for_metric("anteroom_replicas_state{state=\"leased\"}", 1.0).await;
        #[allow(clippy::cast_precision_loss)]
        proxy.wait_for_metric("anteroom_replicas_members", count as f64).await;
    }
    proxies
}

/// A message through one of them.
async fn write(proxy: &Proxy, stand_in: &StandIn, source: &str) -> Duration {
    let display = stand_in.conversation_ids(source)[0];
    let url = format!("{}/conversations/{display}/messages", proxy.contact_url(source));
    let began = clock::now();
    let answer = post(&url, "{\"content\":\"hello\"}").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    clock::since(began)
}

/// What nobody has changed is a hit, once there is a lease: after a fail-over, or on a machine that is busy elsewhere, that
/// may take a moment.
async fn is_served_from_memory(proxy: &Proxy) {
    let served = async {
        while !proxy.list(A).await.is_hit() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.expect("the list is served from memory");
}

#[tokio::test]
async fn what_one_has_acknowledged_another_never_serves_older() {
    let (stand_in, _redis, proxies) = fleet(3, "cache.ttl = \"5m\"\ncache.settle = \"0s\"").await;
    for round in 0..30 {
        for proxy in &proxies {
            is_served_from_memory(proxy).await;
        }
        write(&proxies[round % 3], &stand_in, A).await;
        let read = proxies[(round + 1) % 3].list(A).await;
        assert!(!read.is_hit() && read.body == stand_in.list_body(A), "round {round}");
    }
    let settled = "anteroom_write_wait_seconds_count{by=\"settled\"}";
    for proxy in &proxies {
        assert!(proxy.metric(settled).await > 0.0, "the others said so, and nobody waited for a lease to run out");
    }
}

#[tokio::test]
async fn one_without_replicas_asks_nobody() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    assert!(proxy.state.invalidation.fleet.is_none());
    assert_eq!(crate::support::get(&format!("{}/ready", proxy.admin)).await.text(), "ready\n");
}

#[tokio::test]
async fn a_purge_reaches_every_replica_before_it_is_answered() {
    let (_stand_in, _redis, proxies) = fleet(2, &format!("{SECRETS}\ncache.ttl = \"5m\"")).await;
    for proxy in &proxies {
        proxy.list(A).await;
    }
    let url = format!("{}/purge", proxies[0].admin);
    let answer =
        send(request("POST", &url, &[("authorization", "Bearer let me in")], &format!("{{\"contact\":\"{A}\"}}")))
            .await;
    assert!(answer.status == StatusCode::OK && !answer.text().contains("told"), "{}", answer.text());
    assert!(!proxies[1].list(A).await.is_hit());
    // It is gone from there, not only out of date.
    let (_stand_in, _redis, proxies) = fleet(2, SECRETS).await;
    proxies[1].list(A).await;
    proxies[1].wait_for_metric("anteroom_cache_entries", 1.0).await;
    let url = format!("{}/purge", proxies[0].admin);
    send(request("POST", &url, &[("authorization", "Bearer let me in")], "{\"all\":true}")).await;
    proxies[1].wait_for_metric("anteroom_cache_entries", 0.0).await;
}

#[tokio::test]
async fn a_webhook_reaches_every_replica_before_its_204() {
    let (stand_in, _redis, proxies) = fleet(2, "webhook.unsigned_token = \"old\"\ncache.ttl = \"5m\"").await;
    proxies[1].list(A).await;
    is_served_from_memory(&proxies[1]).await;
    stand_in.agent_message(A, "behind the back");
    let body = serde_json::json!({
        "account": { "id": 7 },
        "conversation": { "id": 1, "contact_inbox": { "source_id": A, "contact_id": stand_in.contact_id(A) } },
        "event": "message_created",
    });
    let answer = post(&format!("{}/_anteroom/webhooks?token=old", proxies[0].url), &body.to_string()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(proxies[1].list(A).await.body == stand_in.list_body(A));
    assert!(proxies[1].metric("anteroom_invalidations_total{source=\"replica\"}").await >= 1.0);
}

#[tokio::test]
async fn an_event_in_a_websocket_reaches_every_replica_before_its_client() {
    let (stand_in, _redis, proxies) = fleet(2, "cache.ttl = \"5m\"\ncache.settle = \"0s\"").await;
    let mut socket = subscribed(&stand_in, &proxies[0], A).await;
    for round in 0..10 {
        is_served_from_memory(&proxies[1]).await;
        stand_in.agent_message(A, &format!("message {round}"));
        hear(&mut socket, "message.created").await;
        let read = proxies[1].list(A).await;
        assert!(!read.is_hit() && read.body == stand_in.list_body(A), "round {round}");
    }
}

#[tokio::test]
async fn by_tls_a_user_and_a_database_are_as_by_a_socket() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let certificate = Certificate::for_names(&["localhost"]);
    let (_redis, url) = Redis::start_with_tls(&certificate).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "wrong\n").unwrap();
    let settings = format!(
        "replicas.redis = \"{url}\"\nreplicas.ca_file = \"{}\"\nreplicas.password_file = \"{}\"\n\
         replicas.secret = \"0123456789abcdef0123456789abcdef\"\ncache.ttl = \"5m\"\ncache.settle = \"0s\"",
        certificate.authority().display(),
        password.display()
    );
    let proxies = [Proxy::start(&stand_in, &settings).await, Proxy::start(&stand_in, &settings).await];
    let denied = "anteroom_replicas_exchange_failures_total{reason=\"denied\"}";
    while proxies[0].metric(denied).await < 1.0 {}
    // It is read anew.
    std::fs::write(&password, "hush\n").unwrap();
    for proxy in &proxies {
        proxy.wait_for_metric("anteroom_replicas_members", 2.0).await;
    }
    is_served_from_memory(&proxies[1]).await;
    write(&proxies[0], &stand_in, A).await;
    assert!(proxies[1].list(A).await.body == stand_in.list_body(A));
}

#[tokio::test]
async fn redis_holds_nobody_s_name() {
    let (stand_in, redis, proxies) = fleet(2, "").await;
    proxies[0].list(A).await;
    write(&proxies[0], &stand_in, A).await;
    let dump = redis.dump().await;
    assert!(dump.windows(5).any(|bytes| bytes == b"agree"), "it holds the fleet");
    for name in [A, anteroom_stand_in::INBOX, "hello"] {
        assert!(!dump.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{name} stands in Redis");
    }
}

#[tokio::test]
async fn one_with_another_secret_stays_alone_and_says_so() {
    let (stand_in, redis, proxies) = fleet(1, "cache.ttl = \"5m\"").await;
    let other = redis.settings("").replace("0123456789", "abcdefabcd");
    let stranger = Proxy::start(&stand_in, &other).await;
    stranger.wait_for_metric("anteroom_replicas_state{state=\"disagrees\"}", 1.0).await;
    for _ in 0..3 {
        assert!(!stranger.list(A).await.is_hit());
    }
    let ready = crate::support::get(&format!("{}/ready", stranger.admin)).await;
    assert!(ready.status == StatusCode::OK && ready.text().contains("another replicas.secret"), "{}", ready.text());
    // The others do not mind.
    is_served_from_memory(&proxies[0]).await;
}

#[tokio::test]
async fn where_every_read_asks_none_is_older_than_a_write() {
    let (stand_in, _redis, proxies) =
        fleet(2, "replicas.lease = \"0s\"\ncache.ttl = \"5m\"\ncache.settle = \"0s\"").await;
    for _ in 0..10 {
        is_served_from_memory(&proxies[1]).await;
        write(&proxies[0], &stand_in, A).await;
        assert!(proxies[1].list(A).await.body == stand_in.list_body(A));
    }
}

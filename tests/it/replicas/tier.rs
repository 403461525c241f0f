//! What one replica has fetched is there for the others, and only one fetches: unless it is older than a change, or was not
//! sealed by one of them.

use std::time::Duration;

use anteroom::engine::clock;
use anteroom_stand_in::{Matcher, Options, Point, Shape, StandIn};
use http::{Method, StatusCode};

use super::{A, SECRETS, fleet, is_served_from_memory, join, write};
use crate::support::child::Program;
use crate::support::redis::{Redis, signal};
use crate::support::{Proxy, client, get, post, reading, settings, spawn};

/// For a machine that is busy elsewhere.
const PATIENT: &str = "cache.ttl = \"5m\"\ncache.settle = \"0s\"\ncache.wait = \"60s\"\nlog.level = \"error\"\n\
                       replicas.lease = \"3s\"\nreplicas.timeout = \"1400ms\"\nreplicas.tell_within = \"3s\"\n\
                       replicas.read_timeout = \"1s\"\nreplicas.fetch_lease = \"4s\"\nreplicas.fetch_wait = \"20s\"";
const ADOPTED: &str = "anteroom_tier_requests_total{result=\"adopted\"}";

/// How many readers of a cold list: 10,000 with `make bench-fleet`.
const READERS: usize = 300;

/// The names of all answers that lie in Redis.
async fn answers(redis: &Redis) -> Vec<String> {
    let names = redis.run("return table.concat(redis.call('KEYS', 'anteroom:1:*:v'), ' ')").await;
    names.split_whitespace().map(str::to_owned).collect()
}

/// The only answer that lies there, once it does.
async fn answer(redis: &Redis) -> String {
    let waiting = async {
        loop {
            if let [name] = &answers(redis).await[..] {
                return name.clone();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it is put there")
}

async fn sum(proxies: &[Proxy], metric: &str) -> f64 {
    let mut sum = 0.0;
    for proxy in proxies {
        sum += proxy.metric(metric).await;
    }
    sum
}

async fn reaches(proxies: &[Proxy], metric: &str, value: f64) {
    let waiting = async {
        while sum(proxies, metric).await < value {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("{metric} never was {value}"));
}

/// Another replica in front of the same.
async fn another(stand_in: &StandIn, redis: &Redis, more: &str) -> Proxy {
    let proxy = Proxy::start(stand_in, &redis.settings(more)).await;
    proxy.wait_for_metric("anteroom_replicas_state{state=\"leased\"}", 1.0).await;
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn all_readers_of_a_cold_list_on_all_replicas_cost_one_request() {
    // They are held until all are there.
    let (stand_in, _redis, proxies) = fleet(3, PATIENT).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let http = client();
    let readers: Vec<_> = (0..READERS)
        .map(|at| {
            let (http, url) = (http.clone(), proxies[at % 3].list_url(A));
            spawn(async move {
                let response = http.request(crate::support::request("GET", &url, &[], "")).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes()
            })
        })
        .collect();
    #[allow(clippy::cast_precision_loss)]
    reaches(&proxies, "anteroom_waiters", READERS as f64).await;
    reaches(&proxies, "anteroom_tier_requests_total{result=\"held\"}", 2.0).await;
    drop(gate);
    for reader in readers {
        assert!(reader.await.unwrap() == stand_in.list_body(A));
    }
    assert_eq!(stand_in.list_requests(A), 1);
    assert!((sum(&proxies, ADOPTED).await - 2.0).abs() < 0.1);
    assert!((sum(&proxies, "anteroom_tier_wait_seconds_count").await - 2.0).abs() < 0.1);
}

/// What nobody tells of shows in one read first, wherever that was fetched: no list that was fetched before it hides it.
#[tokio::test]
async fn what_one_read_has_shown_no_list_of_another_replica_hides() {
    let (stand_in, redis, proxies) = fleet(2, PATIENT).await;
    for (shown_by, who) in [(0, A), (1, "visitor-b")] {
        // Agents answer in the newest one.
        let display = stand_in.conversation_ids(who).into_iter().max().unwrap();
        let messages = |proxy: &Proxy| format!("{}/{display}/messages", proxy.list_url(who));
        let before = answers(&redis).await.len();
        let list = get(&proxies[0].list_url(who)).await.body;
        while answers(&redis).await.len() == before {
            tokio::task::yield_now().await;
        }
        // One that it has adopted; and one that it has never seen, when it sees the messages.
        if shown_by == 0 {
            assert!(get(&proxies[1].list_url(who)).await.body == list, "it is adopted");
        }
        stand_in.agent_message(who, "nobody tells");
        let page = get(&messages(&proxies[shown_by])).await.body;
        assert!(get(&messages(&proxies[1])).await.body == page, "fetched by {shown_by}");
        let seen = get(&proxies[1].list_url(who)).await.body;
        assert!(seen == stand_in.list_body(who), "older than the messages that {shown_by} has fetched");
    }
}

/// What was shown under other settings was compared with nothing that lies in Redis: by another replica, which has changed
/// its settings first, or by this one, before something came that it had asked for before.
#[tokio::test]
async fn what_was_shown_before_a_change_of_settings_no_list_from_redis_hides() {
    let (stand_in, redis, proxies) = fleet(2, PATIENT).await;
    let reload = |proxy: &Proxy, more: &str| {
        let settings = settings(&stand_in.url(), &redis.settings(&format!("{PATIENT}\n{more}")));
        proxy.state.reload(settings).unwrap();
    };
    let messages_url = |who: &str| {
        let display = stand_in.conversation_ids(who).into_iter().max().unwrap();
        format!("{}/{display}/messages", proxies[0].list_url(who))
    };
    let ignoring = "cache.credentials = \"ignore\"";
    reload(&proxies[1], ignoring);
    get(&proxies[1].list_url(A)).await;
    answer(&redis).await;
    stand_in.agent_message(A, "nobody tells");
    assert!(get(&messages_url(A)).await.text().contains("nobody tells"));
    reload(&proxies[0], ignoring);
    assert!(get(&proxies[0].list_url(A)).await.body == stand_in.list_body(A));

    let url = messages_url("visitor-b");
    let target = url.strip_prefix(&proxies[0].url).unwrap().to_owned();
    let gate = stand_in.hold(Point::BeforeReading, Matcher::request(Method::GET, &target));
    let early = spawn(async move { get(&url).await });
    gate.arrived(1).await;
    reload(&proxies[0], "");
    // How old an answer is, is known to within an exchange: nothing is taken that may be from before the reload.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = answers(&redis).await.len();
    get(&proxies[0].list_url("visitor-b")).await;
    while answers(&redis).await.len() == before {
        tokio::task::yield_now().await;
    }
    stand_in.agent_message("visitor-b", "nobody tells");
    gate.release_all();
    assert!(early.await.unwrap().text().contains("nobody tells"));
    assert!(get(&proxies[0].list_url("visitor-b")).await.body == stand_in.list_body("visitor-b"));
}

#[tokio::test]
async fn a_change_costs_one_request_for_all_replicas() {
    let (stand_in, _redis, proxies) = fleet(3, PATIENT).await;
    for round in 0..20 {
        // Of two lists that were asked for within milliseconds on two machines nobody knows which is the newer.
        tokio::time::sleep(Duration::from_millis(50)).await;
        write(&proxies[round % 3], &stand_in, A).await;
        let before = stand_in.list_requests(A);
        let reads: Vec<_> = proxies.iter().map(|proxy| reading(proxy, A)).collect();
        for read in reads {
            assert!(read.await.unwrap().body == stand_in.list_body(A), "round {round}");
        }
        assert_eq!(stand_in.list_requests(A), before + 1, "round {round}");
    }
}

/// Nobody has told of a change: who sees it first tells the others.
#[tokio::test]
async fn what_one_has_found_changed_the_others_do_not_serve_from_before() {
    let (stand_in, redis, proxies) = fleet(1, &PATIENT.replace("5m", "1s")).await;
    // The other one would serve what it has for minutes.
    let slow = another(&stand_in, &redis, PATIENT).await;
    let old = stand_in.list_body(A);
    assert!(slow.list(A).await.body == old && proxies[0].list(A).await.body == old);
    stand_in.agent_message(A, "nobody tells");
    let new = stand_in.list_body(A);
    assert!(slow.list(A).await.body == old, "nobody knows yet");
    while proxies[0].list(A).await.body != new {}
    // Soon: its reader waits for that, but not for long. By itself it would not show that for minutes.
    while slow.list(A).await.body != new {}
    // What nobody finds changed nobody tells of.
    let told = slow.metric("anteroom_invalidations_total{source=\"replica\"}").await;
    let asked = stand_in.list_requests(A);
    while stand_in.list_requests(A) == asked {
        proxies[0].list(A).await;
    }
    assert!((slow.metric("anteroom_invalidations_total{source=\"replica\"}").await - told).abs() < 0.1);
    assert!(slow.list(A).await.is_hit());
}

#[tokio::test]
async fn one_that_comes_later_has_at_once_what_the_others_have() {
    let (stand_in, redis, proxies) = fleet(1, PATIENT).await;
    // What came before is in the log, too.
    write(&proxies[0], &stand_in, A).await;
    let first = proxies[0].list(A).await;
    answer(&redis).await;
    let late = another(&stand_in, &redis, PATIENT).await;
    let (requests, read) = (stand_in.list_requests(A), late.list(A).await);
    assert!(read.is_hit() && read.cache_status().contains("detail=replica"), "{}", read.cache_status());
    assert!(read.body == first.body && stand_in.list_requests(A) == requests);
    for name in ["etag", "content-type", "vary", "x-total"] {
        assert_eq!(read.header(name), first.header(name), "{name}");
    }
    // It is kept there, and put out of date there, too.
    assert!(late.list(A).await.is_hit());
    write(&proxies[0], &stand_in, A).await;
    assert!(late.list(A).await.body == stand_in.list_body(A));
}

#[tokio::test]
async fn a_long_list_is_there_for_the_others_too() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed("long", Shape { conversations: 20, messages: 100, bytes: 1_000 });
    let redis = Redis::start(&[]).await;
    let proxies = join(&stand_in, &redis, 2, PATIENT).await;
    assert!(proxies[0].list("long").await.body.len() > 1_000_000);
    answer(&redis).await;
    assert!(proxies[1].list("long").await.body == stand_in.list_body("long"));
    assert_eq!(stand_in.list_requests("long"), 1);
    // One that holds less does without.
    let small = another(&stand_in, &redis, &format!("{PATIENT}\ncache.max_body = \"64KiB\"")).await;
    assert!(small.list("long").await.body == stand_in.list_body("long"));
    small.wait_for_metric("anteroom_tier_requests_total{result=\"too_long\"}", 1.0).await;
}

/// What somebody who may write to Redis can do to an answer there: the list is fetched.
#[tokio::test]
async fn an_answer_that_no_replica_has_sealed_is_a_miss() {
    let (stand_in, redis, proxies) = fleet(1, PATIENT).await;
    let unopened = "anteroom_tier_requests_total{result=\"unopened\"}";
    proxies[0].list(A).await;
    let name = answer(&redis).await;
    proxies[0].list("visitor-b").await;
    let other = loop {
        if let Some(other) = answers(&redis).await.into_iter().find(|other| *other != name) {
            break other;
        }
    };
    let good = |script: &str| format!("local v = redis.call('GET', '{name}') {script} return 'done'");
    redis.run(&good("redis.call('SET', 'good', v)")).await;
    let set = |value: &str| good(&format!("v = redis.call('GET', 'good') redis.call('SET', '{name}', {value})"));
    for (what, script, is_opened) in [
        (
            "a bit of what is sealed",
            set("string.sub(v, 1, 99) .. string.char((string.byte(v, 100) + 1) % 256) .. string.sub(v, 101)"),
            true,
        ),
        ("a later entry than its own", set("string.sub(v, 1, 20) .. '0000000000999999' .. string.sub(v, 37)"), true),
        ("cut short", set("string.sub(v, 1, #v - 1)"), true),
        ("cut to its head", set("string.sub(v, 1, 60)"), false),
        ("more at its end", set("v .. 'x'"), true),
        ("another list's", set(&format!("redis.call('GET', '{other}')")), true),
        ("another layout", set("'atr2' .. string.sub(v, 5)"), false),
        ("another epoch", set("'atr1' .. string.rep('x', 16) .. string.sub(v, 21)"), false),
        ("huge", set("string.sub(v, 1, 60) .. string.rep('x', 40000000)"), false),
        ("no text", good(&format!("redis.call('DEL', '{name}') redis.call('LPUSH', '{name}', 'x')")), false),
        ("empty", set("''"), false),
    ] {
        redis.run(&script).await;
        let late = another(&stand_in, &redis, PATIENT).await;
        let requests = stand_in.list_requests(A);
        let read = late.list(A).await;
        assert!(read.body == stand_in.list_body(A) && !read.is_hit(), "{what}: {}", read.cache_status());
        assert_eq!(stand_in.list_requests(A), requests + 1, "{what}");
        assert!((late.metric(unopened).await - f64::from(u8::from(is_opened))).abs() < 0.1, "{what}");
        assert!(late.metric(ADOPTED).await < 0.1, "{what}");
        late.stop().await;
        redis.run(&format!("redis.call('DEL', '{name}') return 'done'")).await;
    }
    // The same as it was.
    redis.run(&set("v")).await;
    let late = another(&stand_in, &redis, PATIENT).await;
    assert!(late.list(A).await.is_hit());
}

#[tokio::test]
async fn an_answer_from_before_an_acknowledged_write_is_never_served() {
    let (stand_in, redis, proxies) = fleet(3, &format!("{PATIENT}\n{SECRETS}")).await;
    for round in 0..5 {
        write(&proxies[round % 3], &stand_in, A).await;
        proxies[round % 3].list(A).await;
        let name = answer(&redis).await;
        redis.run(&format!("redis.call('SET', 'before', redis.call('GET', '{name}')) return 'done'")).await;
        write(&proxies[(round + 1) % 3], &stand_in, A).await;
        // Whoever reads for the first time, and whoever had it, on the replica of the writer and elsewhere.
        let late = another(&stand_in, &redis, PATIENT).await;
        for proxy in proxies.iter().chain([&late]) {
            redis.run(&format!("redis.call('SET', '{name}', redis.call('GET', 'before')) return 'done'")).await;
            assert!(proxy.list(A).await.body == stand_in.list_body(A), "round {round}");
        }
        late.stop().await;
        redis.run(&format!("redis.call('DEL', '{name}') return 'done'")).await;
    }
}

/// Whose it is stands in the answer alone: the path tells nothing of it.
#[tokio::test]
async fn nor_is_one_from_before_an_event_that_names_only_the_contact() {
    let (stand_in, redis, proxies) = fleet(2, &format!("webhook.unsigned_token = \"old\"\n{PATIENT}")).await;
    proxies[0].list(A).await;
    answer(&redis).await;
    stand_in.agent_message(A, "behind the back");
    let body = serde_json::json!({
        "account": { "id": 7 },
        "conversation": { "id": 1, "contact_inbox": { "source_id": "none", "contact_id": stand_in.contact_id(A) } },
        "event": "message_created",
    });
    let answered = post(&format!("{}/_anteroom/webhooks?token=old", proxies[0].url), &body.to_string()).await;
    assert_eq!(answered.status, StatusCode::NO_CONTENT);
    let late = another(&stand_in, &redis, PATIENT).await;
    for proxy in [&late, &proxies[1]] {
        assert!(proxy.list(A).await.body == stand_in.list_body(A));
    }
    assert!(sum(&[late], "anteroom_tier_requests_total{result=\"outdated\"}").await > 0.9);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_replica_that_fetches_is_killed_another_one_does_before_long() {
    let (stand_in, redis, proxies) = fleet(2, PATIENT).await;
    let leader = Program::serve(&stand_in.url(), &redis.settings(PATIENT)).await;
    proxies[0].wait_for_metric("anteroom_replicas_members", 3.0).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let list = format!("{}{}", leader.url, StandIn::list_path(A));
    let led = spawn(async move { client().request(crate::support::request("GET", &list, &[], "")).await });
    gate.arrived(1).await;
    let reads: Vec<_> = proxies.iter().map(|proxy| reading(proxy, A)).collect();
    reaches(&proxies, "anteroom_tier_requests_total{result=\"held\"}", 2.0).await;
    signal(leader.id(), "KILL").await;
    let killed = clock::now();
    gate.arrived(2).await;
    assert!(clock::since(killed) < Duration::from_secs(15), "{:?}", clock::since(killed));
    drop(gate);
    for read in reads {
        assert!(read.await.unwrap().body == stand_in.list_body(A));
    }
    assert_eq!(stand_in.list_requests(A), 2, "one of the two that waited");
    assert!(led.await.unwrap().is_err());
}

#[tokio::test]
async fn when_redis_dies_meanwhile_each_fetches_for_itself() {
    let (stand_in, redis, proxies) = fleet(2, PATIENT).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let first = reading(&proxies[0], A);
    gate.arrived(1).await;
    let second = reading(&proxies[1], A);
    reaches(&proxies, "anteroom_tier_requests_total{result=\"held\"}", 1.0).await;
    let began = clock::now();
    redis.signal("KILL").await;
    gate.arrived(2).await;
    assert!(clock::since(began) < Duration::from_secs(15), "{:?}", clock::since(began));
    drop(gate);
    for read in [first, second] {
        assert!(read.await.unwrap().body == stand_in.list_body(A));
    }
}

/// Nobody waits for what is for nobody else: a 404, which is not kept.
#[tokio::test]
async fn what_is_not_kept_is_fetched_by_each() {
    let (stand_in, redis, proxies) = fleet(2, PATIENT).await;
    for _ in 0..2 {
        for proxy in &proxies {
            assert_eq!(proxy.list("nobody").await.status, StatusCode::NOT_FOUND);
        }
    }
    assert!(sum(&proxies, "anteroom_tier_requests_total{result=\"own\"}").await > 0.9);
    assert_eq!((answers(&redis).await.len(), stand_in.list_requests("nobody")), (0, 4));
}

#[tokio::test]
async fn without_the_tier_no_answer_lies_in_redis() {
    let (stand_in, redis, proxies) = fleet(2, &format!("{PATIENT}\nreplicas.tier = false")).await;
    for proxy in &proxies {
        assert!(!proxy.list(A).await.is_hit());
        is_served_from_memory(proxy).await;
    }
    assert_eq!((answers(&redis).await.len(), stand_in.list_requests(A)), (0, 2));
    write(&proxies[0], &stand_in, A).await;
    assert!(get(&proxies[1].list_url(A)).await.body == stand_in.list_body(A));
}

/// A bot may answer what was written before this replica came, and nobody tells of that.
#[tokio::test]
async fn one_that_comes_later_knows_what_may_go_on_changing() {
    let settings = PATIENT.replace("cache.settle = \"0s\"", "cache.settle = \"2m\"");
    let (stand_in, redis, proxies) = fleet(1, &settings).await;
    write(&proxies[0], &stand_in, A).await;
    let late = another(&stand_in, &redis, &settings).await;
    late.list(A).await;
    stand_in.agent_message(A, "a bot answers");
    let seen = async { while late.list(A).await.body != stand_in.list_body(A) {} };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("long before the TTL");
}

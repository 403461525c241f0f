//! A Redis that fails over, by real Sentinels and in a real cluster: what was lost with the old primary is out of date once.

use std::process::Stdio;
use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};

use super::failures::{LEASED, LONG, all_are_alone, all_is_well};
use super::{A, is_served_from_memory, write};
use crate::support::Proxy;
use crate::support::child::Program;
use crate::support::redis::{Redis, by_tls, free_port};
use crate::support::tls::Certificate;

const SAFE: &str = "anteroom_replicas_failover_safe";

/// Replicas that find Redis so.
async fn join(stand_in: &StandIn, url: &str, count: u8) -> Vec<Proxy> {
    let settings =
        format!("replicas.redis = \"{url}\"\nreplicas.secret = \"0123456789abcdef0123456789abcdef\"\n{LONG}");
    let mut proxies = Vec::new();
    for _ in 0..count {
        proxies.push(Proxy::start(stand_in, &settings).await);
    }
    for proxy in &proxies {
        proxy.wait_for_metric(LEASED, 1.0).await;
        proxy.wait_for_metric("anteroom_replicas_members", count.into()).await;
    }
    proxies
}

/// A primary with a replica, and three Sentinels who know of both and of each other.
async fn watched(primary: &[&str]) -> (Redis, Redis, [Redis; 3], String) {
    let [first, second, one, two, three] = std::array::from_fn(|_| free_port());
    let primary = Redis::start(&[&["--port", &first.to_string()], primary].concat()).await;
    let second = second.to_string();
    let replica = Redis::start(&["--port", &second, "--replicaof", "127.0.0.1", &first.to_string()]).await;
    let sentinels = [
        Redis::start_sentinel(one, first).await,
        Redis::start_sentinel(two, first).await,
        Redis::start_sentinel(three, first).await,
    ];
    for sentinel in &sentinels {
        sentinel.says("SENTINEL CKQUORUM shop", "+OK 3 ").await;
        sentinel.says("SENTINEL REPLICAS shop", "*1").await;
    }
    let url = format!("redis+sentinel://127.0.0.1:{one},127.0.0.1:{two},127.0.0.1:{three}/shop");
    (primary, replica, sentinels, url)
}

#[tokio::test]
async fn a_failover_that_loses_the_last_writes_puts_everything_out_of_date_once() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (mut primary, replica, sentinels, url) = watched(&[]).await;
    let proxies = join(&stand_in, &url, 2).await;
    // The old primary would go on if it were only cut off: that is told.
    proxies[0].wait_for_metric(SAFE, 0.0).await;
    for proxy in &proxies {
        is_served_from_memory(proxy).await;
    }
    // The replica does not hear of this any more, and takes the primary's place without it.
    replica.signal("STOP").await;
    write(&proxies[0], &stand_in, A).await;
    assert!(proxies[1].list(A).await.body == stand_in.list_body(A));
    primary.signal("KILL").await;
    replica.signal("CONT").await;
    all_are_alone(&stand_in, &proxies).await;
    all_is_well(&stand_in, &proxies).await;
    assert_eq!(replica.ask("ROLE").await, "*3", "it is the primary");
    let begun = "anteroom_epochs_total{cause=\"run\"}";
    let missing = "anteroom_epochs_total{cause=\"missing\"}";
    let anew = proxies[0].metric(begun).await + proxies[1].metric(begun).await;
    let empty = proxies[0].metric(missing).await + proxies[1].metric(missing).await;
    assert!(anew + empty >= 2.0, "one at the very first, one by the fail-over: {anew} {empty}");
    // The old one comes back as a replica, a Sentinel goes, every connection ends: nobody minds.
    primary.restart_dead().await;
    sentinels[1].says("SENTINEL REPLICAS shop", "*1").await;
    let [gone, _two_are_left @ ..] = sentinels;
    drop(gone);
    replica.ask("CLIENT KILL TYPE normal").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn an_orderly_failover_is_noticed_though_the_old_primary_lives() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (primary, replica, sentinels, url) =
        watched(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"]).await;
    primary.says("WAIT 1 0", ":1").await;
    let proxies = join(&stand_in, &url, 2).await;
    proxies[0].wait_for_metric(SAFE, 0.0).await;
    all_is_well(&stand_in, &proxies).await;
    assert_eq!(sentinels[0].ask("SENTINEL FAILOVER shop").await, "+OK");
    replica.says("SET who leads", "+OK").await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn a_primary_that_lacks_its_replica_gives_no_leases_while_another_takes_its_place() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let fenced = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "1"];
    let port = free_port().to_string();
    let old = Redis::start(&[&["--port", &port], &fenced[..]].concat()).await;
    let new = Redis::start(&["--replicaof", "127.0.0.1", &port]).await;
    old.says("WAIT 1 0", ":1").await;
    let before = join(&stand_in, &old.url(), 1).await;
    before[0].wait_for_metric(SAFE, 1.0).await;
    is_served_from_memory(&before[0]).await;
    // As a fail-over does, whose Sentinels cannot reach the old one.
    assert_eq!(new.ask("REPLICAOF NO ONE").await, "+OK");
    let after = join(&stand_in, &new.url(), 1).await;
    write(&after[0], &stand_in, A).await;
    all_are_alone(&stand_in, &before).await;
    is_served_from_memory(&after[0]).await;
}

/// Three nodes that have a third of the slots each.
async fn cluster() -> ([Redis; 3], [u16; 3]) {
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let start = async |port: u16| Redis::start(&["--port", &port.to_string(), "--cluster-enabled", "yes"]).await;
    let nodes = [start(ports[0]).await, start(ports[1]).await, start(ports[2]).await];
    create(&nodes, ports, &[]).await;
    (nodes, ports)
}

/// Makes a cluster of nodes that run.
async fn create(nodes: &[Redis], ports: [u16; 3], more: &[&str]) {
    let mut create = tokio::process::Command::new("redis-cli");
    create.args(more).args(["--cluster", "create"]).args(ports.map(|port| format!("127.0.0.1:{port}")));
    let made = create.arg("--cluster-yes").stdout(Stdio::null()).kill_on_drop(true).status();
    let made = tokio::time::timeout(Duration::from_secs(60), made).await.expect("in time");
    assert!(made.expect("redis-cli, of the package redis-tools").success());
    for node in nodes {
        node.says("CLUSTER COUNTKEYSINSLOT 0", ":").await;
    }
}

#[tokio::test]
async fn a_cluster_whose_slot_moves_is_as_one_server() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (mut nodes, ports) = cluster().await;
    let url = format!("redis+cluster://{}", ports.map(|port| format!("127.0.0.1:{port}")).join(","));
    let proxies = join(&stand_in, &url, 2).await;
    proxies[0].wait_for_metric(SAFE, 1.0).await;
    all_is_well(&stand_in, &proxies).await;
    let adopted = "anteroom_tier_requests_total{result=\"adopted\"}";
    let shares = async {
        while proxies[0].metric(adopted).await + proxies[1].metric(adopted).await < 1.0 {
            write(&proxies[0], &stand_in, A).await;
            for proxy in &proxies {
                assert!(proxy.list(A).await.body == stand_in.list_body(A));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shares).await.expect("what one has fetched the other has");
    // The keys of the fleet lie together, and go together.
    let keys = "{anteroom}:1:fleet {anteroom}:1:log";
    let mut from = 0;
    while nodes[from].ask(&format!("EXISTS {keys}")).await != ":2" {
        from += 1;
    }
    let to = (from + 1) % 3;
    let [source, target] = [nodes[from].ask("CLUSTER MYID").await, nodes[to].ask("CLUSTER MYID").await];
    let slot = nodes[0].ask("CLUSTER KEYSLOT {anteroom}:1:fleet").await.replace(':', "");
    assert_eq!(nodes[to].ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).await, "+OK");
    assert_eq!(nodes[from].ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).await, "+OK");
    let migrate = format!("MIGRATE 127.0.0.1 {} \"\" 0 5000 KEYS {keys}", ports[to]);
    assert_eq!(nodes[from].ask(&migrate).await, "+OK");
    let moved = format!("CLUSTER SETSLOT {slot} NODE {target}");
    assert_eq!(nodes[to].ask(&moved).await, "+OK");
    // Lists lie there, too, and may still come: they are not worth the way.
    let forget = "for _, key in ipairs(redis.call('KEYS', '*:[vf]')) do redis.call('DEL', key) end return 'gone'";
    let let_go = async {
        while nodes[from].ask(&moved).await != "+OK" {
            assert_eq!(nodes[from].run(forget).await, "gone");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), let_go).await.expect("it has nothing of the slot any more");
    nodes[to].says(&format!("EXISTS {keys}"), ":2").await;
    all_is_well(&stand_in, &proxies).await;
    // Its node dies, which nobody can take the place of, and comes back empty.
    nodes[to].signal("KILL").await;
    all_are_alone(&stand_in, &proxies).await;
    nodes[to].restart_dead().await;
    all_is_well(&stand_in, &proxies).await;
    let run = "anteroom_epochs_total{cause=\"run\"}";
    assert!(proxies[0].metric(run).await + proxies[1].metric(run).await >= 1.0, "it is another server");
}

#[tokio::test]
async fn sentinels_that_want_a_password_get_that_of_redis() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let [port, watching] = [free_port(), free_port()];
    let redis = Redis::start(&["--port", &port.to_string()]).await;
    let sentinel = Redis::start_sentinel(watching, port).await;
    for server in [&redis, &sentinel] {
        assert_eq!(server.ask("ACL SETUSER default resetpass >hush").await, "+OK");
    }
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "hush\n").unwrap();
    let url = format!(
        "redis+sentinel://127.0.0.1:1,127.0.0.1:{watching}/shop\"\nreplicas.password_file = \"{}",
        password.display()
    );
    let proxies = join(&stand_in, &url, 2).await;
    all_is_well(&stand_in, &proxies).await;
}

/// More of `replicas`, where the certificate's authority is one's own.
fn with_authority(url: &str, certificate: &Certificate) -> String {
    format!("{url}\"\nreplicas.ca_file = \"{}", certificate.authority().display())
}

#[tokio::test]
async fn sentinels_and_redis_by_tls_are_as_without() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let certificate = Certificate::for_names(&["localhost", "127.0.0.1"]);
    let [port, watching] = [free_port(), free_port()];
    let _redis = Redis::start(&by_tls(&certificate, port).iter().map(String::as_str).collect::<Vec<_>>()).await;
    let _sentinel = Redis::start_sentinel_with_tls(&certificate, watching, port).await;
    let url = format!("rediss+sentinel://127.0.0.1:1,127.0.0.1:{watching}/shop");
    let proxies = join(&stand_in, &with_authority(&url, &certificate), 2).await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn a_cluster_by_tls_is_as_without() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let certificate = Certificate::for_names(&["localhost", "127.0.0.1"]);
    let ports: [u16; 3] = std::array::from_fn(|_| free_port());
    let mut nodes = Vec::new();
    for port in ports {
        let listens = by_tls(&certificate, port);
        let listens = listens.iter().map(String::as_str).chain(["--tls-cluster", "yes", "--cluster-enabled", "yes"]);
        nodes.push(Redis::start(&listens.collect::<Vec<_>>()).await);
    }
    let authority = certificate.authority().display().to_string();
    create(&nodes, ports, &["--tls", "--cacert", &authority]).await;
    let url = format!("rediss+cluster://{}", ports.map(|port| format!("127.0.0.1:{port}")).join(","));
    let proxies = join(&stand_in, &with_authority(&url, &certificate), 2).await;
    all_is_well(&stand_in, &proxies).await;
}

#[tokio::test]
async fn what_of_redis_should_be_mended_is_told() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let redis = Redis::start(&["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]).await;
    redis.ask("ACL SETUSER default -xrange -pexpire").await;
    let program = Program::serve(&stand_in.url(), &redis.settings("")).await;
    for part in ["this is the Redis that the replicas share through", "allkeys-lru", "may not run XRANGE, PEXPIRE"] {
        program.wait_for_stderr(part).await;
    }
}

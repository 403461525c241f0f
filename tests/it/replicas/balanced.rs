//! Two replicas behind the balancer of `deploy/compose.replicas.yaml`, a real HAProxy: whoever writes and reads through it sees
//! one proxy.

use std::process::Stdio;
use std::time::Duration;

use http::StatusCode;
use tokio::process::{Child, Command};

use super::failures::LONG;
use super::{A, fleet};
use crate::support::redis::free_port;
use crate::support::{Proxy, get, post};

/// A running HAProxy; it ends when this is dropped.
struct Balancer {
    url: String,
    _child: Child,
    _folder: tempfile::TempDir,
}

impl Balancer {
    /// As the file says, but where it listens and where the replicas are.
    async fn start(proxies: &[Proxy]) -> Self {
        let port = free_port();
        let mut config =
            include_str!("../../../deploy/haproxy.cfg").replace("bind :8080", &format!("bind 127.0.0.1:{port}"));
        for (name, proxy) in ["anteroom-1:8080", "anteroom-2:8080"].iter().zip(proxies) {
            let [public, admin] = [&proxy.url, &proxy.admin].map(|url| url.trim_start_matches("http://"));
            let checked = admin.rsplit(':').next().unwrap();
            assert!(config.contains(name), "{name}");
            config = config.replace(name, &format!("{public} port {checked}"));
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("Debian's package haproxy is installed");
        let url = format!("http://127.0.0.1:{port}");
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), listens).await.expect("haproxy listens");
        Self { url, _child: child, _folder: folder }
    }
}

#[tokio::test]
async fn through_a_balancer_a_write_is_in_every_read_after_it_and_one_that_stops_is_not_missed() {
    let (stand_in, _redis, mut proxies) = fleet(2, LONG).await;
    let balancer = Balancer::start(&proxies).await;
    let list = format!("{}{}", balancer.url, anteroom_stand_in::StandIn::list_path(A));
    let message = format!("{list}/{}/messages", stand_in.conversation_ids(A)[0]);
    let exact = async || {
        let read = get(&list).await;
        assert!(read.status == StatusCode::OK && read.body == stand_in.list_body(A), "{}", read.status);
    };
    for _ in 0..20 {
        assert_eq!(post(&message, "{\"content\":\"hello\"}").await.status, StatusCode::OK);
        for _ in 0..4 {
            exact().await;
        }
    }
    for proxy in &proxies {
        let writes =
            proxy.metric("anteroom_requests_total{method=\"POST\",outcome=\"write\",status_class=\"2xx\"}").await;
        assert!(writes >= 1.0, "each has had its share");
    }
    let stopping = tokio::spawn(proxies.remove(0).stop());
    while !stopping.is_finished() {
        exact().await;
    }
    for _ in 0..20 {
        exact().await;
    }
}

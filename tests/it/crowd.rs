//! Ten thousand readers at once, with the proxy as a process of its own: the upstream is asked once.

use std::process::Stdio;
use std::time::Duration;

use anteroom_stand_in::{Matcher, Options, Point, StandIn};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::support::{get, post};

const READERS: usize = 10_000;
const A: &str = "visitor-a";
/// Says to this test that it runs with as many open files as it may have.
const INNER: &str = "CROWD_WITHOUT_LIMITS";
const TEST: &str = "crowd::ten_thousand_readers_at_once_are_one_request_and_so_they_are_right_after_a_write";

/// A shell that raises the limit on open files as far as it may, and becomes the command.
fn unlimited(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n \"$(ulimit -Hn)\" 2>/dev/null; exec \"$0\" \"$@\"", command]).kill_on_drop(true);
    shell
}

/// The proxy as a process.
struct Process {
    child: Child,
    url: String,
    admin: String,
}

impl Process {
    async fn start(upstream: &str) -> Self {
        let mut command = unlimited(env!("CARGO_BIN_EXE_anteroom"));
        command.args(["serve", "--upstream", upstream, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        // All of them come from one address.
        for name in ["CONNECTIONS_PER_ADDRESS", "REQUESTS_PER_ADDRESS"] {
            command.env(format!("ANTEROOM_LIMITS__{name}"), "100000");
        }
        // A slow machine shall not make readers give up.
        for name in ["CACHE__WAIT", "UPSTREAM__FETCH_TIMEOUT", "UPSTREAM__HEAD_TIMEOUT"] {
            command.env(format!("ANTEROOM_{name}"), "5m");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = async |before: &str| {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            line.strip_prefix(before).expect("it says where it listens").to_owned()
        };
        let url = address("listening on ").await;
        let admin = address("admin on ").await;
        Self { child, url, admin }
    }

    async fn waiters_are(&self, count: usize) {
        let line = format!("anteroom_waiters {count}");
        let waiting = async {
            while !get(&format!("{}/metrics", self.admin)).await.text().lines().any(|it| it == line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("everyone comes to wait");
    }
}

/// Sends a request over a connection of its own and reads the answer to its end.
async fn read_list(host: String) -> Vec<u8> {
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let path = StandIn::list_path(A);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn all_read(stand_in: &StandIn, proxy: &Process, readers: usize) {
    let before = stand_in.list_requests(A);
    let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
    let host = proxy.url.strip_prefix("http://").unwrap();
    let mut reading = JoinSet::new();
    for _ in 0..readers {
        reading.spawn(read_list(host.to_owned()));
        tokio::task::yield_now().await;
    }
    proxy.waiters_are(readers).await;
    gate.release_all();
    let list = stand_in.list_body(A);
    while let Some(answer) = reading.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&list), "not the list");
    }
    assert_eq!(stand_in.list_requests(A) - before, 1);
    proxy.waiters_are(0).await;
}

#[tokio::test]
async fn ten_thousand_readers_at_once_are_one_request_and_so_they_are_right_after_a_write() {
    if std::env::var_os(INNER).is_none() {
        // Both ends of ten thousand connections need more open files than a process usually may have.
        let itself = std::env::current_exe().unwrap();
        let mut inner = unlimited(itself.to_str().expect("a path in UTF-8"));
        let output = inner.args(["--exact", TEST, "--nocapture"]).env(INNER, "1").output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test has been renamed");
        return;
    }
    let limit = Command::new("sh").args(["-c", "ulimit -n"]).output().await.unwrap().stdout;
    let limit: usize = String::from_utf8_lossy(&limit).trim().parse().unwrap_or(usize::MAX);
    let readers = READERS.min((limit / 3 * 2).saturating_sub(200));
    assert!(readers >= 400, "with {limit} open files there is no crowd");

    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let mut proxy = Process::start(&stand_in.url()).await;
    all_read(&stand_in, &proxy, readers).await;
    let conversation = *stand_in.conversation_ids(A).last().unwrap();
    let path = StandIn::list_path(A);
    let written = post(&format!("{}{path}/{conversation}/messages", proxy.url), r#"{"content":"written"}"#).await;
    assert_eq!(written.status, StatusCode::OK);
    all_read(&stand_in, &proxy, readers).await;
    proxy.child.kill().await.unwrap();
}

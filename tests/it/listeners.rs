//! Where clients connect, how many of them, and through whom: several addresses, Unix sockets, the PROXY protocol, and
//! a process that takes over from another.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anteroom::config::ListenAddress;
use anteroom_stand_in::{Options, StandIn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::support::child::Program;
use crate::support::raw::Talk;
use crate::support::{Proxy, both, get, settings};

fn list(source: &str) -> String {
    format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path(source))
}

#[tokio::test]
async fn several_addresses_and_a_unix_socket_are_served_alike() {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("anteroom.sock");
    // What a process that was killed has left.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let mut config = settings(&stand_in.url(), "");
    config.server.listen.push(ListenAddress::Tcp("127.0.0.1:0".parse().expect("an address")));
    config.server.listen.push(ListenAddress::Unix(path.clone()));
    let proxy = Proxy::of(config).await;
    assert_eq!(proxy.addresses.public.len(), 3);
    for address in proxy.addresses.public.iter().filter_map(ListenAddress::port) {
        assert_eq!(get(&format!("http://{address}{}", StandIn::list_path("visitor-a"))).await.status, 200);
    }
    let mut stream = UnixStream::connect(&path).await.expect("it listens");
    stream.write_all(list("visitor-a").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("anteroom; hit"), "{answer}");
    let twice = settings(&stand_in.url(), "").server;
    let mut twice = anteroom::config::ServerSettings { ..twice };
    twice.listen = vec![ListenAddress::Unix(path.clone())];
    let other = anteroom::server::listeners::Server::bind(proxy.state.clone(), twice).await;
    assert!(other.err().is_some_and(|error| error.to_string().contains("anteroom.sock")), "somebody listens there");
    proxy.stop().await;
    assert!(!path.exists(), "the file goes with the listener");
}

#[tokio::test]
async fn the_proxy_protocol_says_who_the_client_is_and_is_believed_of_trusted_proxies_alone() {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x12\x34\0\x50";
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let trusting = "listen.proxy_protocol = true\nlisten.trusted_proxies = [\"127.0.0.1\"]";
    let proxy = Proxy::start(&stand_in, trusting).await;
    for (header, expected) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4660 80\r\n".as_slice(), "192.0.2.7"),
        (V2, "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::1 ::1 4660 80\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ] {
        let mut talk = Talk::to(&proxy.url).await;
        // Byte by byte: headers come in pieces.
        for byte in header {
            talk.stream.write_all(&[*byte]).await.expect("an open socket");
        }
        talk.send("GET /nowhere HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 203.0.113.9\r\n\r\n").await;
        assert_eq!(talk.message().await.expect("an answer").status(), 404);
        let told = stand_in.requests().last().expect("a request").headers["x-forwarded-for"].clone();
        // Of the client itself no word is believed; the proxy itself may pass one on.
        let expected = if expected == "127.0.0.1" { "203.0.113.9, 127.0.0.1" } else { expected };
        assert_eq!(told, expected, "{header:?}");
    }
    let mut talk = Talk::to(&proxy.url).await;
    talk.send("GET /nowhere HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(talk.rest().await.is_empty(), "a trusted proxy must say it first");
    assert!(proxy.metric("anteroom_connection_errors_total{kind=\"proxy_protocol\"}").await > 0.5);

    let elsewhere = "listen.proxy_protocol = true\nlisten.trusted_proxies = [\"192.0.2.0/24\"]";
    let proxy = Proxy::start(&stand_in, elsewhere).await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send(format!("PROXY TCP4 192.0.2.7 127.0.0.1 4660 80\r\n{}", list("visitor-a"))).await;
    assert_eq!(talk.message().await.expect("an answer").status(), 400, "a stranger's is no request");
    assert_eq!(get(&proxy.list_url("visitor-a")).await.status, 200, "who is not trusted is served without");
}

#[tokio::test]
async fn idle_connections_make_room_and_busy_ones_stay() {
    let (stand_in, proxy) = both("limits.connections = 3").await;
    let mut first = Talk::to(&proxy.url).await;
    first.send(list("visitor-a")).await;
    first.message().await.expect("an answer");
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.push(Talk::to(&proxy.url).await);
    }
    let mut client = Talk::to(&proxy.url).await;
    client.send(list("visitor-a")).await;
    assert_eq!(client.message().await.expect("room was made").status(), 200);
    for mut talk in idle.into_iter().take(7) {
        assert!(talk.rest().await.is_empty(), "the ones before are closed");
    }
    // All three are busy now.
    let gate = stand_in.hold(anteroom_stand_in::Point::BeforeReading, anteroom_stand_in::Matcher::any());
    let mut busy = Vec::new();
    for (count, source) in [(1, "visitor-b"), (2, "visitor-c"), (3, "visitor-d")] {
        let mut talk = Talk::to(&proxy.url).await;
        talk.send(list(source)).await;
        gate.arrived(count).await;
        busy.push(talk);
    }
    let mut refused = Talk::to(&proxy.url).await;
    refused.send(list("visitor-a")).await;
    assert!(refused.message().await.is_none(), "no room can be made");
    assert!(proxy.metric("anteroom_connection_errors_total{kind=\"too_many\"}").await > 0.5);
    gate.release_all();
    for mut talk in busy {
        assert!(talk.message().await.is_some_and(|answer| answer.whole), "others notice nothing");
    }
}

#[tokio::test]
async fn an_address_has_a_limit_of_its_own_unless_it_is_a_trusted_proxy() {
    for (trusted, expected) in [("", 2), ("listen.trusted_proxies = [\"127.0.0.1\"]", 4)] {
        let more = format!("limits.connections_per_address = 2\n{trusted}");
        let (stand_in, proxy) = both(&more).await;
        let gate = stand_in.hold(anteroom_stand_in::Point::BeforeReading, anteroom_stand_in::Matcher::any());
        let (mut talks, mut served) = (Vec::new(), 0);
        for source in ["visitor-a", "visitor-b", "visitor-c", "visitor-d"] {
            let mut talk = Talk::to(&proxy.url).await;
            talk.send(list(source)).await;
            if served < expected {
                served += 1;
                gate.arrived(served).await;
            }
            talks.push(talk);
        }
        gate.release_all();
        let mut answered = 0;
        for mut talk in talks {
            answered += usize::from(talk.message().await.is_some());
        }
        assert_eq!(answered, expected, "{trusted}");
    }
}

/// With few descriptors: a stranger's idle connections take neither the private listener nor the upstream away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_with_many_idle_connections_take_no_descriptor_that_is_needed() {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let program = Program::serve(&stand_in.url(), "").await;
    let limited = Command::new("prlimit").args(["--nofile=64:64", "--pid", &program.id().to_string()]).status().await;
    assert!(limited.expect("prlimit is a program").success());
    // The limit is read at the start: a process that takes over has it from the start.
    let next = program.take_over().await;
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(Talk::to(&program.url).await);
    }
    for round in 0..20 {
        assert_eq!(get(&format!("{}/ready", program.admin)).await.status, 200, "round {round}");
        let source = ["visitor-a", "visitor-b", "visitor-c"][round % 3];
        let answer = get(&format!("{}{}?round={round}", program.url, StandIn::list_path(source))).await;
        assert_eq!(answer.status, 200, "round {round}");
    }
    drop(idle);
    Program::end(next).await;
}

/// Reads without an end; gives how many reads were made and how many failed.
async fn load(url: String, over: Arc<AtomicBool>, reads: Arc<AtomicUsize>, failed: Arc<AtomicUsize>) {
    while !over.load(Ordering::Relaxed) {
        let mut talk = Talk::to(&url).await;
        // A client of HTTP/1.1: it goes on until it is told that this was the last answer.
        loop {
            talk.send(list("visitor-a")).await;
            reads.fetch_add(1, Ordering::Relaxed);
            let Some(answer) = talk.message().await.filter(|answer| answer.whole && answer.status() == 200) else {
                failed.fetch_add(1, Ordering::Relaxed);
                break;
            };
            if answer.field("connection") == Some("close") || over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_takes_over_and_no_request_fails() {
    let restarts = std::env::var("RESTARTS").map_or(3, |count| count.parse().expect("a number"));
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let program = Program::serve(&stand_in.url(), "drain.notice = \"300ms\"").await;
    let (over, [reads, failed]) = (Arc::new(AtomicBool::new(false)), [const { AtomicUsize::new(0) }; 2].map(Arc::new));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(program.url.clone(), over.clone(), reads.clone(), failed.clone()))).collect();
    let mut current = program.id();
    for _ in 0..restarts {
        current = program.take_over_from(current).await;
        let before = reads.load(Ordering::Relaxed);
        while reads.load(Ordering::Relaxed) < before + 100 {
            tokio::task::yield_now().await;
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("no panic");
    }
    println!("{restarts} restarts, {} reads, {} failed", reads.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    Program::end(current).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_cannot_start_changes_nothing() {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let program = Program::serve(&stand_in.url(), "").await;
    program.write_settings("cache.ttl = \"nonsense\"");
    program.signal("USR2").await;
    program.wait_for_stderr("no new process has taken over").await;
    assert_eq!(get(&format!("{}{}", program.url, StandIn::list_path("visitor-a"))).await.status, 200);
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_used() {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("an address");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.args(["serve", "--upstream", &stand_in.url(), "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:1"]);
    command.env("LISTEN_FDS", "1").stdout(Stdio::piped()).stderr(Stdio::null());
    let mapping = command_fds::FdMapping { parent_fd: listener.into(), child_fd: 3 };
    command_fds::CommandFdExt::fd_mappings(&mut command, vec![mapping]).expect("no collision");
    let mut command = Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("the program is built");
    drop(command);
    // Whoever connected before it listened waits in the socket.
    let url = format!("http://{address}{}", StandIn::list_path("visitor-a"));
    let answer = tokio::time::timeout(Duration::from_secs(20), get(&url));
    assert_eq!(answer.await.expect("it serves").status, 200);
    child.start_kill().expect("it runs");
}

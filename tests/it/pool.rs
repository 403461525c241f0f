//! Connections to the upstream that it closes when it likes: what may be sent again is, and nothing else.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anteroom::engine::body::{Body, Resumed};
use anteroom::engine::metrics::Metrics;
use anteroom::engine::upstream::client::Upstream;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::{Proxy, settings};

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"id\":1}";
const CLIENTS: usize = 24;

/// How many requests of each kind: `make chaos-pool` asks for more.
fn requests() -> usize {
    std::env::var("POOL_REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000)
}

/// Small numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// An upstream that leaves a connection after each answer within 8 ms, in order or by a reset; and how often each request
/// was seen.
async fn fickle() -> (Scripted, Arc<Mutex<HashMap<String, usize>>>) {
    let seen: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let noted = seen.clone();
    let upstream = Scripted::start(move |number, mut talk| {
        let seen = noted.clone();
        async move {
            let mut dice = Dice(number as u64 * 2 + 1);
            for _ in 0..8 {
                dice.throw(2);
            }
            let mut patience = Duration::from_secs(60);
            while let Ok(Some(request)) = tokio::time::timeout(patience, talk.message()).await {
                let name = request.field("x-n").expect("a numbered request").to_owned();
                *seen.lock().expect("no panic").entry(name).or_default() += 1;
                talk.send(ANSWER).await;
                patience = Duration::from_micros(dice.throw(8_000));
            }
            if dice.throw(3) == 0 {
                talk.stream.set_zero_linger().expect("an open socket");
            }
        }
    })
    .await;
    (upstream, seen)
}

/// Sends `count` requests by several clients at once, with pauses; gives the numbers of those that were not 200.
async fn send_many(
    proxy: &Proxy,
    method: &'static str,
    path: &'static str,
    body: &'static str,
    count: usize,
) -> Vec<(usize, u16)> {
    let next = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (url, next) = (proxy.url.clone(), next.clone());
            tokio::spawn(async move {
                let mut dice = Dice(client as u64 + 77);
                let mut talk = Talk::to(&url).await;
                let mut failed = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return failed;
                    }
                    let length =
                        if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                    talk.send(format!("{method} {path} HTTP/1.1\r\nhost: h\r\nx-n: {number}\r\n{length}\r\n{body}"))
                        .await;
                    let answer = talk.message().await.expect("an answer");
                    if answer.status() != 200 {
                        failed.push((number, answer.status()));
                    }
                    if dice.throw(3) == 0 {
                        tokio::time::sleep(Duration::from_micros(dice.throw(8_000))).await;
                    }
                }
            })
        })
        .collect();
    let mut failed = Vec::new();
    for client in clients {
        failed.extend(client.await.expect("no panic"));
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_because_the_upstream_closes_idle_connections_at_random() {
    let (upstream, _) = fickle().await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let failed = send_many(&proxy, "GET", "/x", "", requests()).await;
    println!("{} GETs over {} connections, {} failed", requests(), upstream.connections(), failed.len());
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_seen_twice_though_the_upstream_closes_idle_connections_at_random() {
    const WRITE: &str = "/public/api/v1/inboxes/in/contacts/c/conversations/1/messages";
    for path in ["/x", WRITE] {
        let (upstream, seen) = fickle().await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        let failed = send_many(&proxy, "POST", path, r#"{"content":"x"}"#, requests()).await;
        let seen = seen.lock().expect("no panic");
        let unseen = failed.iter().filter(|(number, _)| !seen.contains_key(&number.to_string())).count();
        println!(
            "{} POSTs over {} connections, {} failed, {unseen} of them unseen",
            requests(),
            upstream.connections(),
            failed.len()
        );
        assert!(seen.values().all(|times| *times == 1), "sent twice");
        // The connection broke; nothing hung.
        assert!(failed.iter().all(|(_, status)| *status == 502), "{failed:?}");
    }
}

/// The first answer of each connection comes; the second request on it is read, and the connection ends without a byte.
async fn second_request_unanswered(reset: bool) -> Scripted {
    Scripted::start(move |_, mut talk| async move {
        if talk.message().await.is_some() {
            talk.send(ANSWER).await;
        }
        talk.message().await;
        if reset {
            talk.stream.set_zero_linger().expect("an open socket");
        }
    })
    .await
}

#[tokio::test]
async fn a_get_meets_one_closed_connection_at_most_however_many_lie_in_the_pool() {
    for reset in [false, true] {
        let upstream = second_request_unanswered(reset).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        let many: Vec<_> = (0..8)
            .map(|_| {
                let url = proxy.url.clone();
                tokio::spawn(async move { exchange(&url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.status() })
            })
            .collect();
        for one in many {
            assert_eq!(one.await.expect("no panic"), 200);
        }
        for _ in 0..8 {
            let answer = exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
            assert_eq!(answer.status(), 200, "reset: {reset}");
        }
    }
}

#[tokio::test]
async fn a_write_that_was_sent_is_not_sent_again() {
    for (method, body) in
        [("POST", "content-length: 2\r\n\r\n{}"), ("DELETE", "\r\n"), ("PUT", "content-length: 2\r\n\r\n{}")]
    {
        let upstream = second_request_unanswered(false).await;
        let proxy = Proxy::in_front_of(&upstream.url(), "").await;
        assert_eq!(exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.status(), 200);
        let answer = exchange(&proxy.url, format!("{method} /x HTTP/1.1\r\nhost: h\r\n{body}")).await;
        assert_eq!(answer.status(), 502, "{method}");
        assert_eq!(upstream.connections(), 1, "{method}");
    }
}

/// A client whose one pooled connection has just been reset, which it cannot know before it writes.
async fn over_a_reset_connection() -> (Upstream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let upstream = Upstream::new(settings(&url, "").upstream, Arc::new(Metrics::new())).expect("a client");
    let first = ask(&upstream, "GET", Body::empty());
    let (status, stream) = tokio::join!(first, async {
        let mut talk = Talk::new(accept(&listener).await);
        talk.message().await.expect("a request");
        talk.send(ANSWER).await;
        talk.stream
    });
    assert_eq!(status, Some(200));
    for _ in 0..10 {
        // The connection goes back into the pool.
        tokio::task::yield_now().await;
    }
    stream.set_zero_linger().expect("an open socket");
    drop(stream);
    (upstream, listener)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.expect("a connection").0
}

async fn ask(upstream: &Upstream, method: &str, body: Body) -> Option<u16> {
    let uri = upstream.base().join("/x").expect("a path");
    let request = Request::builder().method(method).uri(uri).body(body).expect("a request");
    let response = upstream.send(request).await.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a whole body");
    Some(status)
}

#[tokio::test]
async fn a_write_of_which_no_byte_could_be_sent_goes_out_once_and_whole() {
    let long: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    for (method, parts) in [("POST", ["{\"content\":", "\"x\"}"]), ("DELETE", ["", ""]), ("PATCH", [long, long])] {
        let (upstream, listener) = over_a_reset_connection().await;
        let [first, rest] = parts.map(|part| Bytes::from_static(part.as_bytes()));
        let body = if first.is_empty() { Body::empty() } else { Body::stream(Resumed::new(first, Body::from(rest))) };
        let (status, received) = tokio::join!(ask(&upstream, method, body), async {
            let mut talk = Talk::new(accept(&listener).await);
            let request = talk.message().await.expect("a request");
            talk.send(ANSWER).await;
            request
        });
        assert_eq!(status, Some(200), "{method}");
        assert_eq!(received.body, parts.concat().as_bytes(), "{method}");
        let url = upstream.base().authority.as_str();
        assert_eq!(received.field("host"), Some(url), "{method}");
    }
}

/// The upstream says 413 after the head and leaves, with the body unread: that resets the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_refused_early_always_hears_the_refusal() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig").await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let body = "x".repeat(1 << 20);
    for round in 0..100 {
        let request = format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let answer = exchange(&proxy.url, request).await;
        assert_eq!((answer.status(), answer.text()), (413, "big"), "round {round}");
    }
}

#[tokio::test]
async fn requests_one_after_another_take_one_connection_whatever_is_asked_and_answered() {
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let upstream = Scripted::start(|_, mut talk| async move {
        while let Some(request) = talk.message().await {
            let answer = match request.start_line() {
                line if line.contains("/chunks") => CHUNKS,
                line if line.contains("/empty") => "HTTP/1.1 204 No Content\r\n\r\n",
                line if line.starts_with("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n",
                _ => ANSWER,
            };
            talk.send(answer).await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for _ in 0..2 {
        for (method, path, status) in [
            ("GET", "/x", 200),
            ("HEAD", "/x", 200),
            ("GET", "/chunks", 200),
            ("POST", "/x", 200),
            ("DELETE", "/empty", 204),
            ("POST", "/chunks", 200),
            ("GET", "/empty", 204),
            ("PUT", "/empty", 204),
        ] {
            let body = if matches!(method, "POST" | "PUT") { "content-length: 2\r\n\r\n{}" } else { "\r\n" };
            let answer = exchange(&proxy.url, format!("{method} {path} HTTP/1.1\r\nhost: h\r\n{body}")).await;
            assert_eq!(answer.status(), status, "{method} {path}");
            assert!(answer.whole || method == "HEAD", "{method} {path}");
            assert_eq!(upstream.connections(), 1, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_connection_that_lies_idle_for_too_long_or_is_closed_by_the_upstream_is_closed() {
    for (settings, closes) in [("upstream.pool_idle = \"200ms\"", false), ("upstream.pool_idle = \"1h\"", true)] {
        let ended = Arc::new(tokio::sync::Notify::new());
        let tell = ended.clone();
        let upstream = Scripted::start(move |_, mut talk| {
            let tell = tell.clone();
            async move {
                talk.message().await;
                talk.send(ANSWER).await;
                if closes {
                    tokio::io::AsyncWriteExt::shutdown(&mut talk.stream).await.expect("an open socket");
                }
                assert!(talk.message().await.is_none());
                tell.notify_one();
            }
        })
        .await;
        let proxy = Proxy::in_front_of(&upstream.url(), settings).await;
        assert_eq!(exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.status(), 200);
        tokio::time::timeout(Duration::from_secs(60), ended.notified()).await.expect("the connection ends");
    }
}

/// A client that sends all of its request before it reads any of the answer, and an upstream that answers before it reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_while_nobody_reads_its_answer() {
    const LONG: usize = 8 << 20;
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        let (mut read, mut write) = talk.stream.split();
        let answer = async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LONG}\r\n\r\n");
            tokio::io::AsyncWriteExt::write_all(&mut write, head.as_bytes()).await.expect("a reader");
            tokio::io::AsyncWriteExt::write_all(&mut write, &vec![b'x'; LONG]).await.expect("a reader");
        };
        let upload = async {
            let mut waste = vec![0; 64 * 1024];
            while matches!(tokio::io::AsyncReadExt::read(&mut read, &mut waste).await, Ok(1..)) {}
        };
        tokio::join!(answer, upload);
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send(format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {LONG}\r\n\r\n")).await;
    let sent = tokio::time::timeout(Duration::from_secs(20), talk.send(vec![b'y'; LONG])).await;
    sent.expect("the upload does not wait for its answer to be read");
    let answer = talk.message().await.expect("an answer");
    assert_eq!((answer.status(), answer.body.len()), (200, LONG));
}

/// Two requests at once over one connection that is free: a second one is made, and kept though the first was free sooner.
#[tokio::test]
async fn a_connection_that_came_too_late_is_for_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let (count, may_connect) = (made.clone(), Arc::new(tokio::sync::Semaphore::new(1)));
    let connects = may_connect.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (count, connects) = (count.clone(), connects.clone());
        Box::pin(async move {
            count.fetch_add(1, Ordering::SeqCst);
            connects.acquire().await.unwrap().forget();
            Ok::<_, io::Error>(TokioIo::new(TcpStream::connect(address).await?))
        })
    });
    let url = format!("http://{address}");
    let upstream = Arc::new(Upstream::over(connector, settings(&url, "").upstream, Arc::new(Metrics::new())));
    let answered = Arc::new(Mutex::new(Vec::new()));
    let seen = answered.clone();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, seen) = (accept(&listener).await, seen.clone());
            tokio::spawn(async move {
                let mut talk = Talk::new(stream);
                while talk.message().await.is_some() {
                    seen.lock().unwrap().push(number);
                    talk.send(ANSWER).await;
                }
            });
        }
    });
    // The second one takes the first one's connection, since its own is not let in.
    let both = || async { tokio::join!(ask(&upstream, "GET", Body::empty()), ask(&upstream, "GET", Body::empty())) };
    both().await;
    assert_eq!((made.load(Ordering::SeqCst), answered.lock().unwrap().clone()), (2, vec![0, 0]));
    may_connect.add_permits(1);
    // When it is there, both are used, and no third is made.
    let used = async {
        while !answered.lock().unwrap().contains(&1) {
            both().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), used).await.expect("the second connection is kept");
}

/// A stream whose first read gives nothing of the answer, as that of a TLS session ticket does: it takes a turn of a channel.
struct Ticketed {
    stream: TokioIo<TcpStream>,
    ticket: Option<mpsc::UnboundedReceiver<()>>,
}

impl Read for Ticketed {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if let Some(ticket) = &mut self.ticket {
            ready!(ticket.poll_recv(context));
            self.ticket = None;
        }
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl Write for Ticketed {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connection for Ticketed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// tokio lets a task go on with 128 things that are ready; then all say once that they are not. Wherever in the sending of a
/// request that happens, it is sent and answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_request_is_answered_wherever_in_it_its_task_has_to_let_others_go_on() {
    const READY: usize = 128;
    // In a task: what a test waits for by itself has no such limit.
    let asking = tokio::spawn(async {
        for used in READY - 28..READY {
            let upstream = Scripted::start(|_, mut talk| async move {
                while talk.message().await.is_some() {
                    talk.send(ANSWER).await;
                }
            })
            .await;
            let stream = TcpStream::connect(upstream.url().strip_prefix("http://").expect("a URL")).await;
            let (issue, ticket) = mpsc::unbounded_channel();
            issue.send(()).expect("it is read");
            let stream = Ticketed { stream: TokioIo::new(stream.expect("it listens")), ticket: Some(ticket) };
            let once = Arc::new(Mutex::new(Some(stream)));
            let connector = tower::service_fn(move |_: http::Uri| {
                std::future::ready(once.lock().expect("no panic").take().ok_or(io::Error::other("once")))
            });
            let upstream = Upstream::over(connector, settings(&upstream.url(), "").upstream, Arc::new(Metrics::new()));
            let (give, mut given) = mpsc::unbounded_channel();
            (0..READY).for_each(|_| give.send(()).expect("it is read"));
            tokio::task::yield_now().await;
            for _ in 0..used {
                given.recv().await;
            }
            let asked = ask(&upstream, "POST", Body::from(Bytes::from_static(b"{}")));
            let answered = tokio::time::timeout(Duration::from_secs(20), asked).await;
            assert_eq!(answered, Ok(Some(200)), "after {used} others");
        }
    });
    asking.await.expect("each is answered");
}

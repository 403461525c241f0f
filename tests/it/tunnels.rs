//! WebSockets: tied together once the upstream agrees, and ended on purpose.

use std::time::Duration;

use anteroom::server::listeners::Drained;
use anteroom_stand_in::{Options, StandIn};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::child::Program;
use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::{Proxy, jump, post, settings};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub const HANDSHAKE: &str = "GET /cable HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub async fn open(proxy_url: &str) -> Socket {
    let url = format!("{}/cable", proxy_url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "actioncable-v1-json".parse().unwrap());
    let (socket, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "actioncable-v1-json");
    socket
}

/// The next frame that is not a ping of the cable's.
pub async fn next(socket: &mut Socket) -> Value {
    loop {
        let frame = socket.next().await.expect("it goes on").expect("a frame");
        let Message::Text(text) = frame else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        if value["type"] != "ping" {
            return value;
        }
    }
}

#[tokio::test]
async fn a_subscriber_hears_of_a_message_through_the_proxy() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let mut socket = open(&proxy.url).await;
    assert_eq!(next(&mut socket).await["type"], "welcome");
    let channel = json!({ "channel": "RoomChannel", "pubsub_token": stand_in.pubsub_token("visitor-a") }).to_string();
    let subscribe = json!({ "command": "subscribe", "identifier": channel });
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    assert_eq!(next(&mut socket).await["type"], "confirm_subscription");
    assert_eq!(next(&mut socket).await["message"]["event"], "presence.update");
    let conversation = stand_in.conversation_ids("visitor-a")[0];
    let messages = format!("{}/{conversation}/messages", proxy.list_url("visitor-a"));
    post(&messages, "{\"content\":\"Hello\"}").await;
    let heard = next(&mut socket).await;
    assert_eq!(
        (&heard["message"]["event"], &heard["message"]["data"]["content"]),
        (&json!("message.created"), &json!("Hello"))
    );
    assert!((proxy.metric("anteroom_tunnels").await - 1.0).abs() < 0.1);
    socket.close(None).await.unwrap();
    drop(socket);
    proxy.wait_for_metric("anteroom_tunnels", 0.0).await;
    proxy.wait_for_metric("anteroom_upstream_in_flight", 0.0).await;
}

#[tokio::test]
async fn what_the_client_sends_early_waits_for_the_upstreams_word() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (allow, allowed) = tokio::sync::watch::channel(false);
    let upstream = Scripted::start(move |_, mut talk| {
        let (told, mut allowed) = (told.clone(), allowed.clone());
        async move {
            let head = talk.head().await.unwrap();
            let _ = told.send(head);
            // Nothing more may come before the answer.
            tokio::select! {
                early = talk.exactly(1) => panic!("{early:?} came early"),
                _ = allowed.wait_for(|allowed| *allowed) => {}
            }
            talk.send(format!("{SWITCHED}hello")).await;
            let early = talk.exactly(5).await.unwrap();
            let _ = told.send(String::from_utf8(early).unwrap());
            talk.send("bye").await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(format!("{HANDSHAKE}early")).await;
    let head = seen.recv().await.unwrap().to_lowercase();
    for field in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: dghlihnhbxbszsbub25jzq=="] {
        assert!(head.contains(field), "{field} in {head}");
    }
    // The bytes have long been with the proxy when another exchange through it is over.
    let mut other = Talk::to(&proxy.url).await;
    other.send("TRACE / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    other.message().await.unwrap();
    allow.send_replace(true);
    let answer = client.head().await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("upgrade: websocket") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.exactly(5).await.unwrap(), b"hello");
    assert_eq!(seen.recv().await.unwrap(), "early");
    assert_eq!(client.rest().await, b"bye");
}

#[tokio::test]
async fn a_refused_handshake_passes_as_it_is() {
    let refusal = "HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\nx-why: no\r\n\r\nno room";
    let upstream = Scripted::answering(refusal).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let answer = exchange(&proxy.url, HANDSHAKE).await;
    assert_eq!((answer.status(), answer.text(), answer.field("x-why")), (404, "no room", Some("no")));
    assert_eq!((answer.field("upgrade"), answer.field("connection")), (None, None));
    let gone = Proxy::in_front_of("http://127.0.0.1:9", "").await;
    assert_eq!(exchange(&gone.url, HANDSHAKE).await.status(), 502);
}

#[tokio::test]
async fn only_a_get_with_both_fields_is_a_handshake() {
    let upstream = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for request in [
        HANDSHAKE.replacen("GET", "POST", 1),
        HANDSHAKE.replacen("connection: keep-alive, Upgrade\r\n", "", 1),
        HANDSHAKE.replacen("WebSocket", "h2c", 1),
    ] {
        assert_eq!(exchange(&proxy.url, &request).await.text(), "ok");
        assert_eq!(
            (upstream.last_request().field("upgrade"), upstream.last_request().field("connection")),
            (None, None)
        );
    }
}

#[tokio::test]
async fn the_drain_ends_tunnels() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let mut socket = open(&proxy.url).await;
    assert_eq!(next(&mut socket).await["type"], "welcome");
    assert_eq!(proxy.stop().await, Drained::Whole);
    let end = loop {
        match socket.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, None | Some(Err(Error::Protocol(_) | Error::Io(_)))), "{end:?}");
}

#[tokio::test]
async fn a_tunnel_that_is_silent_both_ways_ends() {
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            talk.head().await;
            talk.send(format!("{SWITCHED}a")).await;
            assert_eq!(talk.exactly(1).await.unwrap(), b"b");
            let _ = told.send(talk.rest().await);
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    assert_eq!(client.exactly(1).await.unwrap(), b"a");
    jump(Duration::from_secs(40)).await;
    // A byte either way, and the silence begins anew.
    client.send("b").await;
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    jump(Duration::from_secs(40)).await;
    assert!((proxy.metric("anteroom_tunnels").await - 1.0).abs() < 0.1);
    jump(Duration::from_secs(20)).await;
    assert_eq!(ended.recv().await.unwrap(), b"");
    assert_eq!(client.rest().await, b"");
    proxy.wait_for_metric("anteroom_tunnels", 0.0).await;
}

#[tokio::test]
async fn an_end_of_sending_passes_and_the_other_way_stays_open() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send(SWITCHED).await;
        let asked = talk.rest().await;
        talk.send(asked).await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    client.send("question").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"question");
}

#[tokio::test]
async fn an_end_of_the_upstreams_sending_passes_and_the_client_may_go_on() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            talk.head().await;
            talk.send(format!("{SWITCHED}that is all")).await;
            talk.stream.shutdown().await.unwrap();
            let _ = told.send(talk.rest().await);
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    assert_eq!(client.rest().await, b"that is all");
    assert!((proxy.metric("anteroom_tunnels").await - 1.0).abs() < 0.1);
    client.send("not for me").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), b"not for me");
    proxy.wait_for_metric("anteroom_tunnels", 0.0).await;
}

/// What says yes before it is asked is tied to whom it said it to, or to nobody: 502, and no byte of it is anybody else's.
#[tokio::test]
async fn an_upstream_that_switches_before_it_was_asked_hangs_nobody() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.send(format!("{SWITCHED}early")).await;
        talk.rest().await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for _ in 0..20 {
        let mut client = Talk::to(&proxy.url).await;
        client.send(HANDSHAKE).await;
        let answer = client.head().await.expect("an answer");
        if answer.starts_with("HTTP/1.1 101 ") {
            assert_eq!(client.exactly(5).await.unwrap(), b"early");
        } else {
            assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        }
        drop(client);
        // Whoever asks for something else gets nothing of it.
        assert_eq!(exchange(&proxy.url, "GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.status(), 502);
    }
    proxy.wait_for_metric("anteroom_tunnels", 0.0).await;
}

#[tokio::test]
async fn a_reload_does_not_touch_tunnels() {
    let echo = || {
        Scripted::start(|number, mut talk| async move {
            talk.head().await;
            talk.send(format!("{SWITCHED}{number}")).await;
            while let Some(byte) = talk.exactly(1).await {
                talk.send(byte).await;
            }
        })
    };
    let (before, after) = (echo().await, echo().await);
    let proxy = Proxy::in_front_of(&before.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    assert_eq!(client.exactly(1).await.unwrap(), b"0");
    for more in ["", "cable.observe = false\nupstream.stall_timeout = \"1s\"\ncache.ttl = \"1s\""] {
        proxy.state.reload(settings(&after.url(), more)).expect("good settings");
        client.send("x").await;
        assert_eq!(client.exactly(1).await.unwrap(), b"x");
    }
    assert_eq!((before.connections(), after.connections()), (1, 0));
    let mut new = Talk::to(&proxy.url).await;
    new.send(HANDSHAKE).await;
    new.head().await.unwrap();
    assert_eq!(after.connections(), 1, "who comes now is led where the settings say");
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"");
}

/// Sends until nothing is taken any more and the connection ends; gives how much was taken.
async fn pour(stream: &mut TcpStream) -> usize {
    let piece = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    while let Ok(written) = stream.write(&piece).await {
        taken += written;
    }
    taken
}

/// What the sockets of two connections may hold on their way: four buffers of the system, which grow up to 6 MiB.
const IN_SOCKETS: usize = 24 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_a_tunnel_makes_the_other_side_wait_and_holds_no_memory() {
    const TUNNELS: usize = 24;
    for client_pours in [false, true] {
        let (told, mut poured) = tokio::sync::mpsc::unbounded_channel();
        let upstream = Scripted::start(move |_, mut talk| {
            let told = told.clone();
            async move {
                talk.head().await;
                talk.send(SWITCHED).await;
                if client_pours {
                    // Open, and not read.
                    std::future::pending::<()>().await;
                }
                let _ = told.send(pour(&mut talk.stream).await);
            }
        })
        .await;
        let settings = "log.format = \"json\"\nupstream.stall_timeout = \"1s\"\ndrain.notice = \"0s\"\n";
        let mut program = Program::serve(&upstream.url(), settings).await;
        let before = program.memory("VmRSS");
        let mut clients = Vec::new();
        let mut pouring = Vec::new();
        for _ in 0..TUNNELS {
            let mut client = Talk::to(&program.url).await;
            client.send(HANDSHAKE).await;
            assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
            if client_pours {
                pouring.push(tokio::spawn(async move { pour(&mut client.stream).await }));
            } else {
                clients.push(client);
            }
        }
        // Nothing moves for a second, so each ends; who pours hears of it.
        program.wait_for_metric("anteroom_tunnels", |open| open < 0.5).await;
        for _ in 0..TUNNELS {
            let poured =
                if client_pours { pouring.pop().unwrap().await.unwrap() } else { poured.recv().await.unwrap() };
            assert!((1..IN_SOCKETS).contains(&poured), "{poured} bytes were taken");
        }
        let grown = program.memory("VmHWM").saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes more, at most, for {TUNNELS} tunnels");
        program.signal("TERM").await;
        program.ended().await;
        let log = program.stderr();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let ended: Vec<_> = lines.iter().filter(|line| line["detail"] == "tunnel-ended").collect();
        assert_eq!(ended.len(), TUNNELS);
        for line in ended {
            let way = if client_pours { "received" } else { "sent" };
            assert!(line[way].as_u64().unwrap() > 0 && line["duration_ms"].as_f64().unwrap() >= 1000.0, "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_reader_gets_of_a_tunnel_is_whole() {
    const LENGTH: u32 = 32 << 20;
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send(SWITCHED).await;
        for piece in 0..LENGTH / 4096 {
            talk.send((0..1024).flat_map(|word| (piece * 1024 + word).to_be_bytes()).collect::<Vec<u8>>()).await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    for word in 0..LENGTH / 4 {
        if word % (1 << 20) == 0 {
            // Others are served while this one takes his time.
            let mut other = Talk::to(&proxy.url).await;
            other.send("TRACE / HTTP/1.1\r\nhost: h\r\n\r\n").await;
            assert_eq!(other.message().await.unwrap().status(), 405);
        }
        if word % 1024 == 0 {
            let page = client.exactly(4096).await.unwrap();
            let expected: Vec<u8> = (word..word + 1024).flat_map(u32::to_be_bytes).collect();
            assert!(page == expected, "at word {word}");
        }
    }
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn the_drain_waits_for_nobody_who_does_not_read() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send(SWITCHED).await;
        pour(&mut talk.stream).await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut client = Talk::to(&proxy.url).await;
    client.send(HANDSHAKE).await;
    client.head().await.unwrap();
    // More than a first byte is on its way.
    client.exactly(1 << 20).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), proxy.stop()).await.expect("it ends");
    assert_eq!(stopped, Drained::Whole);
}

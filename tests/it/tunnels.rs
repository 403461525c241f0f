//! WebSockets: tied together once the upstream agrees, and ended on purpose.

use std::time::Duration;

use anteroom::server::listeners::Drained;
use anteroom_stand_in::{Options, StandIn};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::{Proxy, jump, post};

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
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.rest().await, b"question");
}

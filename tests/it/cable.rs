//! Events that pass through WebSockets (`cable.observe`): whoever hears of a change and asks for the list gets it.

use std::time::Duration;

use anteroom::engine::metrics::InvalidationSource;
use anteroom::engine::tunnel;
use anteroom::policy::coherence::event::{Event, Touched, of_cable};
use anteroom::policy::coherence::ledger::{Scope, Tick};
use anteroom_stand_in::{INBOX, Matcher, Options, Point, Shape, StandIn};
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::child::Program;
use crate::support::raw::{Scripted, Talk};
use crate::support::script::{Script, json as json_answer};
use crate::support::{Proxy, both, get, is_up_to_date, post, spawn};
use crate::tunnels::{HANDSHAKE, SWITCHED, Socket, next, open};

const A: &str = "visitor-a";
const OBSERVED: &str = "cable.observe = true";

fn messages(result: &str) -> String {
    format!("anteroom_cable_messages_total{{result=\"{result}\"}}")
}

/// A subscription through the proxy that has been confirmed.
pub async fn subscribed(stand_in: &StandIn, proxy: &Proxy, source: &str) -> Socket {
    subscribed_at(stand_in, &proxy.url, source).await
}

async fn subscribed_at(stand_in: &StandIn, url: &str, source: &str) -> Socket {
    let mut socket = open(url).await;
    let channel = json!({ "channel": "RoomChannel", "pubsub_token": stand_in.pubsub_token(source) }).to_string();
    let subscribe = json!({ "command": "subscribe", "identifier": channel });
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    hear(&mut socket, "presence.update").await;
    socket
}

/// Waits for an event.
pub async fn hear(socket: &mut Socket, event: &str) -> Value {
    loop {
        let heard = next(socket).await;
        if heard["message"]["event"] == event {
            return heard;
        }
    }
}

async fn is_a_hit(proxy: &Proxy, source: &str) {
    proxy.list(source).await;
    let list = proxy.list(source).await;
    assert!(list.is_hit(), "{}", list.cache_status());
}

fn conversations(conversations: usize) -> Shape {
    Shape { conversations, messages: 1, bytes: 10 }
}

#[tokio::test]
async fn whoever_hears_of_a_change_gets_it_with_the_list() {
    let (stand_in, proxy) = both(OBSERVED).await;
    let mut socket = subscribed(&stand_in, &proxy, A).await;
    // The welcome, the confirmation, who is there.
    assert!((proxy.metric(&messages("no_change")).await - 3.0).abs() < 0.1);
    for round in 0..40 {
        is_a_hit(&proxy, A).await;
        let asked = stand_in.list_requests(A);
        if round % 4 == 3 {
            stand_in.agent_toggle_status(A);
            hear(&mut socket, "conversation.status_changed").await;
        } else {
            stand_in.agent_message(A, &format!("message {round}"));
            let heard = hear(&mut socket, "message.created").await;
            assert_eq!(heard["message"]["data"]["content"], format!("message {round}"));
        }
        is_up_to_date(&stand_in, &proxy, A).await;
        assert_eq!(stand_in.list_requests(A), asked + 1);
        if round % 4 == 3 {
            hear(&mut socket, "conversation.updated").await;
        }
    }
    assert!((proxy.metric(&messages("outdated")).await - 50.0).abs() < 0.1);
    assert!((proxy.metric("anteroom_invalidations_total{source=\"cable\"}").await - 50.0).abs() < 0.1);
    assert!(proxy.metric(&messages("not_understood")).await < 0.1);
}

#[tokio::test]
async fn told_not_to_the_proxy_does_not_listen() {
    let (stand_in, proxy) = both("cable.observe = false").await;
    let mut socket = subscribed(&stand_in, &proxy, A).await;
    is_a_hit(&proxy, A).await;
    stand_in.agent_message(A, "nobody tells the proxy");
    hear(&mut socket, "message.created").await;
    assert!(proxy.list(A).await.is_hit());
    for result in ["outdated", "no_change", "not_understood"] {
        assert!(proxy.metric(&messages(result)).await < 0.1);
    }
}

#[tokio::test]
async fn the_proxy_never_subscribes_by_itself() {
    let (stand_in, proxy) = both(OBSERVED).await;
    is_a_hit(&proxy, A).await;
    assert!(stand_in.requests().iter().all(|seen| !seen.target.contains("cable")));
    drop(open(&proxy.url).await);
    let sockets = stand_in.requests().iter().filter(|seen| seen.target.contains("cable")).count();
    assert_eq!(sockets, 1);
}

/// As `i24`, with the event where it really comes from.
#[tokio::test]
async fn i24_a_list_that_was_being_fetched_when_the_event_passed_is_for_earlier_readers_only() {
    let (stand_in, proxy) = both(OBSERVED).await;
    let mut socket = subscribed(&stand_in, &proxy, A).await;
    let reading = || {
        let url = proxy.list_url(A);
        spawn(async move { get(&url).await })
    };
    for someone_reads_meanwhile in [false, true] {
        let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(A));
        let early = reading();
        gate.arrived(1).await;
        let before = stand_in.list_body(A);
        stand_in.agent_message(A, "while filling");
        hear(&mut socket, "message.created").await;
        if someone_reads_meanwhile {
            let late = reading();
            // It does not join: a second fetch begins while the first is under way.
            gate.arrived(2).await;
            gate.release_all();
            assert!(late.await.unwrap().body == stand_in.list_body(A));
        }
        gate.release_all();
        assert!(early.await.unwrap().body == before, "it was asked before the event");
        is_up_to_date(&stand_in, &proxy, A).await;
        is_a_hit(&proxy, A).await;
        is_up_to_date(&stand_in, &proxy, A).await;
        stand_in.agent_message(A, "in between");
        hear(&mut socket, "message.created").await;
    }
}

#[tokio::test]
async fn a_verified_contact_gets_what_it_hears_through_its_other_source() {
    let (stand_in, proxy) = both(OBSERVED).await;
    stand_in.attach(A, "phone");
    stand_in.verify(A);
    stand_in.verify("phone");
    let mut socket = subscribed(&stand_in, &proxy, "phone").await;
    for round in 0..10 {
        is_a_hit(&proxy, "phone").await;
        stand_in.agent_message(A, &format!("message {round}"));
        // It names the other source, and no contact.
        let heard = hear(&mut socket, "message.created").await;
        assert_eq!(heard["message"]["data"]["conversation"]["contact_inbox"]["source_id"], A);
        is_up_to_date(&stand_in, &proxy, "phone").await;
    }
    // Of as many conversations as this the list names none.
    stand_in.seed(A, conversations(40));
    for _ in 0..40 {
        hear(&mut socket, "message.created").await;
    }
    is_a_hit(&proxy, "phone").await;
    stand_in.agent_message(A, "one of many");
    hear(&mut socket, "message.created").await;
    is_up_to_date(&stand_in, &proxy, "phone").await;
}

/// Its conversations cannot be named without their account.
#[tokio::test]
async fn an_event_of_a_list_that_shows_no_contact() {
    let script = Script::start(|request| match request.uri().path() {
        path if path.ends_with("/conversations") => {
            json_answer(r#"[{"id":131,"uuid":"u","contact":null,"messages":[]}]"#)
        }
        _ => json_answer(r#"{"source_id":"phone","pubsub_token":"t","id":42}"#),
    })
    .await;
    let proxy = Proxy::in_front_of(&script.url, OBSERVED).await;
    is_a_hit(&proxy, "phone").await;
    let touched = Touched { conversation: Some((7, 131)), ..Touched::default() };
    proxy.state.invalidation.changed(&touched, Event::Other, None, InvalidationSource::Cable);
    assert!(!proxy.list("phone").await.is_hit());
}

/// How the proxy may have come to know whose token it is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Taught {
    /// It looked an empty list's contact up.
    ByLookingUp,
    /// The contact was asked for through it.
    ByAnAnswer,
    /// The contact's second source was created through it.
    ByCreation,
    /// An earlier event named the contact.
    ByAnEvent,
    /// Not at all.
    Never,
}

#[tokio::test]
async fn a_message_in_a_conversation_that_the_list_does_not_have_yet() {
    for taught in [Taught::ByLookingUp, Taught::ByAnAnswer, Taught::ByCreation, Taught::ByAnEvent, Taught::Never] {
        let (stand_in, proxy) = both(OBSERVED).await;
        let owner = if taught == Taught::ByLookingUp { "visitor-c" } else { A };
        if taught == Taught::ByCreation {
            let contacts = proxy.contact_url("").trim_end_matches('/').to_owned();
            post(&contacts, r#"{"source_id":"phone","email":"visitor.a@example.test"}"#).await;
            assert_eq!(stand_in.contact_id("phone"), stand_in.contact_id(A));
        } else {
            stand_in.attach(owner, "phone");
        }
        stand_in.verify(owner);
        stand_in.verify("phone");
        if taught == Taught::ByAnAnswer {
            get(&proxy.contact_url("phone")).await;
        }
        if taught == Taught::ByAnEvent {
            let mut socket = subscribed(&stand_in, &proxy, "phone").await;
            stand_in.agent_toggle_status(owner);
            hear(&mut socket, "conversation.updated").await;
        }
        is_a_hit(&proxy, "phone").await;
        // Opened while nobody listens, as if its event came later than that of its first message.
        stand_in.seed(owner, conversations(1));
        assert!(proxy.list("phone").await.is_hit());
        let mut socket = subscribed(&stand_in, &proxy, "phone").await;
        stand_in.agent_message(owner, "the first");
        hear(&mut socket, "message.created").await;
        let list = proxy.list("phone").await;
        // Without a contact's id there is nothing that the event and the list have in common.
        assert_eq!(list.body == stand_in.list_body("phone"), taught != Taught::Never, "{taught:?}");
        assert_eq!(list.is_hit(), taught == Taught::Never, "{taught:?}");
    }
}

/// A write's answer shows the token of the contact that the source has from then on.
#[tokio::test]
async fn a_write_that_moves_a_source_teaches_whose_its_token_is() {
    let script = Script::start(|request| match request.method().as_str() {
        "GET" => json_answer(r#"[{"id":131,"uuid":"u","contact":{"id":41,"account_id":7},"messages":[]}]"#),
        _ => json_answer(r#"{"source_id":"phone","pubsub_token":"t","id":42}"#),
    })
    .await;
    let proxy = Proxy::in_front_of(&script.url, OBSERVED).await;
    proxy.list("phone").await;
    let patch = http::Request::patch(proxy.contact_url("phone")).body("{}".into()).unwrap();
    crate::support::send(patch).await;
    assert_eq!(proxy.state.invalidation.identities.contact_of_token("t"), Some(42));
}

/// A frame by hand: its first byte, and a payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(u8::try_from(short).unwrap()),
        middle @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

fn event(source: &str) -> String {
    let conversation = json!({ "contact_inbox": { "source_id": source } });
    let data = json!({ "account_id": 7, "conversation_id": 1, "private": false, "conversation": conversation });
    json!({ "identifier": "{}", "message": { "event": "message.created", "data": data } }).to_string()
}

fn is_told(proxy: &Proxy, noted: Tick, source: &str) -> bool {
    let ledger = &proxy.state.invalidation.ledger;
    !ledger.is_current(noted, &[ledger.place(&Scope::Source(source))])
}

/// An upstream whose sockets say this, in pieces of a size, and hold the connection until the client has left.
async fn saying(stream: Vec<u8>, size: usize) -> Scripted {
    Scripted::start(move |_, mut talk| {
        let stream = stream.clone();
        async move {
            talk.head().await;
            talk.send(SWITCHED).await;
            for piece in stream.chunks(size) {
                talk.send(piece).await;
                tokio::task::yield_now().await;
            }
            talk.rest().await;
        }
    })
    .await
}

async fn shaken(proxy: &Proxy, handshake: &str) -> (Talk, String) {
    let mut client = Talk::to(&proxy.url).await;
    client.send(handshake).await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (client, head.to_lowercase())
}

#[tokio::test]
async fn not_a_byte_is_changed_and_what_can_be_read_is_heard() {
    let text = |source: &str| event(source).into_bytes();
    let (one, two) = (text("in fragments"), text("masked"));
    let compressed = frame(0xc1, b"\xca\x48\xcd\xc9\xc9\x07\x00");
    let stream = [
        frame(0x81, br#"{"type":"welcome"}"#),
        frame(0x89, b"ping"),
        frame(0x8a, b""),
        frame(0x81, &text("whole")),
        frame(0x01, &one[..7]),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x80, &one[7..]),
        compressed,
        frame(0x82, &[0xff; 300]),
        frame(0x81, &vec![b' '; 2 << 20]),
        frame(0x81, b"\xff"),
        [&[0x81, 0xfe][..], &u16::try_from(two.len()).unwrap().to_be_bytes(), &[0; 4], &two].concat(),
        frame(0x81, &text("after all that")),
        frame(0x88, b"\x03\xe8bye"),
        frame(0x80, b"a continuation of nothing"),
        frame(0x81, &text("lost")),
        vec![0xff; 100_000],
    ]
    .concat();
    for (observe, size) in [(true, 1 << 24), (true, 1021), (false, 1 << 24)] {
        let upstream = saying(stream.clone(), size).await;
        let proxy = Proxy::in_front_of(&upstream.url(), &format!("cable.observe = {observe}")).await;
        let noted = proxy.state.invalidation.ledger.now();
        let (mut client, _) = shaken(&proxy, HANDSHAKE).await;
        assert!(client.exactly(stream.len()).await.unwrap() == stream, "{size}");
        let expected = if observe { ["whole", "in fragments", "after all that"].map(|_| true) } else { [false; 3] };
        assert_eq!(["whole", "in fragments", "after all that"].map(|source| is_told(&proxy, noted, source)), expected);
        assert_eq!(["masked", "lost"].map(|source| is_told(&proxy, noted, source)), [false; 2]);
        let expected = if observe { [3.0, 1.0, 5.0] } else { [0.0; 3] };
        for (result, expected) in ["outdated", "no_change", "not_understood"].iter().zip(expected) {
            assert!((proxy.metric(&messages(result)).await - expected).abs() < 0.1, "{result}");
        }
        // What the client says was never looked at.
        drop(client);
        proxy.wait_for_metric("anteroom_tunnels", 0.0).await;
    }
}

#[tokio::test]
async fn what_is_no_websocket_passes_too() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send(SWITCHED).await;
        while let Some(asked) = talk.exactly(4).await {
            talk.send([&asked[..], &event("nobody").into_bytes()].concat()).await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), OBSERVED).await;
    let (mut client, _) = shaken(&proxy, HANDSHAKE).await;
    for _ in 0..3 {
        client.send("\u{1}\u{1}\u{1}\u{1}").await;
        let expected = [b"\x01\x01\x01\x01".to_vec(), event("nobody").into_bytes()].concat();
        assert_eq!(client.exactly(expected.len()).await.unwrap(), expected);
    }
    assert!((proxy.metric(&messages("not_understood")).await - 1.0).abs() < 0.1, "once, then it is left alone");
}

#[tokio::test]
async fn an_event_that_comes_byte_by_byte_is_known_with_its_last_byte() {
    let (go_on, going) = tokio::sync::watch::channel(false);
    let stream = frame(0x81, event("slow").as_bytes());
    let (start, last) = (stream[..stream.len() - 1].to_vec(), stream[stream.len() - 1]);
    let length = start.len();
    let upstream = Scripted::start(move |_, mut talk| {
        let (start, mut going) = (start.clone(), going.clone());
        async move {
            talk.head().await;
            talk.send(SWITCHED).await;
            for byte in start {
                talk.send([byte]).await;
                tokio::task::yield_now().await;
            }
            let _ = going.wait_for(|going| *going).await;
            talk.send([last]).await;
            talk.rest().await;
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), OBSERVED).await;
    let noted = proxy.state.invalidation.ledger.now();
    let (mut client, _) = shaken(&proxy, HANDSHAKE).await;
    client.exactly(length).await.unwrap();
    assert!(!is_told(&proxy, noted, "slow"));
    go_on.send_replace(true);
    client.exactly(1).await.unwrap();
    assert!(is_told(&proxy, noted, "slow"));
}

/// A client's side that takes one byte at a time: when it has the first one, all that was read with it has been heard.
#[tokio::test]
async fn no_byte_reaches_the_client_before_it_was_heard() {
    let (mut client, near) = duplex(1);
    let (far, mut upstream) = duplex(1024);
    let (heard, hearing) = (std::sync::Arc::new(std::sync::Mutex::new(Vec::new())), CancellationToken::new());
    let (ear, ended) = (heard.clone(), hearing.clone());
    let tunnel = spawn(async move {
        tunnel::copy(
            near,
            far,
            Duration::from_secs(60),
            ended,
            move |piece| {
                ear.lock().unwrap().extend_from_slice(piece);
                false
            },
            || std::future::ready(()),
        )
        .await
    });
    for round in 0..5 {
        upstream.write_all(b"0123456789").await.unwrap();
        for place in 0..10 {
            client.read_u8().await.unwrap();
            assert_eq!(heard.lock().unwrap().len(), 10 * (round + 1), "at byte {place}");
        }
    }
    // The other way is nobody's to hear.
    client.write_all(b"subscribe").await.unwrap();
    upstream.read_exact(&mut [0; 9]).await.unwrap();
    assert_eq!(heard.lock().unwrap().len(), 50);
    hearing.cancel();
    tunnel.await.unwrap().unwrap();
}

#[tokio::test]
async fn no_extension_is_offered_to_the_upstream_and_its_answer_passes_as_it_is() {
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Scripted::start(move |_, mut talk| {
        let told = told.clone();
        async move {
            let _ = told.send(talk.head().await.unwrap().to_lowercase());
            let agreed = SWITCHED
                .replace("upgrade: websocket", "upgrade: websocket\r\nsec-websocket-extensions: permessage-deflate");
            talk.send(agreed).await;
            talk.send([frame(0xc1, b"\x00"), frame(0x81, event("plain").as_bytes())].concat()).await;
            talk.rest().await;
        }
    })
    .await;
    let offer = "sec-websocket-protocol: actioncable-v1-json\r\nsec-websocket-extensions: permessage-deflate\r\n\
                 Sec-WebSocket-Extensions: x-other; a=1\r\n\r\n";
    let handshake = HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{offer}"));
    for observe in [true, false] {
        let proxy = Proxy::in_front_of(&upstream.url(), &format!("cable.observe = {observe}")).await;
        let noted = proxy.state.invalidation.ledger.now();
        let (mut client, head) = shaken(&proxy, &handshake).await;
        let asked = seen.recv().await.unwrap();
        assert_eq!(asked.contains("sec-websocket-extensions: permessage-deflate"), !observe, "{asked}");
        assert_eq!(asked.contains("x-other"), !observe, "{asked}");
        assert!(asked.contains("sec-websocket-protocol: actioncable-v1-json"), "{asked}");
        assert!(head.contains("sec-websocket-extensions: permessage-deflate"), "{head}");
        client.exactly(3 + frame(0x81, event("plain").as_bytes()).len()).await.unwrap();
        assert_eq!(is_told(&proxy, noted, "plain"), observe);
        let expected = if observe { 1.0 } else { 0.0 };
        assert!((proxy.metric(&messages("not_understood")).await - expected).abs() < 0.1);
    }
}

/// Other requests wait while it is read.
#[test]
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
fn a_long_message_is_read_about_once() {
    let html = "<p class=\"a\">\n".repeat(20_000);
    let text = event("long").replace("\"data\":{", &format!("\"data\":{{\"email\":{},", json!(html)));
    let fastest = |work: &dyn Fn()| {
        let times = (0..7).map(|_| {
            let began = std::time::Instant::now();
            work();
            began.elapsed()
        });
        times.min().unwrap()
    };
    let skipped = fastest(&|| assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()));
    let read = fastest(&|| assert!(of_cable(&text).is_some_and(|overheard| !overheard.heard.touched.is_empty())));
    assert!(read < skipped * 5, "{read:?} instead of {skipped:?}");
}

#[tokio::test]
async fn what_is_overheard_is_in_no_log_line_and_no_metric() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed("zebra-quince", conversations(1));
    let settings = "log.level = \"trace\"\nlog.hits = 1.0\ndrain.notice = \"0s\"\ncable.observe = true\n";
    let mut program = Program::serve(&stand_in.url(), settings).await;
    get(&format!("{}/public/api/v1/inboxes/{INBOX}/contacts/zebra-quince", program.url)).await;
    let mut socket = subscribed_at(&stand_in, &program.url, "zebra-quince").await;
    stand_in.agent_message("zebra-quince", "hush-hush");
    hear(&mut socket, "message.created").await;
    let metrics = program.metrics().await;
    assert!(metrics.contains(&format!("{} 1", messages("outdated"))));
    drop(socket);
    program.signal("TERM").await;
    program.ended().await;
    let told = format!("{metrics}{}", program.stderr());
    for secret in ["zebra", "quince", "hush-hush", &stand_in.pubsub_token("zebra-quince")] {
        assert!(!told.contains(secret), "{secret} is told");
    }
}

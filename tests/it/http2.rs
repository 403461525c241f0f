//! HTTP/2 towards clients: the same answers as in HTTP/1.1, and limits that hold for the single stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anteroom::server::listeners::Drained;
use anteroom_stand_in::{Fault, Matcher, Options, Point, StandIn};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use tokio::io::AsyncWriteExt;

use crate::support::child::Program;
use crate::support::http2::{
    self, ACK, CONTINUATION, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, Http2, Outcome, PING, RST_STREAM,
    WINDOW_UPDATE, block,
};
use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::tls::Certificate;
use crate::support::{Answer, Proxy, both, get_with, jump, request, send, spawn};

const MIB: usize = 1024 * 1024;
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ENHANCE_YOUR_CALM: u32 = 11;

fn errors(kind: &str) -> String {
    format!("anteroom_connection_errors_total{{kind=\"{kind}\"}}")
}

/// The fields of an answer but those that differ from one to the next.
fn fields(answer: &Answer) -> HeaderMap {
    let mut fields = answer.headers.clone();
    for own in ["date", "age", "x-runtime", "x-request-id", "cache-status"] {
        assert!(fields.remove(own).is_some() || ["age", "x-runtime"].contains(&own), "{own} in {answer:?}");
    }
    fields
}

#[tokio::test]
async fn an_answer_is_the_same_in_both_protocols() {
    let (stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    let path = StandIn::list_path("visitor-a");
    let url = proxy.list_url("visitor-a");
    let etag = proxy.list("visitor-a").await.header("etag").unwrap().to_owned();
    let http2 = Http2::to(&proxy.url).await;
    let origin = ("origin", "https://site.test");
    for (method, path, asked) in [
        ("GET", path.as_str(), &[][..]),
        ("HEAD", &path, &[]),
        ("GET", &path, &[("if-none-match", etag.as_str())]),
        ("GET", &path, &[("accept-encoding", "gzip")]),
        ("GET", &path, &[("accept-encoding", "zstd, br")]),
        ("HEAD", &path, &[("accept-encoding", "br")]),
        ("GET", &path, &[origin]),
        ("GET", &path, &[origin, ("if-none-match", &etag), ("accept-encoding", "gzip")]),
        ("OPTIONS", &path, &[origin, ("access-control-request-method", "GET")]),
        ("GET", "/nowhere", &[]),
        ("GET", "/rails/active_storage/disk/100000", &[]),
        ("DELETE", "/nowhere", &[origin]),
        ("TRACE", "/nowhere", &[]),
        ("GET", &path, &[("cookie", "a=b"), ("cookie", "c=d")]),
    ] {
        // What of it can be kept is kept by now.
        send(request(method, &format!("{}{path}", proxy.url), asked, "")).await;
        let one = send(request(method, &format!("{}{path}", proxy.url), asked, "")).await;
        let two = http2.send(http2.request(method, path, asked), None).await.unwrap();
        assert_eq!((one.status, fields(&one)), (two.status, fields(&two)), "{method} {path} {asked:?}");
        assert!(one.body == two.body, "{method} {path} {asked:?}");
        let kind = |answer: &Answer| answer.cache_status().split("; ttl=").next().unwrap().to_owned();
        assert_eq!(kind(&one), kind(&two), "{method} {path} {asked:?}");
    }
    assert!(get_with(&url, &[]).await.is_hit() && stand_in.list_requests("visitor-a") > 0);
}

#[tokio::test]
async fn bodies_and_trailers_pass_and_cookies_become_one_field() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let http2 = Http2::to(&proxy.url).await;
    let fields = [("cookie", "a=b"), ("cookie", "c=d"), ("te", "trailers"), ("x-kept", "1")];
    let answer = http2.send(http2.request("POST", "/x", &fields), Some("body".into())).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("x-sum")), ("ok", Some("7")), "{answer:?}");
    assert_eq!(answer.header("transfer-encoding"), None);
    let seen = upstream.last_request();
    assert_eq!((seen.start_line(), seen.text()), ("POST /x HTTP/1.1", "body"));
    assert_eq!((seen.field("cookie"), seen.field("te"), seen.field("x-kept")), (Some("a=b; c=d"), None, Some("1")));
    assert_eq!(seen.field("transfer-encoding"), Some("chunked"), "it had no length: {}", seen.head);
    let length = [("content-length", "4"), ("expect", "100-continue")];
    http2.send(http2.request("PUT", "/y", &length), Some("four".into())).await.unwrap();
    let seen = upstream.last_request();
    assert_eq!((seen.field("content-length"), seen.text(), seen.field("expect")), (Some("4"), "four", None));
    // With trailers of the client's own.
    let mut requests = http2.requests.clone().ready().await.unwrap();
    let (answer, mut sending) = requests.send_request(http2.request("POST", "/z", &[]), false).unwrap();
    sending.send_data("more".into(), false).unwrap();
    sending.send_trailers(HeaderMap::from_iter([("x-after".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    http2::rest(answer.await.unwrap().into_body()).await.unwrap();
    assert_eq!(upstream.last_request().text(), "more");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut frames = Frames::to(&proxy.url).await;
    let fields =
        [(":method", "POST"), (":scheme", "http"), (":authority", "h"), (":path", "/x"), ("expect", "100-continue")];
    frames.write(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    let go_on = frames.next(&[HEADERS]).await.unwrap();
    assert!(!go_on.has(END_STREAM), "a head that is not the last one: {go_on:?}");
    frames.write(http2::DATA, END_STREAM, 1, b"body").await;
    assert_eq!(frames.outcome(1).await, Outcome::Answered(200));
    assert_eq!(upstream.last_request().text(), "body");
}

#[tokio::test]
async fn a_write_and_the_read_after_it_hold_in_http2_too() {
    let (stand_in, proxy) = both("").await;
    let http2 = Http2::to(&proxy.url).await;
    let path = StandIn::list_path("visitor-a");
    http2.get(&path).await;
    assert!(http2.get(&path).await.is_hit());
    let contact = proxy.contact_url("visitor-a");
    let contact = contact.strip_prefix(&proxy.url).unwrap();
    let json = [("content-type", "application/json")];
    let written = http2.send(http2.request("PATCH", contact, &json), Some(r#"{"name":"New"}"#.into())).await.unwrap();
    assert_eq!(written.status, StatusCode::OK);
    let after = http2.get(&path).await;
    assert!(!after.is_hit() && after.body == stand_in.list_body("visitor-a"));
}

#[tokio::test]
async fn connect_is_refused_in_either_form() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let http2 = Http2::to(&proxy.url).await;
    let connect = Request::builder().method("CONNECT").uri("other.test:443").body(()).unwrap();
    let answer = http2.send(connect, None).await.unwrap();
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!http2.requests.is_extended_connect_protocol_enabled(), "it is not offered");
    let mut frames = Frames::to(&proxy.url).await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "h"),
        (":path", "/cable"),
    ];
    frames.write(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    assert!(matches!(frames.outcome(1).await, Outcome::Reset(_)));
    assert!(upstream.requests().is_empty());
}

/// HEADERS and RST_STREAM, over and over (CVE-2023-44487).
#[tokio::test]
async fn a_flood_of_requests_given_up_ends_its_connection_and_nobody_else_notices() {
    let upstream = Scripted::start(|_, mut talk| async move {
        while let Some(request) = talk.message().await {
            if !request.head.contains("/slow") {
                talk.send(OK).await;
            }
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let well = Http2::to(&proxy.url).await;
    assert_eq!(well.get("/x").await.status, StatusCode::OK);
    let fields = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/slow")]);
    for pause in [false, true] {
        let mut flood = Frames::to(&proxy.url).await;
        let mut sent = 0;
        for number in 0..2000 {
            let stream = 2 * number + 1;
            let mut both = http2::frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields);
            if pause {
                // Each is seen, and begun, before it is given up.
                if flood.stream.write_all(&both).await.is_err() || !flood.write(PING, 0, 0, &[1; 8]).await {
                    break;
                }
                if flood.next(&[PING, GOAWAY]).await.is_none_or(|frame| frame.kind == GOAWAY) {
                    break;
                }
                both.clear();
            }
            both.extend(http2::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            if flood.stream.write_all(&both).await.is_err() {
                break;
            }
            sent += 1;
        }
        if !pause {
            assert!(matches!(flood.goaway().await, Some(ENHANCE_YOUR_CALM) | None));
        }
        drop(flood);
        assert!(!pause || sent < 600, "{sent} were taken");
        proxy.wait_for_metric(&errors("flood"), if pause { 2.0 } else { 1.0 }).await;
        assert_eq!(well.get("/x").await.status, StatusCode::OK);
    }
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
}

/// CONTINUATION without an end (CVE-2024-27316), empty or not.
#[tokio::test]
async fn a_head_without_an_end_is_ended() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    for length in [0_usize, 1, 16_000] {
        let mut frames = Frames::to(&proxy.url).await;
        let head = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/x")]);
        frames.write(HEADERS, END_STREAM, 1, &head).await;
        let part = if length > 1 { block(&[("x-large", "a".repeat(length))]) } else { vec![0x82; length] };
        let mut taken = 0_u32;
        while taken < 100_000 && frames.write(CONTINUATION, 0, 1, &part).await {
            taken += 1;
            if taken.is_multiple_of(64) {
                tokio::task::yield_now().await;
            }
        }
        assert!(taken < 100_000, "{taken} parts of {length} bytes");
    }
    assert!(upstream.requests().is_empty());
    assert_eq!(Http2::to(&proxy.url).await.get("/x").await.status, StatusCode::OK);
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 0.0).await;
}

#[tokio::test]
async fn too_large_a_head_is_431_and_the_connection_goes_on() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "limits.head = \"16KiB\"").await;
    let http2 = Http2::to(&proxy.url).await;
    let large = "a".repeat(20_000);
    let refused = http2.send(http2.request("GET", "/x", &[("x-large", &large)]), None).await;
    match refused {
        Ok(answer) => assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_reset(), "{error}"),
    }
    let many: Vec<String> = (0..101).map(|number| format!("x-{number}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(http2.get_with("/x", &many).await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(http2.get_with("/x", &many[..90]).await.status, StatusCode::OK);
    let fits = "a".repeat(8_000);
    assert_eq!(http2.get_with("/x", &[("x-large", &fits)]).await.status, StatusCode::OK);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_drain_says_goaway_and_answers_in_flight_arrive_whole() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "drain.deadline = \"1h\"").await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::any());
    let http2 = Http2::to(&proxy.url).await;
    let path = StandIn::list_path("visitor-a");
    let in_flight = spawn({
        let request = http2.request("GET", &path, &[]);
        let requests = http2.requests.clone();
        async move {
            let (answer, _) = requests.ready().await.unwrap().send_request(request, true).unwrap();
            let (head, body) = answer.await.unwrap().into_parts();
            (head.status, http2::rest(body).await.unwrap().0)
        }
    });
    gate.arrived(1).await;
    let stopping = spawn(proxy.stop());
    // GOAWAY has come once nothing new is taken.
    let after = loop {
        match http2.requests.clone().ready().await {
            Ok(mut requests) => match requests.send_request(http2.request("GET", "/late", &[]), true) {
                Ok((answer, _)) => {
                    if let Err(error) = answer.await {
                        break error;
                    }
                }
                Err(error) => break error,
            },
            Err(error) => break error,
        }
    };
    assert!(after.is_go_away() || after.is_reset(), "{after}");
    gate.release_all();
    let (status, body) = in_flight.await.unwrap();
    assert!(status == StatusCode::OK && body == stand_in.list_body("visitor-a"));
    assert_eq!(stopping.await.unwrap(), Drained::Whole);
    assert!(http2.driving.await.unwrap().is_ok());
}

/// Its clients shall go elsewhere before the listener closes: a request during the notice is answered, and is the last.
#[tokio::test]
async fn during_the_notice_of_a_drain_a_request_is_answered_and_goaway_said() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let mut config = crate::support::settings(&stand_in.url(), "");
    config.server.drain_notice = Duration::from_secs(3600);
    let proxy = Proxy::of(config).await;
    let idle = Http2::to(&proxy.url).await;
    let http2 = Http2::to(&proxy.url).await;
    let path = StandIn::list_path("visitor-a");
    for http2 in [&idle, &http2] {
        assert_eq!(http2.get(&path).await.status, StatusCode::OK);
    }
    let (url, ready) = (proxy.url.clone(), format!("{}/ready", proxy.admin));
    let stopping = spawn(proxy.stop());
    while crate::support::get(&ready).await.status == StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert!(http2.get(&path).await.is_hit());
    assert!(http2.driving.await.unwrap().is_ok(), "it ends in order");
    // A connection of its own for each request is served as long as the notice lasts.
    let mut frames = Frames::to(&url).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/nowhere")];
    frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
    let goaway = frames.next(&[GOAWAY]).await.unwrap();
    assert_eq!(goaway.code(), 0);
    assert!(!idle.driving.is_finished(), "who does not ask is not bothered before the notice is over");
    jump(Duration::from_secs(3601)).await;
    assert_eq!(stopping.await.unwrap(), Drained::Whole);
    assert!(idle.driving.await.unwrap().is_ok());
}

#[tokio::test]
async fn an_idle_connection_is_ended_in_order_and_the_drain_waits_for_none() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "drain.deadline = \"1h\"").await;
    let http2 = Http2::to(&proxy.url).await;
    http2.get("/x").await;
    // Neither settings nor pings keep one open, nor does half a preface.
    let mut half = Talk::to(&proxy.url).await;
    half.send("PRI * HTTP/2.0\r\n").await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 2.0).await;
    jump(Duration::from_secs(61)).await;
    assert!(http2.driving.await.unwrap().is_ok());
    assert!(half.rest().await.is_empty());
    proxy.wait_for_metric(&errors("timeout"), 1.0).await;
    let mut deaf = Frames::to(&proxy.url).await;
    let mut half = Talk::to(&proxy.url).await;
    half.send("PRI * HTTP/2.0\r\n").await;
    deaf.next(&[http2::SETTINGS]).await.unwrap();
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 2.0).await;
    assert_eq!(proxy.stop().await, Drained::Whole);
    assert_eq!(deaf.goaway().await, Some(0));
}

/// It is asked, says nothing, and takes nothing: nobody is there.
#[tokio::test]
async fn a_client_that_is_gone_without_a_word_is_noticed_while_it_waits() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.message().await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "upstream.head_timeout = \"1h\"").await;
    let mut frames = Frames::to(&proxy.url).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/x")];
    frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 1.0).await;
    jump(Duration::from_secs(21)).await;
    // One that answers stays.
    let ping = frames.next(&[PING]).await.unwrap();
    frames.write(PING, ACK, 0, &ping.payload).await;
    frames.write(PING, 0, 0, &[7; 8]).await;
    while frames.next(&[PING]).await.unwrap().payload != [7; 8] {}
    jump(Duration::from_secs(21)).await;
    frames.next(&[PING]).await.unwrap();
    proxy.wait_for_metric("anteroom_requests_in_flight", 1.0).await;
    jump(Duration::from_secs(21)).await;
    proxy.wait_for_metric(&errors("timeout"), 1.0).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
}

/// A window that is never opened: the answer is given up, the others go on.
#[tokio::test]
async fn a_reader_that_stalls_one_answer_loses_that_one() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "upstream.stall_timeout = \"30s\"\ncache.ttl = \"1h\"").await;
    let http2 =
        Http2::with(&proxy.url, h2::client::Builder::new().initial_connection_window_size(8 * 1024 * 1024)).await;
    proxy.list("visitor-a").await;
    let stalled = http2.head(http2.request("GET", "/rails/active_storage/disk/3000000", &[]), None).await.unwrap();
    assert_eq!(stalled.status(), StatusCode::OK);
    assert_eq!(http2.get("/nowhere").await.status, StatusCode::NOT_FOUND);
    proxy.wait_for_metric("anteroom_requests_in_flight", 1.0).await;
    jump(Duration::from_secs(31)).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
    assert!(http2.get(&StandIn::list_path("visitor-a")).await.is_hit());
    let error = http2::rest(stalled.into_body()).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    proxy.wait_for_metric("anteroom_limit_reached_total{limit=\"upstream.stall_timeout\"}", 1.0).await;
}

/// A client whose windows are as small as may be gets large hits whole, some bytes at a time.
#[tokio::test]
async fn a_slow_reader_gets_a_large_hit_whole() {
    let (stand_in, proxy) = both("cache.ttl = \"1h\"").await;
    let whole = proxy.list("visitor-a").await.body;
    let mut builder = h2::client::Builder::new();
    let http2 = Http2::with(&proxy.url, builder.initial_window_size(100)).await;
    let answer = http2.get(&StandIn::list_path("visitor-a")).await;
    assert!(answer.is_hit() && answer.body == whole && !whole.is_empty());
    assert_eq!(stand_in.list_requests("visitor-a"), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_resets_its_stream_alone() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "").await;
    let http2 = Http2::to(&proxy.url).await;
    stand_in.fault_on(Fault::Truncate, Matcher::any());
    let cut = http2.send(http2.request("GET", "/rails/active_storage/disk/100000", &[]), None).await;
    assert!(cut.unwrap_err().is_reset());
    stand_in.clear_faults();
    assert_eq!(http2.get("/rails/active_storage/disk/100000").await.body.len(), 100_000);
}

/// What of an upload waits in the proxy is bounded by the windows, not by the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_stops_uploads_in_http2() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let program = Program::serve(&upstream.url(), "").await;
    let idle = program.memory("VmRSS");
    let http2 = Http2::to(&program.url).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let mut sending = Vec::new();
    for number in 0..10 {
        let mut requests = http2.requests.clone().ready().await.unwrap();
        let request = http2.request("POST", &format!("/x{number}"), &[]);
        let (answer, mut stream) = requests.send_request(request, false).unwrap();
        let sent = sent.clone();
        sending.push(spawn(async move {
            let _answer = answer;
            let block = Bytes::from(vec![7; 16 * 1024]);
            for _ in 0..5 * MIB / block.len() {
                stream.reserve_capacity(block.len());
                while stream.capacity() < block.len() {
                    let Some(Ok(_)) = std::future::poll_fn(|context| stream.poll_capacity(context)).await else {
                        return;
                    };
                }
                stream.send_data(block.clone(), false).unwrap();
                sent.fetch_add(block.len(), Ordering::SeqCst);
            }
        }));
    }
    let probe = format!("{}/live", program.admin);
    let mut before = 0;
    loop {
        for _ in 0..50 {
            crate::support::get(&probe).await;
        }
        let now = sent.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    let peak = program.memory("VmHWM");
    assert!(peak < idle + 16 * MIB as u64, "idle {idle}, peak {peak}");
    sending.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The upload is not read to its end, and its sender learns why.
#[tokio::test]
async fn an_upload_that_is_refused_early_gets_its_answer() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send("HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
        talk.rest().await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let http2 = Http2::to(&proxy.url).await;
    for _ in 0..20 {
        let mut requests = http2.requests.clone().ready().await.unwrap();
        let (answer, mut sending) = requests.send_request(http2.request("POST", "/x", &[]), false).unwrap();
        let uploading = spawn(async move {
            let block = Bytes::from(vec![7; 16 * 1024]);
            for _ in 0..200 {
                sending.reserve_capacity(block.len());
                while sending.capacity() < block.len() {
                    let Some(Ok(_)) = std::future::poll_fn(|context| sending.poll_capacity(context)).await else {
                        return;
                    };
                }
                if sending.send_data(block.clone(), false).is_err() {
                    return;
                }
            }
        });
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(http2::rest(answer.into_body()).await.unwrap().0, "big");
        uploading.await.unwrap();
    }
}

/// The same over TLS, where what was taken may still wait for the socket.
#[tokio::test]
async fn a_reader_that_takes_nothing_over_tls_is_ended() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let certificate = Certificate::for_names(&["front.test"]);
    let more = format!("upstream.stall_timeout = \"30s\"\n{}", certificate.settings());
    let proxy = Proxy::start(&stand_in, &more).await;
    for protocol in ["http/1.1", "h2"] {
        let mut stream = certificate.connect(&proxy.url, &[protocol]).await.unwrap();
        let path = "/rails/active_storage/disk/100000000";
        if protocol == "h2" {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 30).initial_connection_window_size(1 << 30);
            let (mut requests, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
            let request = Request::get(format!("https://front.test{path}")).body(()).unwrap();
            let (answer, _) = requests.send_request(request, true).unwrap();
            // Driven for as long as it takes to ask, and no longer.
            let asked = proxy.wait_for_metric("anteroom_requests_in_flight", 1.0);
            tokio::pin!(connection, asked);
            tokio::select! { _ = &mut connection => {}, () = &mut asked => {} }
            stalled(&proxy).await;
            drop((connection, answer, requests));
        } else {
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
            proxy.wait_for_metric("anteroom_requests_in_flight", 1.0).await;
            stalled(&proxy).await;
        }
    }
}

/// Waits until the upstream can send no more, and then for the limit.
async fn stalled(proxy: &Proxy) {
    for _ in 0..200 {
        proxy.metric("anteroom_requests_in_flight").await;
    }
    jump(Duration::from_secs(31)).await;
    proxy.wait_for_metric("anteroom_requests_in_flight", 0.0).await;
}

/// Whoever speaks HTTP/1.1 on the plain listener is not kept waiting, however the first bytes are cut.
#[tokio::test]
async fn what_only_begins_like_the_preface_is_http_1() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send("P").await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    talk.send("RI * HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(talk.message().await.unwrap().status(), 400, "it is a method like others, with no path");
    let put = exchange(&proxy.url, "PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!((put.status(), upstream.last_request().text()), (200, "hi"));
    let mut cut = Talk::to(&proxy.url).await;
    cut.send("PRI * HT").await;
    cut.stream.shutdown().await.unwrap();
    assert!(cut.rest().await.is_empty());
    proxy.wait_for_metric(&errors("incomplete"), 1.0).await;
}

#[tokio::test]
async fn windows_that_overflow_end_the_connection() {
    let upstream = Scripted::answering(OK).await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let mut frames = Frames::to(&proxy.url).await;
    for _ in 0..2 {
        frames.write(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).await;
    }
    assert_eq!(frames.goaway().await, Some(3), "FLOW_CONTROL_ERROR");
    proxy.wait_for_metric(&errors("parse"), 1.0).await;
}

/// A second opinion: clients that somebody else has written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_and_h2load_are_content() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "cache.ttl = \"1h\"").await;
    let url = proxy.list_url("visitor-a");
    proxy.list("visitor-a").await;
    let run = async |program: &str, arguments: &[&str]| {
        let output = tokio::process::Command::new(program).args(arguments).output().await;
        let output = output.unwrap_or_else(|error| panic!("{program} (package nghttp2-client): {error}"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = run("nghttp", &["--null-out", "--verbose", "--no-dep", &url]).await;
    assert!(shown.contains(":status: 200") && shown.contains("cache-status: anteroom; hit"), "{shown}");
    assert!(!shown.contains("PROTOCOL_ERROR"), "{shown}");
    let shown = run("h2load", &["--requests=2000", "--clients=4", "--max-concurrent-streams=50", &url]).await;
    assert!(shown.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{shown}");
}

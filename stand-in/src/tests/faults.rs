//! What is wrong with an answer when a fault says so.

use http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{Fault, Matcher, Shape};
use super::{contact_path, get, list, parse, raw, send, start};

#[tokio::test]
async fn broken_answers_are_broken_in_the_way_they_are_named() {
    let stand_in = start().await;
    stand_in.seed("big", Shape { conversations: 1, messages: 100, bytes: 2000 });
    let whole = stand_in.list_body("big");
    let request = format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", list("big"));

    stand_in.fault_times(Fault::Truncate, Matcher::lists(), 1);
    let cut = parse(&raw(&stand_in, &request).await);
    assert_eq!(cut.header("content-length"), whole.len().to_string());
    assert!(!cut.body.is_empty() && cut.body.len() < whole.len() && whole.starts_with(&cut.body));

    stand_in.fault_times(Fault::TruncateChunked, Matcher::lists(), 1);
    let cut = parse(&raw(&stand_in, &request).await);
    assert_eq!(cut.header("transfer-encoding"), "chunked");
    assert!(!cut.body.is_empty() && !cut.body.ends_with(b"0\r\n\r\n"));

    stand_in.fault_times(Fault::CloseDelimited, Matcher::lists(), 1);
    let bare = parse(&raw(&stand_in, &request).await);
    assert!(!bare.headers.contains_key("content-length") && !bare.headers.contains_key("transfer-encoding"));
    assert_eq!(bare.body, whole);

    stand_in.fault_times(Fault::Reset, Matcher::lists(), 1);
    assert_eq!(raw(&stand_in, &request).await, b"");

    stand_in.fault_times(Fault::Chunked, Matcher::lists(), 1);
    let chunked = get(&stand_in, &list("big")).await;
    assert!(chunked.header("transfer-encoding") == "chunked" && chunked.body.ends_with(b"0\r\n\r\n"));
    assert_eq!(get(&stand_in, &list("big")).await.body, whole, "all is well again");
}

#[tokio::test]
async fn a_body_can_hang_after_its_head() {
    let stand_in = start().await;
    stand_in.fault(Fault::HangBody);
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    let request = format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", list("visitor-a"));
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.expect("open") > 0);
    }
    stand_in.close_idle_connections();
    stand_in.stop().await;
    stream.read_to_end(&mut answer).await.expect("a clean end");
    let answer = parse(&answer);
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_ne!(answer.header("content-length"), "0");
}

#[tokio::test]
async fn the_order_of_a_list_can_change_without_a_change_of_data() {
    let stand_in = start().await;
    stand_in.fault(Fault::Reorder);
    let (one, other) = (get(&stand_in, &list("visitor-a")).await, get(&stand_in, &list("visitor-a")).await);
    assert_eq!(one.body, stand_in.list_body("visitor-a"));
    assert_ne!(one.header("etag"), other.header("etag"));
    assert_eq!(one.body.len(), other.body.len());
}

#[tokio::test]
async fn faults_with_a_status_have_it_and_concern_lists_alone() {
    let stand_in = start().await;
    for (fault, status, content_type) in [
        (Fault::Error, 500, "application/json; charset=UTF-8"),
        (Fault::Unavailable, 503, "text/html"),
        (Fault::Throttle, 429, "text/plain"),
        (Fault::Html, 200, "text/html"),
        (Fault::WrongShape, 200, "application/json; charset=utf-8"),
        (Fault::NoEtag, 200, "application/json; charset=utf-8"),
        (Fault::SetCookie, 200, "application/json; charset=utf-8"),
    ] {
        stand_in.fault(fault);
        let answer = get(&stand_in, &list("visitor-a")).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (status, content_type), "{fault}");
        assert_eq!(answer.headers.contains_key("set-cookie"), fault == Fault::SetCookie);
        assert_eq!(get(&stand_in, &contact_path("visitor-a")).await.status, StatusCode::OK);
        stand_in.clear_faults();
    }
}

#[tokio::test]
async fn a_write_can_happen_and_be_answered_badly() {
    let stand_in = start().await;
    stand_in.fault_times(Fault::ErrorAfter, Matcher::writes(), 1);
    let answer = send(&stand_in, "POST", &list("visitor-c"), &json!({})).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stand_in.conversation_ids("visitor-c").len(), 1);
}

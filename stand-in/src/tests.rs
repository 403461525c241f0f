//! The stand-in over the wire: what it answers, and that tests can hold and break it.

mod cable;
mod faults;
mod receiver;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Fault, INBOX, Latency, Matcher, OTHER_INBOX, Options, Point, StandIn};

/// Everything a connection gave before it was closed, taken apart by hand: hyper would hide what is wrong with it.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.headers.keys().map(http::HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }
}

async fn start() -> StandIn {
    StandIn::start(Options::default()).await.expect("a free port")
}

/// Sends bytes, reads to the end of the connection.
async fn raw(stand_in: &StandIn, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("a clean end");
    answer
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|it| it == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(raw[..end].to_vec()).expect("text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: http::HeaderName = name.parse().expect("a name");
        headers.append(name, value.trim().parse().expect("a value"));
    }
    headers.remove("connection");
    Answer { status: status.parse().expect("a number"), headers, body: raw[end + 4..].to_vec() }
}

async fn ask(stand_in: &StandIn, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}{length}\r\n{body}");
    parse(&raw(stand_in, &request).await)
}

async fn get(stand_in: &StandIn, path: &str) -> Answer {
    ask(stand_in, "GET", path, "", "").await
}

async fn send(stand_in: &StandIn, method: &str, path: &str, body: &Value) -> Answer {
    ask(stand_in, method, path, "content-type: application/json\r\n", &body.to_string()).await
}

fn contact_path(source_id: &str) -> String {
    format!("/public/api/v1/inboxes/{INBOX}/contacts/{source_id}")
}

fn list(source_id: &str) -> String {
    StandIn::list_path(source_id)
}

#[tokio::test]
async fn a_list_has_exactly_the_headers_of_the_real_one() {
    let stand_in = start().await;
    let answer = get(&stand_in, &list("visitor-c")).await;
    assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::OK, &b"[]"[..]));
    assert_eq!(answer.header("etag"), "W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "max-age=0, private, must-revalidate");
    assert_eq!(answer.header("vary"), "Origin");
    let expected = "cache-control content-length content-type etag referrer-policy vary x-content-type-options \
        x-download-options x-frame-options x-permitted-cross-domain-policies x-request-id x-runtime x-xss-protection";
    assert_eq!(answer.names().join(" "), expected);
}

#[tokio::test]
async fn a_matching_etag_gives_304_and_only_by_plain_equality() {
    let stand_in = start().await;
    let etag = "W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"";
    let known = ask(&stand_in, "GET", &list("visitor-c"), &format!("if-none-match: {etag}\r\n"), "").await;
    assert_eq!((known.status, known.header("etag"), known.body.len()), (StatusCode::NOT_MODIFIED, etag, 0));
    assert!(!known.headers.contains_key("content-type") && !known.headers.contains_key("content-length"));
    for other in ["*", &etag[2..], &format!("\"x\", {etag}")] {
        let headers = format!("if-none-match: {other}\r\n");
        let answer = ask(&stand_in, "GET", &list("visitor-c"), &headers, "").await;
        assert_eq!(answer.status, StatusCode::OK, "{other}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let stand_in = start().await;
    let answer = ask(&stand_in, "HEAD", &list("visitor-a"), "", "").await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    assert_eq!(answer.header("content-length"), stand_in.list_body("visitor-a").len().to_string());
}

#[tokio::test]
async fn cors_comes_with_an_origin_on_errors_too_and_not_elsewhere() {
    let stand_in = start().await;
    let origin = "origin: https://shop.example.test\r\n";
    for path in [list("visitor-c"), list("nobody"), "/public/api/v1/nothing".to_owned()] {
        let answer = ask(&stand_in, "GET", &path, origin, "").await;
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(answer.header("access-control-max-age"), "7200");
        assert_eq!(answer.header("vary"), "Origin");
    }
    assert!(!get(&stand_in, &list("visitor-c")).await.headers.contains_key("access-control-allow-origin"));
    assert!(!ask(&stand_in, "GET", "/cable", origin, "").await.headers.contains_key("vary"));

    let asked = format!("{origin}access-control-request-method: GET\r\naccess-control-request-headers: x-a, x-b\r\n");
    let preflight = ask(&stand_in, "OPTIONS", &list("visitor-c"), &asked, "").await;
    assert_eq!((preflight.status, preflight.body.len()), (StatusCode::OK, 0));
    assert_eq!(preflight.header("access-control-allow-headers"), "x-a, x-b");
    assert!(!preflight.headers.contains_key("vary") && !preflight.headers.contains_key("content-type"));
    let plain = ask(&stand_in, "OPTIONS", &list("visitor-c"), "", "").await;
    assert_eq!((plain.status, plain.header("content-type")), (StatusCode::NOT_FOUND, "text/html; charset=UTF-8"));
}

#[tokio::test]
async fn what_is_unknown_is_404_as_json_or_as_a_page() {
    let stand_in = start().await;
    for path in [list("nobody"), list("VISITOR-A"), list("visitor-a").replace(INBOX, "nowhere")] {
        let answer = get(&stand_in, &path).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::NOT_FOUND, json!({"status":404,"error":"Not Found"})));
        assert_eq!(answer.names().join(" "), "content-length content-type vary x-request-id x-runtime");
    }
    let dotted = get(&stand_in, &list("a.b")).await;
    assert_eq!((dotted.status, dotted.header("content-type")), (StatusCode::NOT_FOUND, "text/html; charset=UTF-8"));
    let as_json = ask(&stand_in, "GET", &list("a.b"), "accept: application/json\r\n", "").await;
    assert_eq!(as_json.header("content-type"), "application/json; charset=UTF-8");
}

#[tokio::test]
async fn a_message_reopens_greets_and_moves_the_contact() {
    let stand_in = start().await;
    stand_in.set_greeting(Some("hello"));
    let made = send(&stand_in, "POST", &list("visitor-c"), &json!({})).await.json();
    let path = format!("{}/{}/messages", list("visitor-c"), made["id"]);
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let first = ask(&stand_in, "POST", &path, form, "content=a%26b").await;
    assert_eq!(first.json()["content"], "a&b");
    stand_in.agent_toggle_status("visitor-c");
    let after: Value = serde_json::from_slice(&stand_in.list_body("visitor-c")).expect("JSON");
    assert_eq!(after[0]["status"], "resolved");
    send(&stand_in, "POST", &path, &json!({"content": "again"})).await;
    let list: Value = serde_json::from_slice(&stand_in.list_body("visitor-c")).expect("JSON");
    assert_eq!(list[0]["status"], "open");
    assert_ne!(list[0]["contact"]["updated_at"], after[0]["contact"]["updated_at"]);
    let types: Vec<_> =
        list[0]["messages"].as_array().expect("messages").iter().map(|it| &it["message_type"]).collect();
    assert_eq!(types, [0, 3, 0]);
}

#[tokio::test]
async fn an_address_of_another_contact_merges_the_two() {
    let stand_in = start().await;
    stand_in.agent_message("visitor-c", "hi");
    let (survivor, merged) = (stand_in.contact_id("visitor-a"), stand_in.contact_id("visitor-c"));
    let before = stand_in.list_body("visitor-a");
    let change = json!({"email": "visitor.a@example.test", "name": "Merged"});
    let answer = send(&stand_in, "PATCH", &contact_path("visitor-c"), &change).await;
    assert_eq!((answer.status, &answer.json()["id"]), (StatusCode::OK, &json!(survivor)));
    assert_ne!(merged, survivor);
    assert_eq!(stand_in.contact_id("visitor-c"), survivor);
    assert_ne!(stand_in.list_body("visitor-a"), before, "the name in the other list changed too");
}

#[tokio::test]
async fn a_get_with_the_right_hash_widens_the_list_and_a_wrong_one_is_500() {
    let stand_in = start().await;
    stand_in.attach("visitor-a", "visitor-a-2");
    assert_eq!(stand_in.list_body("visitor-a-2"), "[]");
    let wrong = get(&stand_in, &format!("{}?identifier_hash=no", contact_path("visitor-a-2"))).await;
    assert_eq!(wrong.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(stand_in.list_body("visitor-a-2"), "[]");
    get(&stand_in, &format!("{}?identifier_hash=valid-hash", contact_path("visitor-a-2"))).await;
    assert_eq!(stand_in.list_body("visitor-a-2"), stand_in.list_body("visitor-a"));
}

#[tokio::test]
async fn the_other_writes_do_what_they_say() {
    let stand_in = start().await;
    let uuid = stand_in.ask_csat("visitor-c");
    let id = stand_in.conversation_ids("visitor-c")[0];
    let rating = json!({"csat_survey_response": {"rating": 5, "feedback_message": "good"}});
    let survey = format!("/public/api/v1/csat_survey/{uuid}");
    let before = stand_in.list_body("visitor-c");
    let answer = send(&stand_in, "PUT", &survey, &json!({"message": {"submitted_values": rating}})).await;
    assert_eq!(answer.json()["csat_survey_response"]["rating"], 5);
    assert_ne!(stand_in.list_body("visitor-c"), before);

    for (path, body_length) in [("toggle_typing", 0), ("update_last_seen", 0), ("toggle_status", 1)] {
        let before = stand_in.list_body("visitor-c");
        let answer = send(&stand_in, "POST", &format!("{}/{id}/{path}", list("visitor-c")), &json!({})).await;
        assert_eq!((answer.status, answer.body.len().min(1)), (StatusCode::OK, body_length), "{path}");
        assert_eq!(stand_in.list_body("visitor-c") != before, path != "toggle_typing", "{path}");
    }

    let agent = format!("/api/v1/accounts/7/conversations/{id}/messages");
    let refused = send(&stand_in, "POST", &agent, &json!({"content": "x"})).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let headers = "content-type: application/json\r\napi_access_token: agent-token\r\n";
    let accepted = ask(&stand_in, "POST", &agent, headers, "{\"content\":\"from the agent\"}").await;
    assert_eq!((accepted.status, &accepted.json()["sender_type"]), (StatusCode::OK, &json!("User")));
    let bad = ask(&stand_in, "POST", &list("visitor-c"), "content-type: application/json\r\n", "{").await;
    assert_eq!((bad.status, bad.body.len()), (StatusCode::BAD_REQUEST, 0));
    let long = json!({"content": "x".repeat(150_001)});
    let long = send(&stand_in, "POST", &format!("{}/{id}/messages", list("visitor-c")), &long).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_held_list_is_as_old_as_the_gate_says() {
    let stand_in = start().await;
    let old = stand_in.list_body("visitor-a");
    for (point, expect_old) in [(Point::AfterReading, true), (Point::BeforeReading, false)] {
        let old = if expect_old { old.clone() } else { stand_in.list_body("visitor-a") };
        let gate = stand_in.hold(point, Matcher::list_of("visitor-a"));
        let path = list("visitor-a");
        let (answer, ()) = tokio::join!(get(&stand_in, &path), async {
            gate.arrived(1).await;
            stand_in.agent_message("visitor-a", "while it was held");
            gate.release_one();
        });
        assert_eq!(answer.body == old, expect_old, "{point:?}");
    }
    get(&stand_in, &list("visitor-a")).await;
}

#[tokio::test]
async fn a_write_held_before_its_acknowledgement_has_happened() {
    let stand_in = start().await;
    let gate = stand_in.hold(Point::Acknowledging, Matcher::writes());
    let (path, body) = (list("visitor-c"), json!({}));
    let write = send(&stand_in, "POST", &path, &body);
    let (answer, ()) = tokio::join!(write, async {
        gate.arrived(1).await;
        assert_eq!(stand_in.conversation_ids("visitor-c").len(), 1);
        drop(gate);
    });
    assert_eq!(answer.status, StatusCode::OK);
    stand_in.wait_for("the write", |all| all.iter().any(|seen| seen.method == Method::POST)).await;
    assert_eq!(stand_in.list_requests("visitor-c"), 0);
}

#[tokio::test]
async fn a_demo_forgets_old_requests() {
    let options = Options { kept_requests: 4, ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("a free port");
    for source_id in ["1", "2", "3", "4", "5"] {
        ask(&stand_in, "POST", &list(source_id), "", "x").await;
    }
    let kept: Vec<_> = stand_in.requests().into_iter().map(|it| (it.source_id, it.body_length)).collect();
    assert_eq!(kept, ["3", "4", "5"].map(|it| (Some(it.to_owned()), Some(1))));
}

#[tokio::test(start_paused = true)]
async fn five_lists_are_made_at_once_and_after_15_s_it_is_500() {
    let base = Duration::from_secs(1);
    let latency = Latency { base, per_message: Duration::ZERO, parallel: 5 };
    let options = Options { latency, slow_by: Duration::from_secs(60), ..Options::default() };
    let stand_in = Arc::new(StandIn::start(options).await.expect("a free port"));
    let gate = stand_in.hold(Point::BeforeReading, Matcher::lists());
    let (one, path) = (tokio::time::Instant::now(), list("visitor-c"));
    let mut readers = JoinSet::new();
    for _ in 0..10 {
        let (stand_in, path) = (Arc::clone(&stand_in), path.clone());
        readers.spawn(async move { get(&stand_in, &path).await.status });
    }
    // Counts arrivals without a timer: a paused clock would run ahead of the sockets.
    while gate.arrivals() < 10 {
        tokio::task::yield_now().await;
    }
    gate.release_all();
    assert_eq!(readers.join_all().await, [StatusCode::OK; 10]);
    assert!(one.elapsed() >= base * 2 && one.elapsed() < base * 3, "{:?}", one.elapsed());
    stand_in.fault(Fault::Slow);
    let slow = tokio::time::Instant::now();
    assert_eq!(get(&stand_in, &path).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(slow.elapsed() >= Duration::from_secs(15) && slow.elapsed() < Duration::from_secs(16));
}

#[tokio::test]
async fn files_of_any_size_go_both_ways() {
    let stand_in = start().await;
    let download = get(&stand_in, "/rails/active_storage/disk/1000003").await;
    assert_eq!((download.header("content-length"), download.body.len()), ("1000003", 1_000_003));
    assert!(download.body.iter().enumerate().all(|(place, byte)| place % 251 == usize::from(*byte)));
    let text = "x".repeat(300_000);
    let upload = ask(&stand_in, "POST", "/rails/active_storage/direct_uploads", "", &text).await.json();
    assert_eq!(upload["byte_size"], 300_000);
    assert_eq!(stand_in.requests()[1].body_length, Some(300_000));
}

#[tokio::test]
async fn idle_connections_can_be_closed_and_all_end_with_the_stand_in() {
    let stand_in = start().await;
    let request = format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", list("visitor-c"));
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    let mut buffer = [0; 4096];
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).await.expect("kept alive");
        assert!(stream.read(&mut buffer).await.expect("an answer") > 0);
    }
    assert_eq!((stand_in.seen_connections(), stand_in.list_requests("visitor-c")), (1, 2));
    stand_in.close_idle_connections();
    assert_eq!(stream.read(&mut buffer).await.expect("a clean end"), 0);

    stand_in.fault(Fault::Hang);
    let mut stream = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    stand_in.wait_for("the request that hangs", |all| all.len() == 3).await;
    let address = stand_in.addr();
    stand_in.stop().await;
    assert_eq!(stream.read(&mut buffer).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn it_goes_down_and_comes_back_with_all_that_it_had() {
    let stand_in = start().await;
    stand_in.agent_message("visitor-c", "before");
    let mut idle = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    stand_in.go_down().await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(stand_in.addr()).await.is_err());
    stand_in.come_back().await.expect("its port is free");
    let answer = get(&stand_in, &list("visitor-c")).await;
    assert_eq!(answer.json()[0]["messages"][0]["content"], "before");
}

#[tokio::test]
async fn the_log_and_the_rate_limit_count_what_came() {
    let options = Options { requests_per_minute: Some(0), ..Options::default() };
    let stand_in = StandIn::start(options).await.expect("a free port");
    stand_in.set_response_header("x-front", "yes");
    let answer = ask(&stand_in, "GET", &list("visitor-c"), "x-request-id: a b\r\n", "").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (429, &b"Retry later\n"[..]));
    assert_eq!((answer.header("x-request-id"), answer.header("x-front")), ("ab", "yes"));
    assert!(!answer.headers.contains_key("retry-after"));
    let seen = &stand_in.requests()[0];
    assert_eq!((&seen.method, seen.target.as_str()), (&Method::GET, list("visitor-c").as_str()));
    assert!(!format!("{seen:?}").contains("visitor-c"), "source ids are credentials");
    let other = list("visitor-b").replace(INBOX, OTHER_INBOX);
    assert_eq!(get(&stand_in, &other).await.status.as_u16(), 429);
}

//! Everything that is nobody else's business bears one mark; a busy run at the finest level of the log, in both formats,
//! over TLS and HTTP/2 as well, shows it nowhere: no line, no metric, no problem document, no field of the proxy's own.

use std::sync::{Arc, Mutex};

use anteroom::engine::metrics::Metrics;
use anteroom::server::panics;
use anteroom_stand_in::{Fault, INBOX, Matcher, Options, Shape, StandIn};
use bytes::Bytes;
use futures_util::SinkExt;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite;

use crate::support::child::{Program, run};
use crate::support::http2::{END_HEADERS, END_STREAM, Frames, HEADERS, Http2, block};
use crate::support::raw::{Message, Scripted, Talk};
use crate::support::relay::Relay;
use crate::support::tls::Certificate;
use crate::tunnels;
use crate::upstream_http2::{Manner, Secure};

/// In every secret. It is no part of any word.
const MARK: &str = "qzxvj";
/// A contact, with a character that has to be encoded, and one that may be.
const CONTACT: &str = "qzxvj:one~7f3";
const TOKEN: &str = "qzxvjK7j2Lw9";

/// Settings of which half are secrets, and limits that end soon what hangs.
const SETTINGS: &str = "log.level = \"trace\"\nlog.hits = 1.0\nadmin.token = \"qzxvjK7j2Lw9\"\ndrain.notice = \"0s\"\n\
                        upstream.fetch_timeout = \"300ms\"\nupstream.head_timeout = \"300ms\"\n\
                        upstream.stall_timeout = \"300ms\"\nupstream.breaker = false\n\
                        webhook.unsigned_token = \"qzxvjOld5Tk1\"\nwebhook.secrets = [\"qzxvjHook7Sx9\"]\n";

/// What may not be found, however it is written down.
struct Secrets(Vec<String>);

impl Secrets {
    fn new(others: impl IntoIterator<Item = String>) -> Self {
        let bytes = MARK.bytes();
        let decimal: String = bytes.clone().map(|byte| format!("{byte}, ")).collect();
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        // The mark in base64, wherever it begins: without the characters that depend on what stands beside it.
        let base64 = ["cxp4dm", "f6eHZq", "xenh2a"].map(str::to_owned);
        let mut all = vec![MARK.to_owned(), decimal.trim_end_matches(", ").to_owned(), hex];
        all.extend(base64);
        all.extend(others);
        Self(all.into_iter().map(|secret| secret.to_lowercase()).collect())
    }

    fn assert_absent(&self, text: &str, from: &str) {
        let plain = text.to_lowercase();
        let decoded = percent_decode_str(&plain).decode_utf8_lossy().to_lowercase();
        for text in [plain, decoded] {
            for line in text.lines() {
                let found = self.0.iter().find(|secret| line.contains(secret.as_str()));
                assert!(found.is_none(), "{from} tells {found:?}: {line}");
            }
        }
    }
}

/// What came in answer, as far as it is the proxy's own: whole problem documents, and fields that it alone makes.
#[derive(Default)]
struct Own(String);

impl Own {
    fn note(&mut self, answer: &Message) {
        if answer.field("content-type") == Some("application/problem+json") {
            self.0.push_str(&answer.head);
            self.0.push_str(&String::from_utf8_lossy(&answer.body));
            self.0.push('\n');
        }
        for name in ["cache-status", "proxy-status", "x-request-id"] {
            self.0.extend(answer.fields(name).into_iter().chain(["\n"]));
        }
    }

    /// Sends bytes on a connection of their own; whatever comes back, or nothing, is noted.
    async fn exchange(&mut self, url: &str, request: String) -> Option<u16> {
        let mut talk = Talk::to(url).await;
        talk.send(&request).await;
        let method = request.split(' ').next().unwrap_or_default();
        let answer = talk.message_to(method).await?;
        self.note(&answer);
        Some(answer.status())
    }
}

fn list_path(source: &str) -> String {
    StandIn::list_path(source)
}

fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> String {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nhost: h\r\n{fields}{length}\r\n{body}")
}

/// Every field in which a client says who he is, or what he thinks.
fn telling_fields() -> Vec<(&'static str, &'static str)> {
    vec![
        ("cookie", "_session=qzxvj-cookie"),
        ("authorization", "Bearer qzxvj-bearer"),
        ("api_access_token", "qzxvj-access"),
        ("x-auth-token", "qzxvj-access"),
        ("origin", "https://qzxvj.test"),
        ("referer", "https://h/qzxvj"),
        ("user-agent", "qzxvj/1.0"),
        ("if-none-match", "\"qzxvj\""),
        ("traceparent", "qzxvj"),
        ("x-forwarded-for", "qzxvj"),
        ("forwarded", "for=qzxvj"),
        ("x-qzxvj", "1"),
    ]
}

async fn reads(own: &mut Own, url: &str) {
    let list = list_path(CONTACT);
    let encoded: String = CONTACT.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for target in [
        list.clone(),
        list.clone(),
        list.replace(CONTACT, &encoded),
        format!("{list}/"),
        format!("{list}.json"),
        format!("{list}?for={CONTACT}"),
        format!("{list}?identifier_hash=qzxvj-hash"),
        format!("http://h{list}"),
        list.trim_end_matches("/conversations").to_owned(),
        format!("{}?identifier_hash=qzxvj-hash", list.trim_end_matches("/conversations")),
        format!("{list}/1/messages"),
        "/qzxvj/elsewhere?qzxvj".to_owned(),
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "QZXVJ"] {
            own.exchange(url, request(method, &target, &[], "")).await;
        }
        for field in telling_fields() {
            own.exchange(url, request("GET", &target, &[field], "")).await;
        }
        own.exchange(url, request("GET", &target, &telling_fields(), "")).await;
        let asking = [
            ("origin", "https://qzxvj.test"),
            ("access-control-request-method", "GET"),
            ("access-control-request-headers", "x-qzxvj"),
        ];
        own.exchange(url, request("OPTIONS", &target, &asking, "")).await;
    }
    let mut talk = Talk::to(url).await;
    talk.send(request("GET", &list, &[], "")).await;
    let answer = talk.message().await.expect("a list");
    let etag = answer.field("etag").expect("a validator").to_owned();
    assert_eq!(own.exchange(url, request("GET", &list, &[("if-none-match", &etag)], "")).await, Some(304));
}

async fn writes(own: &mut Own, url: &str, survey: &str) {
    let list = list_path(CONTACT);
    let contact = list.trim_end_matches("/conversations");
    let secret = r#"{"identifier_hash":"qzxvj-hash","name":"qzxvj","email":"qzxvj@qzxvj.test","content":"qzxvj"}"#;
    for (method, target) in [
        ("POST", format!("{list}/1/messages")),
        ("POST", format!("{list}/1/toggle_status")),
        ("POST", format!("{list}/1/toggle_typing")),
        ("POST", list.clone()),
        ("PATCH", contact.to_owned()),
        ("POST", format!("/public/api/v1/inboxes/{INBOX}/contacts")),
        ("PUT", format!("/public/api/v1/csat_survey/{survey}")),
        ("POST", "/api/v1/accounts/1/conversations/1/messages".to_owned()),
        ("POST", "/api/v1/accounts/1/contacts/qzxvj".to_owned()),
        ("POST", "/qzxvj".to_owned()),
        ("PURGE", contact.to_owned()),
        ("DELETE", contact.to_owned()),
    ] {
        for body in [secret, "qzxvj", r#"{"qzxvj":"#] {
            let mut fields = telling_fields();
            fields.push(("content-type", "application/json"));
            own.exchange(url, request(method, &target, &fields, body)).await;
        }
    }
    // A client that leaves in the middle, and one whose chunks are none.
    let mut leaving = Talk::to(url).await;
    leaving.send(format!("POST {list}/1/messages HTTP/1.1\r\nhost: h\r\ncontent-length: 99\r\n\r\n{MARK}")).await;
    drop(leaving);
    let chunks =
        format!("POST {list}/1/messages HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{MARK}\r\n");
    for end in ["qzxvj\r\n", "0\r\nqzxvj: qzxvj\r\n\r\n", "0\r\nqzxvj\r\n\r\n", "5;qzxvj=qzxvj\r\nqzxvjqzxvj\r\n"] {
        own.exchange(url, format!("{chunks}{end}")).await;
    }
}

async fn webhooks(own: &mut Own, url: &str) {
    let told = json!({ "event": "message_created", "qzxvj": "qzxvj", "account": { "id": 1 }, "conversation": {
        "id": 1, "contact_inbox": { "source_id": CONTACT, "pubsub_token": MARK } } })
    .to_string();
    let now = anteroom::engine::clock::wall().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let signed = |body: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"qzxvjHook7Sx9").expect("any length");
        mac.update(format!("{now}.{body}").as_bytes());
        let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={digest}")
    };
    let now = now.to_string();
    let unknown = r#"{"event":"qzxvj_happened","id":"qzxvj"}"#;
    for (query, body, signature) in [
        ("", told.as_str(), signed(&told)),
        ("", &told, signed("forged")),
        ("", &told, "qzxvj".to_owned()),
        ("", "qzxvj", signed("qzxvj")),
        ("", unknown, signed(unknown)),
        ("?token=qzxvjOld5Tk1", &told, String::new()),
        ("?token=qzxvj-wrong", &told, String::new()),
        ("?token=qzxvjOld5Tk1", "qzxvj", String::new()),
        ("/qzxvj?token=qzxvjOld5Tk1", &told, String::new()),
    ] {
        let mut fields = vec![("x-chatwoot-timestamp", now.as_str()), ("x-chatwoot-delivery", MARK)];
        if !signature.is_empty() {
            fields.push(("x-chatwoot-signature", &signature));
        }
        own.exchange(url, request("POST", &format!("/_anteroom/webhooks{query}"), &fields, body)).await;
        own.exchange(url, request("GET", &format!("/_anteroom/webhooks{query}"), &fields, body)).await;
    }
}

async fn refused_heads(own: &mut Own, url: &str) {
    let list = list_path(CONTACT);
    let many: String = (0..150).map(|number| format!("x-{number}: {MARK}\r\n")).collect();
    let long = format!("x-long: {}\r\n", MARK.repeat(20_000));
    for head in [
        format!("TRACE {list} HTTP/1.1\r\nhost: h\r\n"),
        format!("CONNECT {MARK}:443 HTTP/1.1\r\nhost: h\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost: a\r\nhost: {MARK}\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost: {MARK}@h/{MARK}\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost {MARK}\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost: h\r\n {MARK}\r\n"),
        format!("GET {list} {MARK}/1.1\r\nhost: h\r\n"),
        format!("GET {list}\r\n"),
        format!("GET /{MARK}<> HTTP/1.1\r\nhost: h\r\n"),
        format!("GET {MARK} HTTP/1.1\r\nhost: h\r\n"),
        format!("{MARK}\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost: h\r\ncontent-length: {MARK}\r\n"),
        format!("POST {list} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: {MARK}\r\n"),
        format!("POST {list} HTTP/1.1\r\nhost: h\r\nexpect: {MARK}\r\ncontent-length: 1\r\n"),
        format!("GET {list} HTTP/1.1\r\nhost: h\r\n{many}"),
        format!("GET {list} HTTP/1.1\r\nhost: h\r\n{long}"),
    ] {
        own.exchange(url, format!("{head}\r\n")).await;
    }
    // One that does not come to its end.
    let mut unfinished = Talk::to(url).await;
    unfinished.send(format!("GET {list} HTTP/1.1\r\nhost: {MARK}")).await;
    drop(unfinished);
}

async fn tunnel(stand_in: &StandIn, url: &str) {
    let mut socket = tunnels::open(url).await;
    assert_eq!(tunnels::next(&mut socket).await["type"], "welcome");
    for token in [stand_in.pubsub_token(CONTACT), MARK.to_owned()] {
        let channel = json!({ "channel": "RoomChannel", "pubsub_token": token }).to_string();
        let subscribe = json!({ "command": "subscribe", "identifier": channel }).to_string();
        socket.send(tungstenite::Message::text(subscribe)).await.expect("it is open");
        tunnels::next(&mut socket).await;
    }
    stand_in.agent_message(CONTACT, "qzxvj, said an agent");
    while tunnels::next(&mut socket).await["message"]["event"] != "message.created" {}
    socket.close(None).await.expect("it closes");
}

/// What HTTP/2 can say beside: requests as any, and blocks of fields that are none.
async fn http2_requests(http2: &Http2) {
    let list = list_path(CONTACT);
    for (method, target) in [("GET", list.as_str()), ("GET", "/qzxvj"), ("POST", list.as_str()), ("PUT", "/qzxvj")] {
        let body = (method != "GET").then(|| Bytes::from_static(b"{\"content\":\"qzxvj\"}"));
        let fields: Vec<_> = telling_fields().into_iter().filter(|(name, _)| *name != "api_access_token").collect();
        let _ = http2.send(http2.request(method, target, &fields), body.clone()).await;
        let _ = http2.send(http2.request(method, target, &[]), body).await;
    }
}

async fn http2_junk(url: &str) {
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/qzxvj")];
    for (name, value) in [
        (":path", "/qzxvj\u{7f}<>"),
        (":path", "qzxvj"),
        (":authority", "qzxvj@qzxvj/qzxvj"),
        (":authority", "[qzxvj"),
        (":scheme", "qz xvj"),
        (":method", "QZ XVJ"),
        (":qzxvj", "qzxvj"),
        ("x-QZXVJ", "qzxvj"),
        ("x-qzxvj", "qzxvj\r\nqzxvj"),
        ("connection", "qzxvj"),
        ("content-length", "qzxvj"),
        ("te", "qzxvj"),
    ] {
        let mut fields: Vec<_> = good.into_iter().filter(|(known, _)| *known != name).collect();
        fields.push((name, value));
        // Pseudo fields come first.
        fields.sort_by_key(|(name, _)| !name.starts_with(':'));
        let mut frames = Frames::to(url).await;
        frames.write(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
        frames.outcome(1).await;
    }
    let mut frames = Frames::to(url).await;
    frames.write(HEADERS, END_HEADERS | END_STREAM, 1, MARK.as_bytes()).await;
    frames.goaway().await;
}

/// What an upstream should not answer, one for each path of that number.
fn junk_answers() -> Vec<String> {
    let with = |fields: &str, body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{fields}\r\n{body}",
            body.len()
        )
    };
    let many: String = (0..150).map(|number| format!("x-{number}: {MARK}\r\n")).collect();
    vec![
        "HTTP/1.1 2x0 qzxvj\r\n\r\n".into(),
        "qzxvj\r\n\r\n".into(),
        "HTTP/1.1 200 qzxvj\r\nqzxvj\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: qzxvj\r\n\r\n".into(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: qzxvj\r\n\r\nqzxvj".into(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nqzxvj\r\n".into(),
        "HTTP/1.1 101 qzxvj\r\nconnection: upgrade\r\nupgrade: qzxvj\r\n\r\n".into(),
        "HTTP/1.1 301 Moved\r\nlocation: https://qzxvj/qzxvj\r\ncontent-length: 0\r\n\r\n".into(),
        "HTTP/1.1 503 qzxvj\r\nretry-after: qzxvj\r\ncontent-length: 5\r\n\r\nqzxvj".into(),
        "HTTP/1.1 401 no\r\nwww-authenticate: qzxvj\r\ncontent-length: 5\r\n\r\nqzxvj".into(),
        "HTTP/1.1 200 OK\r\ncontent-type: text/qzxvj\r\ncontent-length: 5\r\n\r\nqzxvj".into(),
        "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nqzxvj".into(),
        with("", r#"[{"qzxvj":"qzxvj","id":"qzxvj","status":"qzxvj","messages":[{"qzxvj":1}],"contact":"qzxvj"}]"#),
        with("", r#"{"qzxvj":"qzxvj"}"#),
        with("", "[qzxvj]"),
        with("content-encoding: qzxvj\r\n", "[]"),
        with("content-encoding: gzip\r\n", "[qzxvj]"),
        with("vary: qzxvj\r\nset-cookie: qzxvj\r\ncache-control: private=\"qzxvj\"\r\n", "[]"),
        with("etag: qzxvj\r\ndate: qzxvj\r\nage: qzxvj\r\nvia: qzxvj\r\n", "[]"),
        with(&many, "[]"),
        String::new(),
    ]
}

async fn upstream_failures(own: &mut Own, url: &str, stand_in: &StandIn, relay: &Relay) {
    for (name, fault, _) in Fault::ALL {
        if fault == Fault::Slow {
            continue;
        }
        let source = format!("{CONTACT}-{name}");
        stand_in.seed(&source, Shape { conversations: 1, messages: 1, bytes: 10 });
        stand_in.fault_on(fault, Matcher::any());
        let list = list_path(&source);
        own.exchange(url, request("GET", &list, &[], "")).await;
        own.exchange(url, request("POST", &list, &telling_fields(), "{\"content\":\"qzxvj\"}")).await;
        own.exchange(url, request("GET", &format!("/{source}"), &[("connection", "close")], "")).await;
        stand_in.clear_faults();
    }
    let answers = Arc::new(junk_answers());
    let count = answers.len();
    let junk = Scripted::start(move |_, mut talk| {
        let answers = answers.clone();
        async move {
            while let Some(request) = talk.message().await {
                let number = request.start_line().split("junk-").nth(1).and_then(|rest| rest.get(..2)?.parse().ok());
                talk.send(&answers[number.unwrap_or(0_usize)]).await;
                if number.is_none_or(|number| number != 6) {
                    return;
                }
            }
        }
    })
    .await;
    for (to, paths) in [(junk.url(), count), ("http://127.0.0.1:9".to_owned(), 1)] {
        relay.leads_to(&to);
        for number in 0..paths {
            let source = format!("{CONTACT}-junk-{number:02}");
            let list = list_path(&source);
            own.exchange(url, request("GET", &list, &[], "")).await;
            own.exchange(url, request("GET", &list, &telling_fields(), "")).await;
            own.exchange(url, request("GET", &format!("/{source}"), &[], "")).await;
            own.exchange(url, request("POST", &list, &[], "{\"content\":\"qzxvj\"}")).await;
            own.exchange(url, tunnels::HANDSHAKE.replacen("/cable", &format!("/cable?{source}"), 1)).await;
        }
    }
    relay.leads_to(&stand_in.url());
}

/// By the command and by HTTP, allowed and not.
async fn purges(own: &mut Own, url: &str, admin: &str) {
    let bearer = format!("Bearer {TOKEN}");
    let contact = json!({ "contact": CONTACT }).to_string();
    for (token, body) in [
        (bearer.as_str(), contact.as_str()),
        ("Bearer qzxvj-wrong", &contact),
        ("qzxvj", &contact),
        (&bearer, "qzxvj"),
        (&bearer, r#"{"qzxvj":"qzxvj"}"#),
        (&bearer, r#"{"inbox":"qzxvj"}"#),
        (&bearer, r#"{"contact":"qzxvj/qzxvj"}"#),
    ] {
        own.exchange(admin, request("POST", "/purge", &[("authorization", token)], body)).await;
    }
    own.exchange(admin, request("GET", "/qzxvj?qzxvj", &[("authorization", &bearer)], "")).await;
    own.exchange(admin, format!("GET /{MARK}<> HTTP/1.1\r\nhost {MARK}\r\n\r\n")).await;
    // There is something to purge.
    assert_eq!(own.exchange(url, request("GET", &list_path(CONTACT), &[], "")).await, Some(200));
    for token in [TOKEN, "qzxvj-wrong"] {
        let variables = [("ANTEROOM_ADMIN__TOKEN", token)];
        let purged = run(&["purge", "--admin", admin, "--contact", "-"], &variables, CONTACT).await;
        assert_eq!(purged.code == Some(0), token == TOKEN, "{purged:?}");
        own.0.extend([purged.stdout, purged.stderr]);
    }
}

/// Settings that hold what they should not, or are none; the good ones come back.
async fn reloads(program: &Program, settings: &str) {
    let failed = "anteroom_config_reloads_total{result=\"failed\"}";
    let mut count = 0.0;
    for line in [
        "webhook = \"qzxvj9ABx\"",
        "admin.token = [\"qzxvj9ABx\"]",
        "qzxvj9ABx",
        "webhook.secrets = [{ file = 'qzxvj9ABx' ",
    ] {
        program.write_settings(&format!("{}\n{line}\n", settings.replace("admin.token", "webhook.path")));
        program.signal("HUP").await;
        count += 0.9;
        program.wait_for_metric(failed, |failures| failures > count).await;
    }
    program.write_settings(&settings.replace("qzxvjHook7Sx9", "qzxvjHook8Sx9"));
    program.signal("HUP").await;
    program.wait_for_metric("anteroom_config_reloads_total{result=\"ok\"}", |count| count > 0.5).await;
}

async fn a_busy_run(format: &str) {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    stand_in.seed(CONTACT, Shape { conversations: 1, messages: 2, bytes: 50 });
    let survey = stand_in.ask_csat(CONTACT);
    let relay = Relay::start().await;
    relay.leads_to(&stand_in.url());
    let settings = format!("log.format = \"{format}\"\n{SETTINGS}");
    let mut program = Program::serve(&relay.url, &settings).await;
    let list: serde_json::Value = serde_json::from_slice(&stand_in.list_body(CONTACT)).expect("JSON");
    let uuid = list[0]["uuid"].as_str().expect("a uuid").to_owned();
    let secrets = Secrets::new([survey.clone(), uuid, stand_in.pubsub_token(CONTACT)]);

    let mut own = Own::default();
    let url = program.url.clone();
    reads(&mut own, &url).await;
    writes(&mut own, &url, &survey).await;
    webhooks(&mut own, &url).await;
    refused_heads(&mut own, &url).await;
    tunnel(&stand_in, &url).await;
    http2_requests(&Http2::to(&url).await).await;
    http2_junk(&url).await;
    upstream_failures(&mut own, &url, &stand_in, &relay).await;
    purges(&mut own, &url, &program.admin).await;
    reloads(&program, &settings).await;
    program.wait_for_metric("anteroom_tunnels", |open| open < 0.5).await;
    secrets.assert_absent(&own.0, "an answer");
    secrets.assert_absent(&program.metrics().await, "/metrics");
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    for told in ["hit", "miss", "bypass", "pass", "write", "webhook", "refused", "failed"] {
        assert!(log.contains(&format!("\"{told}\"")), "no line about {told}");
    }
    secrets.assert_absent(&log, "the log");
    secrets.assert_absent(&program.rest().await, "standard output");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_run_tells_no_secret_to_machines() {
    a_busy_run("json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_run_tells_no_secret_to_people() {
    a_busy_run("pretty").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_tls_and_http2_on_both_sides_tells_no_secret() {
    for manner in [Manner::Answers, Manner::Breaks, Manner::FirstHangs] {
        let upstream = Secure::start(&["h2", "http/1.1"], manner).await;
        let front = Certificate::for_names(&["front.test"]);
        let trusted = format!("upstream.ca_file = '{}'\n", upstream.certificate.authority().display());
        let settings = format!("log.format = \"json\"\n{SETTINGS}{trusted}{}", front.settings());
        let mut program = Program::serve(&upstream.url, &settings).await;
        let key = std::fs::read_to_string(front.key()).expect("a key");
        let secrets = Secrets::new(key.lines().filter(|line| !line.starts_with('-')).map(str::to_owned));
        let address = program.url.trim_start_matches("https://").to_owned();
        let http2 = front.connect(&program.url, &["h2"]).await.expect("TLS");
        http2_requests(&Http2::over(http2, "h", &h2::client::Builder::new()).await).await;
        for target in [list_path(CONTACT), format!("/{MARK}<>"), format!("/{MARK}")] {
            let mut stream = front.connect(&program.url, &[]).await.expect("TLS");
            let fields = [telling_fields(), vec![("connection", "close")]].concat();
            stream.write_all(request("GET", &target, &fields, "").as_bytes()).await.expect("it takes it");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        // No handshake at all, and one that trusts nobody.
        let mut junk = Talk::to(&format!("http://{address}")).await;
        junk.send(request("GET", &list_path(CONTACT), &telling_fields(), "")).await;
        junk.rest().await;
        let stranger = Certificate::for_names(&["front.test"]);
        assert!(stranger.connect(&program.url, &[]).await.is_err());
        secrets.assert_absent(&program.metrics().await, "/metrics");
        program.signal("TERM").await;
        program.ended().await;
        secrets.assert_absent(&program.stderr(), "the log");
    }
}

/// A line of the log, kept here.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_panicked_is_told_without_what_it_was_about() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let before = std::panic::take_hook();
    let ours = panics::hook(Arc::new(Metrics::new()));
    // Other tests run at the same time, with panics of their own.
    let here = std::thread::current().id();
    std::panic::set_hook(Box::new(
        move |info| if std::thread::current().id() == here { ours(info) } else { before(info) },
    ));
    tracing::subscriber::with_default(log, || {
        for path in ["/qzxvj", "/other"] {
            assert!(std::panic::catch_unwind(|| assert_ne!(path, path, "a path of {path}")).is_err());
        }
        assert!(std::panic::catch_unwind(|| panic!("an invariant")).is_err());
    });
    let told = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    assert!(told.contains("an invariant") && told.contains("secrets.rs"), "{told}");
    Secrets::new([]).assert_absent(&told, "a panic");
}

//! The contract as the running proxy applies it: what readers get, what is kept, what is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::demo::{Options, Shape, StandIn};
use anteroom::policy::payload::schema::Label;
use anteroom::policy::payload::{self, INLINE_LIMIT, ViolationKind};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::child::Program;
use crate::support::raw::Scripted;
use crate::support::{Answer, Proxy, get, get_with, jump, post, request, send, settings, spawn};

const TYPICAL: &str = include_str!("../fixtures/payload/list-typical.json");
const SAMPLES: [&str; 4] = [
    TYPICAL,
    include_str!("../fixtures/payload/list-edge-cases.json"),
    include_str!("../fixtures/payload/list-older-server.json"),
    include_str!("../fixtures/payload/page-example.json"),
];
/// Every read asks the upstream.
const NO_TTL: &str = "cache.ttl = \"0s\"\ncache.stale_while_revalidate = \"0s\"\n";

/// An upstream that answers every request alike, until it is told to answer otherwise.
struct Upstream {
    scripted: Scripted,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    async fn giving(list: impl AsRef<[u8]>) -> Self {
        let answer = Arc::new(Mutex::new(ok("application/json; charset=utf-8", list)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (shared, counted) = (answer.clone(), asked.clone());
        let scripted = Scripted::start(move |_, mut talk| {
            let (answer, asked) = (shared.clone(), counted.clone());
            async move {
                while talk.message().await.is_some() {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let answer = answer.lock().unwrap().clone();
                    talk.send(answer).await;
                }
            }
        })
        .await;
        Self { scripted, answer, asked }
    }

    fn give(&self, content_type: &str, body: impl AsRef<[u8]>) {
        *self.answer.lock().unwrap() = ok(content_type, body);
    }

    fn give_list(&self, list: impl AsRef<[u8]>) {
        self.give("application/json; charset=utf-8", list);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn behind(&self, settings: &str) -> Proxy {
        Proxy::in_front_of(&self.scripted.url(), settings).await
    }
}

fn ok(content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\naccess-control-allow-origin: *\r\nvary: Origin\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A sample, changed.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut list: Value = TYPICAL.parse().unwrap();
    change(&mut list);
    list.to_string()
}

/// A list that breaks the contract in four places, with values and a key that nobody is to read.
fn broken() -> String {
    changed(|list| {
        list[0]["status"] = json!("hush-status");
        list[0]["messages"][0]["id"] = json!("hush-id");
        list[0]["messages"][0]["content_type"] = json!(null);
        list[0]["contact"].as_object_mut().unwrap().remove("email");
        list[0]["hush_key"] = json!("hush-value");
    })
}

fn violations(field: &str, kind: &str) -> String {
    format!("anteroom_payload_violations_total{{field=\"{field}\",kind=\"{kind}\"}}")
}

async fn assert_metric(proxy: &Proxy, name: &str, expected: f64) {
    let value = proxy.metric(name).await;
    assert!((value - expected).abs() < 0.1, "{name} is {value}, not {expected}");
}

fn stored(proxy: &Proxy) -> u64 {
    proxy.room.store.size().0
}

/// A problem document with these words in its detail.
fn assert_problem(answer: &Answer, words: &[&str]) {
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.cache_status());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = answer.text().parse().unwrap();
    assert_eq!(problem["status"], 502);
    let detail = problem["detail"].as_str().unwrap();
    for word in words {
        assert!(detail.contains(word), "no {word:?} in {detail}");
    }
    assert!(!answer.text().contains("hush"), "{}", answer.text());
    assert_eq!(answer.cache_status(), "anteroom; fwd=uri-miss; detail=breaks-contract");
}

#[tokio::test]
async fn the_samples_and_the_page_keep_the_contract_in_every_mode() {
    for mode in ["off", "report", "enforce"] {
        let upstream = Upstream::giving("").await;
        let proxy = upstream.behind(&format!("payload.validate = \"{mode}\"")).await;
        for (number, sample) in SAMPLES.into_iter().enumerate() {
            upstream.give_list(sample);
            let url = proxy.list_url(&format!("reader-{number}"));
            let first = get(&url).await;
            assert!(first.cache_status().ends_with("stored"), "{mode} {number}: {}", first.cache_status());
            let second = get(&url).await;
            assert!(second.is_hit() && first.body == second.body && first.body == sample, "{mode} {number}");
        }
        let metrics = get(&format!("{}/metrics", proxy.admin)).await.text();
        assert!(!metrics.contains("anteroom_payload_violations_total{"), "{mode}: {metrics}");
        // What is on the wire but not on the page: three MIME types in one sample, three and four companies in another.
        assert_metric(&proxy, "anteroom_payload_unknown_keys_total", if mode == "off" { 0.0 } else { 10.0 }).await;
    }
}

#[tokio::test]
async fn a_list_that_differs_is_served_stored_and_counted_by_field_and_kind() {
    let upstream = Upstream::giving(broken()).await;
    for (mode, times) in [("off", 0.0), ("report", 1.0)] {
        let proxy = upstream.behind(&format!("payload.validate = \"{mode}\"")).await;
        assert_eq!(proxy.list("reader").await.body, broken());
        let second = proxy.list("reader").await;
        assert!(second.is_hit() && second.body == broken(), "{mode}");
        for (field, kind) in [
            ("status", "unknown_enum_value"),
            ("messages.id", "wrong_type"),
            ("messages.content_type", "null"),
            ("contact.email", "missing"),
        ] {
            assert_metric(&proxy, &violations(field, kind), times).await;
        }
        // Three MIME types of the sample, and the one that was added.
        assert_metric(&proxy, "anteroom_payload_unknown_keys_total", times * 4.0).await;
    }
    assert_eq!(upstream.asked(), 2);
}

#[tokio::test]
async fn enforced_a_list_that_breaks_the_contract_is_a_problem_that_names_paths_and_no_values() {
    let upstream = Upstream::giving(broken()).await;
    let proxy = upstream.behind("payload.validate = \"enforce\"").await;
    let words = [
        "breaks the published contract",
        "[0].status: unknown_enum_value",
        "[0].messages[0].id: wrong_type",
        "[0].messages[0].content_type: null",
        "[0].contact.email: missing",
    ];
    let plain = proxy.list("reader").await;
    assert_problem(&plain, &words);
    assert_eq!(plain.header("access-control-allow-origin"), None);
    let browser = get_with(&proxy.list_url("reader"), &[("origin", "https://shop.test")]).await;
    assert_problem(&browser, &words);
    assert_eq!(browser.header("access-control-allow-origin"), Some("*"), "or a browser could not read why");
    let head = send(request("HEAD", &proxy.list_url("reader"), &[], "")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::BAD_GATEWAY, 0));
    assert_eq!((stored(&proxy), upstream.asked()), (0, 3), "nothing is kept of it");
    assert_metric(&proxy, &violations("status", "unknown_enum_value"), 3.0).await;
    assert_metric(&proxy, "anteroom_flight_ends_total{end=\"breaks_contract\"}", 3.0).await;

    upstream.give_list(TYPICAL);
    assert!(proxy.list("reader").await.cache_status().ends_with("stored"), "and all is well again");
}

#[tokio::test]
async fn a_problem_names_the_first_violations_only() {
    let upstream = Upstream::giving(format!("[{}]", vec!["{}"; 1000].join(","))).await;
    let proxy = upstream.behind("payload.validate = \"enforce\"").await;
    let answer = proxy.list("reader").await;
    assert_problem(&answer, &["[0].id: missing; [0].uuid: missing"]);
    assert_eq!(answer.text().matches("missing").count(), 5);
}

#[tokio::test]
async fn enforced_the_last_good_list_stands_in_while_it_is_current_and_not_too_old() {
    let upstream = Upstream::giving(TYPICAL).await;
    let proxy = upstream.behind(&format!("payload.validate = \"enforce\"\n{NO_TTL}")).await;
    proxy.list("reader").await;
    upstream.give_list(broken());
    for _ in 0..2 {
        let answer = proxy.list("reader").await;
        assert_eq!((answer.status, answer.body), (StatusCode::OK, Bytes::from_static(TYPICAL.as_bytes())));
        jump(Duration::from_secs(100)).await;
    }
    let answer = proxy.list("reader").await;
    assert!(answer.is_hit() && answer.cache_status().ends_with("detail=upstream-failing"), "{}", answer.cache_status());
    // Whoever asks for another list has no part of it.
    assert_problem(&proxy.list("another").await, &["[0].status: unknown_enum_value"]);
    jump(Duration::from_secs(400)).await;
    let answer = proxy.list("reader").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "after stale_if_error: {}", answer.cache_status());

    upstream.give_list(TYPICAL);
    jump(Duration::from_secs(1)).await;
    assert_eq!(proxy.list("reader").await.body, TYPICAL);
    upstream.give_list(broken());
    assert_eq!(proxy.list("reader").await.body, TYPICAL);
    // A write that went through this proxy: now the good list is out of date, and nobody gets it.
    assert_eq!(post(&format!("{}/1/toggle_status", proxy.list_url("reader")), "{}").await.status, StatusCode::OK);
    let answer = proxy.list("reader").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.cache_status());
}

/// Bodies of a 200 that are no list, with the length that was announced.
fn no_lists() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const JSON: &str = "application/json";
    let cut = TYPICAL.as_bytes()[..TYPICAL.len() / 2].to_vec();
    vec![
        ("text/html", b"<!doctype html><p>Back soon".to_vec(), "not a JSON array"),
        ("text/html", b"[]".to_vec(), "not a JSON array"),
        (JSON, b"<!doctype html><p>Back soon".to_vec(), "not a JSON array, at byte 0"),
        (JSON, b"{\"status\":200}".to_vec(), "not a JSON array, at byte 0"),
        (JSON, b"null".to_vec(), "not a JSON array, at byte 0"),
        (JSON, Vec::new(), "empty"),
        (JSON, cut, "cut off"),
        (JSON, TYPICAL.trim_end().trim_end_matches(']').as_bytes().to_vec(), "cut off"),
        (JSON, b"[] []".to_vec(), "more after the end of the array, at byte 3"),
        (JSON, b"[{\"id\":01}]".to_vec(), "not valid JSON"),
        (JSON, b"[\"\xff\"]".to_vec(), "not UTF-8"),
        (JSON, format!("{}{}", "[".repeat(5000), "]".repeat(5000)).into_bytes(), "nested too deeply"),
    ]
}

#[tokio::test]
async fn what_is_no_list_passes_unkept_and_the_kept_list_stays() {
    let upstream = Upstream::giving(TYPICAL).await;
    for mode in ["off", "report"] {
        let proxy = upstream.behind(&format!("payload.validate = \"{mode}\"")).await;
        for (content_type, body, _) in no_lists() {
            let case = format!("{mode} {content_type} {}", String::from_utf8_lossy(&body[..body.len().min(40)]));
            upstream.give(content_type, &body);
            let asked = upstream.asked();
            for _ in 0..2 {
                let answer = proxy.list("reader").await;
                assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &body[..]), "{case}");
                assert_eq!(answer.header("content-type"), Some(content_type), "{case}");
                assert_eq!(answer.cache_status(), "anteroom; fwd=uri-miss; fwd-status=200", "{case}");
            }
            assert_eq!((upstream.asked() - asked, stored(&proxy)), (2, 0), "{case}");
        }
        upstream.give_list(TYPICAL);
        proxy.list("reader").await;
        jump(Duration::from_secs(40)).await; // past TTL and stale-while-revalidate
        upstream.give("text/html", "<p>Back soon");
        assert_eq!(proxy.list("reader").await.body, "<p>Back soon");
        assert_eq!(stored(&proxy), 1, "a page for people says nothing of the list");
    }
}

#[tokio::test]
async fn enforced_what_is_no_list_is_a_failure() {
    let upstream = Upstream::giving("").await;
    let proxy = upstream.behind(&format!("payload.validate = \"enforce\"\n{NO_TTL}")).await;
    for (number, (content_type, body, why)) in no_lists().into_iter().enumerate() {
        upstream.give(content_type, &body);
        assert_problem(&proxy.list("stranger").await, &[why]);
        let source = format!("reader-{number}");
        upstream.give_list(TYPICAL);
        assert_eq!(proxy.list(&source).await.body, TYPICAL);
        upstream.give(content_type, &body);
        let answer = proxy.list(&source).await;
        assert!(answer.status == StatusCode::OK && answer.body == TYPICAL, "{number}: {}", answer.cache_status());
    }
}

/// `api.md` section 5, point by point: what real servers send is never a violation.
#[tokio::test]
async fn enforced_every_exception_that_real_servers_make_passes() {
    let message = "/0/messages/0";
    let attachment = r#"{"id":1,"message_id":1,"file_type":"image","account_id":7"#;
    let attachments = |more: &str| format!("[{attachment}{more}}}]");
    let sender = |more: &str| format!(r#"{{"id":1,"name":"A","type":"contact"{more}}}"#);
    let mut sets: Vec<(String, String)> = vec![
        // 1: null.
        (format!("{message}/content"), "null".into()),
        ("/0/contact".into(), "null".into()),
        // 2: absence, below; of everything that depends on the type: a bare attachment and a bare sender.
        (format!("{message}/attachments"), attachments("")),
        (format!("{message}/sender"), sender("")),
        // 3: unknown keys at any level.
        ("/0/group".into(), r#"{"id":1}"#.into()),
        (format!("{message}/group"), "[1,[2]]".into()),
        (format!("{message}/attachments"), attachments(r#","content_type":"image/png","x":{}"#)),
        (format!("{message}/sender"), sender(r#","company_id":5,"y":null"#)),
        ("/0/contact/new_column".into(), "1.5".into()),
        // 4: numbers that are no integers.
        (format!("{message}/attachments"), attachments(r#","width":1280.0,"height":607.5"#)),
        // 5: null elements.
        (format!("{message}/attachments"), "[null]".into()),
        (format!("{message}/attachments"), format!("[null,{attachment}}}]")),
        // 6: unknown values of open enums.
        (format!("{message}/content_type"), "\"hologram\"".into()),
        (format!("{message}/attachments"), attachments("").replace("image", "hologram")),
        (format!("{message}/sender"), sender("").replace("contact", "hologram")),
        ("/0/contact/contact_type".into(), "\"hologram\"".into()),
        // 7: opaque JSON.
        (format!("{message}/content_attributes"), r#"{"submitted_values":[{"title":"a","value":1}]}"#.into()),
        (
            format!("{message}/content_attributes"),
            r#"{"submitted_values":{"csat_survey_response":{"rating":5}}}"#.into(),
        ),
        (format!("{message}/content_attributes"), r#"{"external_error":null,"big":9007199254740993}"#.into()),
        (format!("{message}/attachments"), attachments(r#","meta":{"first_name":null,"deep":[[[{}]]]}"#)),
        // 8: no timestamp yet.
        ("/0/contact_last_seen_at".into(), "0".into()),
        ("/0/agent_last_seen_at".into(), "0".into()),
        (format!("{message}/created_at"), "0".into()),
        // 9: empty URLs, and whatever number the type of a message is.
        (format!("{message}/message_type"), "2".into()),
        (format!("{message}/attachments"), attachments(r#","thumb_url":"""#)),
        (format!("{message}/sender"), sender(r#","avatar_url":"","thumbnail":"""#)),
        ("/0/messages".into(), "[]".into()),
    ];
    for key in ["extension", "data_url", "thumb_url", "width", "height", "fallback_title"] {
        sets.push((format!("{message}/attachments"), attachments(&format!(",\"{key}\":null"))));
    }
    for key in [
        "name",
        "email",
        "phone_number",
        "identifier",
        "available_name",
        "availability_status",
        "additional_attributes",
        "custom_attributes",
        "description",
        "created_at",
    ] {
        let sender = sender("").replace("\"name\":\"A\"", "\"name\":null");
        sets.push((format!("{message}/sender"), sender.replace('}', &format!(",\"{key}\":null}}"))));
    }
    let contact: Value = TYPICAL.parse::<Value>().unwrap()[0]["contact"].clone();
    for key in contact.as_object().unwrap().keys() {
        if !["id", "account_id", "blocked", "label_list"].contains(&key.as_str()) {
            sets.push((format!("/0/contact/{key}"), "null".into()));
        }
    }
    let upstream = Upstream::giving("").await;
    let proxy = upstream.behind("payload.validate = \"enforce\"").await;
    let mut lists: Vec<(String, String)> = Vec::new();
    for (pointer, value) in sets {
        let list = changed(|list| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            list.pointer_mut(parent).unwrap()[key] = value.parse().unwrap();
        });
        lists.push((format!("{pointer} = {value}"), list));
    }
    for (parent, key) in [("/0/messages/0", "attachments"), ("/0/messages/0", "sender"), ("/0/contact", "company_id")] {
        let list = changed(|list| {
            list.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        });
        lists.push((format!("{parent} without {key}"), list));
    }
    lists.push(("no conversations".into(), "[]".into()));
    assert!(lists.len() > 50, "{}", lists.len());
    for (number, (case, list)) in lists.into_iter().enumerate() {
        upstream.give_list(&list);
        let answer = proxy.list(&format!("reader-{number}")).await;
        assert!(answer.status == StatusCode::OK && answer.body == list, "{case}: {}", answer.text());
    }
}

#[tokio::test]
async fn the_log_names_paths_and_no_values() {
    for mode in ["report", "enforce"] {
        let upstream = Upstream::giving(broken()).await;
        let settings = format!("payload.validate = \"{mode}\"\nlog.level = \"trace\"\ndrain.notice = \"0s\"\n");
        let mut program = Program::serve(&upstream.scripted.url(), &settings).await;
        let url = format!("{}{}", program.url, StandIn::list_path("reader"));
        get(&url).await;
        program.wait_for_stderr("a list differs from the contract").await;
        // Another list soon after is not told of: the metric has it.
        get(&format!("{url}?again")).await;
        program.signal("TERM").await;
        program.ended().await;
        let log = program.stderr();
        assert_eq!(log.matches("a list differs from the contract").count(), 1, "{log}");
        for path in ["[0].status: unknown_enum_value", "[0].messages[0].id: wrong_type", "[0].contact.email: missing"] {
            assert!(log.contains(path), "{mode}: no {path} in {log}");
        }
        assert!(!log.contains("hush"), "{mode}: {log}");
    }
}

/// Names and labels of the payload's series.
async fn series(proxy: &Proxy) -> BTreeSet<String> {
    let metrics = get(&format!("{}/metrics", proxy.admin)).await.text();
    let lines = metrics.lines().filter(|line| line.starts_with("anteroom_payload"));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

#[tokio::test]
async fn hostile_lists_add_no_series_beyond_the_contract() {
    let all: BTreeSet<String> = Label::all()
        .flat_map(|label| ViolationKind::ALL.map(|kind| violations(label.path(), kind.as_str())))
        .chain(["received", "kept", "sent"].map(|stage| format!("anteroom_payload_bytes_total{{stage=\"{stage}\"}}")))
        .chain(["anteroom_payload_unknown_keys_total".to_owned()])
        .collect();
    let upstream = Upstream::giving("[]").await;
    let proxy = upstream.behind("").await;
    let wrong = ["null", "1.5", "\"x\"", "[]", "{}", "true", "[null]", "[[1]]", "[{}]", "{\"a\":1}"];
    for (number, value) in wrong.into_iter().enumerate() {
        // Every known key with this value, at every level, and a hundred keys of its own beside them.
        let object = |shape: &payload::schema::Shape, inner: &[(&str, &str)]| {
            let known = shape.fields.iter().map(|field| {
                let inner = inner.iter().find(|(name, _)| *name == field.name);
                format!("\"{}\":{}", field.name, inner.map_or(value, |(_, text)| text))
            });
            let own = (0..100).map(|n| format!("\"key\\\"}}{number}-{n}\":{value}"));
            format!("{{{}}}", known.chain(own).collect::<Vec<_>>().join(","))
        };
        use payload::schema::{ATTACHMENT, CONTACT, CONVERSATION, MESSAGE, SENDER};
        let attachments = format!("[{value},{}]", object(&ATTACHMENT, &[]));
        let sender = object(&SENDER, &[]);
        let message = object(&MESSAGE, &[("attachments", &attachments), ("sender", &sender)]);
        let messages = format!("[{value},{message}]");
        let contact = object(&CONTACT, &[("label_list", &format!("[{value}]"))]);
        let conversation = object(&CONVERSATION, &[("messages", &messages), ("contact", &contact)]);
        upstream.give_list(format!("[{value},{conversation},{}]", object(&CONVERSATION, &[])));
        assert_eq!(proxy.list(&format!("reader-{number}")).await.status, StatusCode::OK);
    }
    let seen = series(&proxy).await;
    assert!(seen.len() > 100, "{}", seen.len());
    assert_eq!(seen.difference(&all).collect::<Vec<_>>(), Vec::<&String>::new());
}

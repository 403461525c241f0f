//! The contract as the running proxy applies it: what readers get, what is kept, what is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom::policy::payload::schema::{ATTACHMENT, CONTACT, CONVERSATION, Label, MESSAGE, SENDER};
use anteroom::policy::payload::{self, INLINE_LIMIT, ViolationKind};
use anteroom_stand_in::{Options, Shape, StandIn};
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
    proxy.state.cache.store.size().0
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

/// Series of violations that are above zero.
fn counted_violations(metrics: &str) -> usize {
    let series = metrics.lines().filter(|line| line.starts_with("anteroom_payload_violations_total{"));
    series.filter(|line| !line.ends_with(" 0")).count()
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
        assert_eq!(counted_violations(&metrics), 0, "{mode}: {metrics}");
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
        (JSON, b"[] []".to_vec(), "more after its end, at byte 3"),
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

#[tokio::test]
async fn the_log_tells_of_a_200_that_is_no_list() {
    let upstream = Upstream::giving("{\"hush\":\"hush\"}").await;
    let program = Program::serve(&upstream.scripted.url(), "log.level = \"warn\"").await;
    let url = format!("{}{}", program.url, StandIn::list_path("reader"));
    get(&url).await;
    program.wait_for_stderr("a 200 of the upstream is not a list").await;
    assert!(program.stderr().contains("not a JSON array, at byte 0") && !program.stderr().contains("hush"));
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
    // How lists did as a whole has four results, which are there from the start.
    let beyond = seen.difference(&all).filter(|series| !series.starts_with("anteroom_payload_lists_total{"));
    assert_eq!(beyond.collect::<Vec<_>>(), Vec::<&String>::new());
}

/// A stand-in with a contact whose list has something for every rule, and a proxy with these rules.
async fn trimming(rules: &str) -> (StandIn, Proxy) {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed("visitor-a", Shape { conversations: 3, messages: 7, bytes: 60 });
    stand_in.agent_toggle_status("visitor-a");
    let proxy = Proxy::start(&stand_in, rules).await;
    (stand_in, proxy)
}

/// What the pass makes of a list under the settings that a proxy has.
fn trimmed(rules: &str, list: &Bytes) -> Bytes {
    let config = settings("http://127.0.0.1:9", rules);
    payload::apply(list, &config.payload).unwrap().body
}

/// The upstream's validator, as its clients see it.
async fn upstreams_etag(stand_in: &StandIn, source: &str) -> String {
    let direct = get(&format!("{}{}", stand_in.url(), StandIn::list_path(source))).await;
    direct.header("etag").unwrap().to_owned()
}

#[tokio::test]
async fn every_reader_gets_the_trimmed_list() {
    let some = "payload.trim.messages_per_conversation = 2\n";
    let open = "payload.trim.statuses = [\"open\", \"pending\"]\n";
    let none = "payload.trim.statuses = [\"snoozed\"]\n";
    let drop = "payload.trim.drop = [\"contact.email\", \"messages.sender\", \"uuid\", \"nothing?\"]\n";
    let sort = "payload.trim.sort_conversations = true\n";
    for rules in [some, open, none, drop, sort, &format!("{some}{open}{drop}{sort}payload.validate = \"enforce\"")] {
        let (stand_in, proxy) = trimming(rules).await;
        if rules == sort {
            stand_in.fault(anteroom_stand_in::Fault::Reorder);
        }
        for source in ["visitor-a", "visitor-b", "visitor-c"] {
            let expected = trimmed(rules, &stand_in.list_body(source));
            let first = proxy.list(source).await;
            if rules == sort {
                let ids: Value = first.text().parse().unwrap();
                let ids: Vec<_> = ids.as_array().unwrap().iter().map(|it| it["id"].as_i64().unwrap()).collect();
                assert!(ids.is_sorted(), "{ids:?}");
            } else {
                assert_eq!(first.body, expected, "{rules} {source}");
            }
            assert!(first.cache_status().ends_with("stored"), "{rules} {source}: {}", first.cache_status());
            let second = proxy.list(source).await;
            assert!(second.is_hit() && second.body == first.body, "{rules} {source}");
            let head = send(request("HEAD", &proxy.list_url(source), &[], "")).await;
            let length = first.body.len().to_string();
            assert_eq!((head.header("content-length"), head.header("etag")), (Some(&*length), first.header("etag")));
            assert!(head.is_hit());
        }
        let (received, kept) = (proxy.state.metrics.payload_bytes.with_label_values(&["received"]).get(), "kept");
        let kept = proxy.state.metrics.payload_bytes.with_label_values(&[kept]).get();
        assert!(if rules == sort { kept == received } else { kept < received }, "{rules}: {kept} of {received}");
    }
}

#[tokio::test]
async fn a_trimmed_list_has_a_weak_validator_of_its_own_by_which_clients_revalidate() {
    let rules = "payload.trim.messages_per_conversation = 1";
    let (stand_in, proxy) = trimming(rules).await;
    let first = proxy.list("visitor-a").await;
    let own = first.header("etag").unwrap().to_owned();
    let upstreams = upstreams_etag(&stand_in, "visitor-a").await;
    assert!(own.starts_with("W/\"") && own.len() == upstreams.len() && own != upstreams, "{own} {upstreams}");
    let again = get_with(&proxy.list_url("visitor-a"), &[("if-none-match", &own)]).await;
    assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let with_the_upstreams = get_with(&proxy.list_url("visitor-a"), &[("if-none-match", &upstreams)]).await;
    assert_eq!(with_the_upstreams.status, StatusCode::OK, "that names another body");
    // Another process makes the same of the same.
    let replica = Proxy::start(&stand_in, rules).await;
    assert_eq!(replica.list("visitor-a").await.header("etag"), Some(&*own));
    assert_ne!(replica.list("visitor-b").await.header("etag"), Some(&*own));
    // What is not changed keeps the upstream's.
    let empty = replica.list("visitor-c").await;
    assert_eq!((&*empty.text(), empty.header("etag")), ("[]", Some("W/\"4f53cda18c2baa0c0354bb5f9a3ecbe5\"")));
}

/// The upstream's order may change from answer to answer, and its validator with it.
#[tokio::test]
async fn a_sorted_list_has_one_validator_whatever_the_order_it_came_in() {
    let (stand_in, proxy) = trimming(&format!("payload.trim.sort_conversations = true\n{NO_TTL}")).await;
    let first = proxy.list("visitor-a").await;
    assert_eq!(first.body, stand_in.list_body("visitor-a"), "it came in order");
    stand_in.fault(anteroom_stand_in::Fault::Reorder);
    let mut validators = BTreeSet::new();
    for _ in 0..4 {
        // Two looks and one fetch: both orders come to both.
        for _ in 0..2 {
            validators.insert(upstreams_etag(&stand_in, "visitor-a").await);
        }
        let again = proxy.list("visitor-a").await;
        assert_eq!((&again.body, again.header("etag")), (&first.body, first.header("etag")));
    }
    assert_eq!(validators.len(), 2, "the upstream's order changed");
}

#[tokio::test]
async fn what_described_the_upstreams_body_does_not_stand_beside_a_trimmed_one() {
    let upstream = Upstream::giving(TYPICAL).await;
    let more = "content-digest: sha-256=:x:\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\netag: \"strong\"\r\n";
    let with_more = |list: &str| {
        let answer = String::from_utf8(ok("application/json", list)).unwrap();
        answer.replace("vary: Origin\r\n", more).into_bytes()
    };
    *upstream.answer.lock().unwrap() = with_more(TYPICAL);
    let proxy = upstream.behind("payload.trim.drop = [\"contact\"]").await;
    let answer = proxy.list("reader").await;
    assert!(answer.header("etag").unwrap().starts_with("W/\""));
    for name in ["content-digest", "last-modified"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    // Nothing to trim: all of it holds.
    *upstream.answer.lock().unwrap() = with_more("[ ]");
    let answer = proxy.list("another").await;
    assert_eq!(answer.header("etag"), Some("\"strong\""));
    assert!(answer.header("content-digest").is_some() && answer.header("last-modified").is_some());
}

#[tokio::test]
async fn a_trimmed_list_is_revalidated_with_the_upstreams_validator_and_stays_trimmed() {
    let rules = format!("payload.trim.messages_per_conversation = 1\npayload.trim.drop = [\"contact\"]\n{NO_TTL}");
    let (stand_in, proxy) = trimming(&rules).await;
    let upstreams = upstreams_etag(&stand_in, "visitor-a").await;
    let first = proxy.list("visitor-a").await;
    for times in 1..4 {
        let again = proxy.list("visitor-a").await;
        assert_eq!((&again.body, again.header("etag")), (&first.body, first.header("etag")));
        assert_eq!(stand_in.requests().last().unwrap().headers["if-none-match"], *upstreams);
        assert_metric(&proxy, "anteroom_upstream_requests_total{result=\"3xx\"}", f64::from(times)).await;
    }
    stand_in.agent_message("visitor-a", "one more");
    let changed = proxy.list("visitor-a").await;
    assert_eq!(changed.body, trimmed(&rules, &stand_in.list_body("visitor-a")));
    assert_ne!(changed.header("etag"), first.header("etag"));
}

/// Coherence goes by what a list was made from, not by what was left of it.
#[tokio::test]
async fn writes_outdate_by_scopes_that_trimming_took_away() {
    for rules in [
        "payload.trim.drop = [\"id\", \"uuid\", \"contact\", \"messages\"]",
        "payload.trim.statuses = [\"snoozed\"]",
        "payload.trim.messages_per_conversation = 1\npayload.trim.drop = [\"messages.sender\", \"contact.id\", \"uuid\"]",
    ] {
        let (stand_in, proxy) = trimming(rules).await;
        stand_in.attach("visitor-a", "other-source");
        let uuid = stand_in.ask_csat("visitor-a");
        let is_fetched_anew = async |why: &str| {
            let answer = proxy.list("visitor-a").await;
            assert!(!answer.is_hit(), "{rules}: {why}: {}", answer.cache_status());
            assert_eq!(answer.body, trimmed(rules, &stand_in.list_body("visitor-a")), "{rules}: {why}");
            assert!(proxy.list("visitor-a").await.is_hit(), "{rules}: {why}");
        };
        is_fetched_anew("never asked for").await;
        let rating = r#"{"message":{"submitted_values":{"csat_survey_response":{"rating":5}}}}"#;
        let csat = format!("{}/public/api/v1/csat_survey/{uuid}", proxy.url);
        let rated = send(request("PUT", &csat, &[("content-type", "application/json")], rating)).await;
        assert_eq!(rated.status, StatusCode::OK, "{}", rated.text());
        is_fetched_anew("rated by the uuid of the conversation").await;
        let other = proxy.contact_url("other-source");
        let named =
            send(request("PATCH", &other, &[("content-type", "application/json")], r#"{"name":"Renamed"}"#)).await;
        assert_eq!(named.status, StatusCode::OK, "{}", named.text());
        is_fetched_anew("the contact was renamed through another source").await;
        proxy.list("visitor-b").await;
        assert_eq!(post(&format!("{}/conversations", proxy.contact_url("visitor-c")), "{}").await.status, 200);
        assert!(proxy.list("visitor-a").await.is_hit(), "{rules}: what has nothing in common stays");
    }
}

#[tokio::test]
async fn a_reload_with_other_rules_makes_what_was_kept_unusable() {
    let (stand_in, proxy) = trimming("payload.trim.messages_per_conversation = 2").await;
    let reload = |rules: &str| proxy.state.reload(settings(&stand_in.url(), rules)).unwrap();
    let list = stand_in.list_body("visitor-a");
    let steps = [
        "payload.trim.messages_per_conversation = 1",
        "payload.trim.drop = [\"contact.email\"]",
        "payload.trim.drop = [\"contact.phone_number\"]",
        "payload.trim.sort_conversations = true",
        "payload.validate = \"enforce\"",
        "",
    ];
    proxy.list("visitor-a").await;
    for rules in steps {
        reload(rules);
        let answer = proxy.list("visitor-a").await;
        assert!(answer.cache_status().ends_with("stored"), "{rules}: {}", answer.cache_status());
        assert_eq!(answer.body, trimmed(rules, &list), "{rules}");
        reload(rules);
        assert!(proxy.list("visitor-a").await.is_hit(), "{rules}: the same rules change nothing");
        assert!(!stand_in.requests().last().unwrap().headers.contains_key("if-none-match"), "{rules}");
    }
    // Not even when the upstream fails.
    reload("payload.trim.drop = [\"contact\"]");
    stand_in.fault(anteroom_stand_in::Fault::Error);
    let answer = proxy.list("visitor-a").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer.cache_status());
}

#[tokio::test]
async fn lists_that_pass_by_the_cache_are_untouched() {
    let rules = "payload.validate = \"enforce\"\npayload.trim.drop = [\"contact\"]\ncache.max_body = \"16KiB\"";
    let upstream = Upstream::giving(broken()).await;
    let proxy = upstream.behind(rules).await;
    let url = proxy.list_url("reader");
    for (url, fields) in [
        (url.clone(), &[("cookie", "a=b")][..]),
        (url.clone(), &[("authorization", "Bearer x")]),
        (format!("{url}/"), &[]),
        (format!("{url}.json"), &[]),
    ] {
        let answer = get_with(&url, fields).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, broken()), "{url} {fields:?}");
        assert!(answer.cache_status().contains("fwd=bypass"), "{}", answer.cache_status());
    }
    assert_eq!(counted_violations(&get(&format!("{}/metrics", proxy.admin)).await.text()), 0);
    // Too large to be collected: nobody has looked at it.
    let large = format!("[{}]", vec![broken().trim_matches(['[', ']']).to_owned(); 4].join(","));
    upstream.give_list(&large);
    for _ in 0..2 {
        let answer = proxy.list("reader").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, large.clone()));
    }
    assert_eq!(stored(&proxy), 0);
}

/// A list of so many bytes or a little more, with many messages.
fn long(bytes: usize) -> String {
    let sample = TYPICAL.parse::<Value>().unwrap().to_string();
    let conversations = sample.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    format!("[{}]", vec![conversations; bytes / conversations.len() + 1].join(","))
}

/// One thread runs everything but the pass over long lists. The only thread there is for those is held up, so that
/// their order is a fact: the short list and the hit are answered while the long list waits for its pass.
#[test]
fn a_pass_over_a_long_list_holds_nobody_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let list = long(4 << 20);
        let upstream = Upstream::giving(TYPICAL).await;
        let rules = "cache.max_body = \"8MiB\"\npayload.trim.messages_per_conversation = 1";
        let proxy = upstream.behind(rules).await;
        proxy.list("short").await;
        let (go_on, held) = std::sync::mpsc::channel::<()>();
        let holding = tokio::task::spawn_blocking(move || held.recv());
        upstream.give_list(&list);
        let url = proxy.list_url("long");
        let waiting = spawn(async move { get(&url).await });
        let received = f64::from(u32::try_from(TYPICAL.len() + list.len()).unwrap());
        proxy.wait_for_metric("anteroom_payload_bytes_total{stage=\"received\"}", received).await;
        assert!(proxy.list("short").await.is_hit());
        // A list below the limit is worked on at once: it needs no other thread.
        let short = long(INLINE_LIMIT - (24 << 10));
        assert!(short.len() < INLINE_LIMIT);
        upstream.give_list(&short);
        assert!(proxy.list("another").await.cache_status().ends_with("stored"));
        assert!(!waiting.is_finished());
        go_on.send(()).unwrap();
        let answer = waiting.await.unwrap();
        assert_eq!(answer.body, trimmed(rules, &Bytes::from(list)));
        assert!(answer.body.len() < 3 << 20 && proxy.list("long").await.is_hit());
        holding.await.unwrap().unwrap();
    });
}

/// Pieces of memory that these bodies take.
fn counted(bodies: &[&Bytes]) -> u64 {
    bodies.iter().map(|body| (body.len() as u64).div_ceil(1024) * 1024).sum()
}

#[tokio::test]
async fn memory_is_counted_while_bodies_live_and_all_of_it_is_given_back() {
    let upstream = Upstream::giving(long(300 << 10)).await;
    let rules = format!("{NO_TTL}payload.trim.messages_per_conversation = 1\ncache.max_body = \"1MiB\"\n");
    let proxy = upstream.behind(&rules).await;
    let memory = proxy.state.cache.memory.clone();
    let all = memory.free();
    let settled = async |expected: u64, why: &str| {
        let waiting = async {
            while memory.free() != expected {
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(told.is_ok(), "{why}: {} bytes are counted, not {}", all - memory.free(), all - expected);
    };
    let (list, short) = (proxy.list("a").await.body, long(9000));
    assert!(list.len() < 200 << 10);
    settled(all - counted(&[&list]), "one trimmed list is kept, and nothing of what it was made from").await;
    upstream.give_list(&short);
    let second = proxy.list("b").await.body;
    settled(all - counted(&[&list, &second]), "two").await;
    let third = proxy.list("a").await.body;
    settled(all - counted(&[&third, &second]), "the first was replaced").await;
    upstream
        .give_list(changed(|list| list.as_array_mut().unwrap().iter_mut().for_each(|it| it["messages"] = json!([]))));
    let untrimmed = proxy.list("c").await.body;
    settled(all - counted(&[&third, &second, &untrimmed]), "nothing was to be trimmed").await;
    // What is not kept: no list, too large, from an upstream that is gone.
    upstream.give("text/html", "<p>Back soon");
    proxy.list("d").await;
    upstream.give_list(long(2 << 20));
    proxy.list("e").await;
    settled(all - counted(&[&third, &second, &untrimmed]), "unkept").await;
    proxy.state.reload(settings(&upstream.scripted.url(), &format!("{rules}payload.validate = \"enforce\""))).unwrap();
    upstream.give_list(broken());
    assert_eq!(proxy.list("f").await.status, StatusCode::BAD_GATEWAY);
    upstream.give("text/html", "<p>Back soon");
    assert_eq!(proxy.list("g").await.status, StatusCode::BAD_GATEWAY);
    settled(all - counted(&[&third, &second, &untrimmed]), "refused").await;
    let Proxy { state, .. } = &proxy;
    let state = Arc::downgrade(state);
    proxy.stop().await;
    settled(all, "everything is dropped").await;
    assert_eq!(state.strong_count(), 0);
}

//! The contact identifier is the whole credential of the API: it appears in no log line and in no metric.

use std::collections::BTreeSet;

use anteroom::engine::metrics::Metrics;
use anteroom_stand_in::{Fault, INBOX, Matcher, Options, Shape, StandIn};

use crate::support::child::{Program, run};
use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::{Proxy, get, get_with, post, request, send};

/// With a character that has to be encoded, and one that may be.
const SECRET: &str = "zebra:quince~7f3";

/// Every way in which it might be written down.
fn spellings() -> Vec<String> {
    let bytes: String = SECRET.bytes().map(|byte| format!("{byte}, ")).collect();
    let encoded: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    // The middle of it would do, too.
    vec!["zebra".into(), "quince".into(), "ebr%".into(), bytes.trim_end_matches(", ").into(), encoded, hex]
}

fn assert_silent(text: &str, where_to: &str) {
    let lower = text.to_lowercase();
    for spelling in spellings() {
        let found = lower.lines().find(|line| line.contains(&spelling.to_lowercase()));
        assert!(found.is_none(), "{where_to} tells {spelling}: {}", found.unwrap_or_default());
    }
}

#[tokio::test]
async fn the_identifier_is_in_no_log_line_and_no_metric() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    stand_in.seed(SECRET, Shape { conversations: 1, messages: 2, bytes: 50 });
    let settings = "log.level = \"trace\"\nlog.hits = 1.0\nlog.format = \"json\"\nadmin.token = \"hush-hush\"\n\
                    drain.notice = \"0s\"\nupstream.fetch_timeout = \"500ms\"\nupstream.head_timeout = \"500ms\"\n\
                    cache.ttl = \"0s\"\ncache.stale_while_revalidate = \"1h\"\n\
                    webhook.unsigned_token = \"quince\"\nwebhook.secrets = [\"zebra\"]\n";
    let mut program = Program::serve(&stand_in.url(), settings).await;
    let list = format!("{}{}", program.url, StandIn::list_path(SECRET));
    let contact = format!("{}/public/api/v1/inboxes/{INBOX}/contacts/{SECRET}", program.url);
    let conversation = stand_in.conversation_ids(SECRET)[0];
    let encoded: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();

    // Miss, stale hit, HEAD, 304, other spellings, aliases, credentials, queries.
    for url in [
        &list,
        &list,
        &list.replace(SECRET, &encoded),
        &format!("{list}/"),
        &format!("{list}.json"),
        &format!("{list}?for={SECRET}"),
    ] {
        get(url).await;
        send(request("HEAD", url, &[], "")).await;
    }
    get_with(&list, &[("if-none-match", "*")]).await;
    let all = [
        ("cookie", SECRET),
        ("authorization", SECRET),
        ("origin", SECRET),
        ("referer", &list),
        ("user-agent", SECRET),
        ("x-request-id", "fine"),
        ("traceparent", SECRET),
    ];
    for field in all {
        get_with(&list, &[field]).await;
    }
    // What passes and what is written.
    get(&contact).await;
    get(&format!("{contact}?identifier_hash=valid-hash")).await;
    get(&format!("{list}/{conversation}/messages")).await;
    post(&format!("{list}/{conversation}/messages"), &format!("{{\"content\":\"{SECRET}\"}}")).await;
    post(&format!("{list}/{conversation}/toggle_status"), "").await;
    post(&contact.replace(SECRET, ""), &format!("{{\"source_id\":\"{SECRET}-2\"}}")).await;
    send(request("PATCH", &contact, &[("content-type", "application/json")], &format!("{{\"name\":\"{SECRET}\"}}")))
        .await;
    send(request("PURGE", &contact, &[], "")).await;
    // What is told: believed, not believed, not understood, and on a path that is none.
    let told = format!(
        r#"{{"event":"message_created","conversation":{{"contact_inbox":{{"source_id":"{SECRET}","pubsub_token":"{SECRET}"}}}}}}"#
    );
    let signed = [("x-chatwoot-signature", SECRET), ("x-chatwoot-timestamp", SECRET), ("x-chatwoot-delivery", SECRET)];
    for (path, fields, body) in [
        ("/_anteroom/webhooks?token=quince", &signed[2..], told.as_str()),
        ("/_anteroom/webhooks?token=quince", &signed, &told),
        ("/_anteroom/webhooks?token=quinces", &[], &told),
        ("/_anteroom/webhooks?token=quince", &[], SECRET),
        ("/_anteroom/webhooks?token=quince", &[], &format!(r#"{{"event":"{SECRET}"}}"#)),
        ("/_anteroom/webhooks/?token=quince", &[], &told),
    ] {
        send(request("POST", &format!("{}{path}", program.url), fields, body)).await;
    }
    // What is refused, by this side and below HTTP.
    for raw in [
        format!("TRACE {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path(SECRET)),
        format!("CONNECT {SECRET}:443 HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET {} HTTP/1.1\r\nhost: a\r\nhost: {SECRET}\r\n\r\n", StandIn::list_path(SECRET)),
        format!("GET {} HTTP/1.1\r\nhost {SECRET}\r\n\r\n", StandIn::list_path(SECRET)),
        format!("GET /{SECRET}<> HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET /cable?{SECRET} HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    ] {
        exchange(&program.url, raw).await;
    }
    // What goes wrong.
    for fault in Fault::ALL.map(|(_, fault, _)| fault) {
        if fault == Fault::Slow {
            continue;
        }
        let source = format!("{SECRET}-{fault}");
        stand_in.seed(&source, Shape { conversations: 1, messages: 1, bytes: 10 });
        stand_in.fault_on(fault, Matcher::any());
        let url = format!("{}{}", program.url, StandIn::list_path(&source));
        get(&url).await;
        let mut passing = Talk::to(&program.url).await;
        passing.send(format!("GET /{source} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")).await;
        if fault != Fault::HangBody {
            passing.message().await;
        }
        drop(passing);
        stand_in.clear_faults();
    }
    // A client that leaves in the middle.
    let mut leaving = Talk::to(&program.url).await;
    leaving
        .send(format!(
            "POST {}/1/messages HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n{SECRET}",
            StandIn::list_path(SECRET)
        ))
        .await;
    drop(leaving);
    let purged =
        run(&["purge", "--admin", &program.admin, "--contact", "-"], &[("ANTEROOM_ADMIN__TOKEN", "hush-hush")], SECRET)
            .await;
    assert_eq!(purged.code, Some(0));
    assert_silent(&format!("{purged:?}"), "the command");
    // A reload whose file holds something it should not.
    std::fs::write(program.settings_file(), format!("{settings}webhook = 1\n")).unwrap();
    program.signal("HUP").await;
    program.wait_for_metric("anteroom_config_reloads_total{result=\"failed\"}", |count| count > 0.5).await;

    let metrics = program.metrics().await;
    assert_silent(&metrics, "/metrics");
    assert_described(&metrics);
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    for outcome in ["hit", "stale", "miss", "bypass", "pass", "write", "webhook", "refused", "failed"] {
        // Fresh hits need a TTL: here they are stale.
        let told = log.contains(&format!("\"outcome\":\"{outcome}\""));
        assert!(told || outcome == "hit", "no line about {outcome}");
    }
    assert!(log.contains("\"contact\":\""), "a keyed hash stands for the contact");
    assert!(!log.contains("hush-hush"));
    assert_silent(&log, "the log");
}

/// Every label has one of the values that `docs/metrics.md` lists.
fn assert_described(metrics: &str) {
    let described = Metrics::new();
    for series in series(metrics) {
        let Some((name, labels)) = series.split_once('{') else { continue };
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let metric = described.described().iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not described"));
        for (label, value) in labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('=')) {
            if label == "le" {
                continue;
            }
            let (_, values) = metric.labels.iter().find(|(known, _)| *known == label).expect("a described label");
            assert!(values.is_empty() || values.contains(&value.trim_matches('"')), "{series}");
        }
    }
}

/// Names and labels of everything `/metrics` shows.
fn series(metrics: &str) -> BTreeSet<String> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}

/// One request of each kind; `n` is in whatever a stranger may choose.
fn strange_requests(n: usize) -> [String; 9] {
    let list = StandIn::list_path("visitor-a");
    [
        format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", list.replace("visitor-a", &format!("id-{n}"))),
        format!("GET {list}?q={n} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET {list}?q={n} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET {list}/ HTTP/1.1\r\nhost: h{n}\r\norigin: o{n}\r\n\r\n"),
        format!("GET {list}?q={n} HTTP/1.1\r\nhost: h\r\ncookie: {n}\r\n\r\n"),
        format!("GET /path-{n} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("M{n} /path-{n}?{n} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("M{n} {} HTTP/1.1\r\nhost: h\r\n\r\n", list.replace("visitor-a", &format!("other-{n}"))),
        format!("TRACE /{n} HTTP/1.1\r\nhost: h\r\n\r\n"),
    ]
}

/// Sends the requests of these numbers, many in a row before their answers are read.
async fn pester(url: String, numbers: std::ops::Range<usize>) {
    const IN_A_ROW: usize = 20;
    let mut client = Talk::to(&url).await;
    for first in numbers.clone().step_by(IN_A_ROW) {
        let requests: Vec<String> = (first..numbers.end.min(first + IN_A_ROW)).flat_map(strange_requests).collect();
        client.send(requests.concat()).await;
        for request in requests {
            client.message().await.unwrap_or_else(|| panic!("no answer to {request}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_strange_requests_add_no_series() {
    let list = r#"[{"contact":{"id":1}}]"#;
    let length = list.len();
    let upstream = Scripted::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{list}"
    ))
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    pester(proxy.url.clone(), 0..1).await;
    let metrics = async || get(&format!("{}/metrics", proxy.admin)).await.text();
    let before = series(&metrics().await);
    let numbers = 1..100_000_usize.div_ceil(strange_requests(0).len()) + 1;
    let (one, other) = (numbers.start..numbers.end / 2, numbers.end / 2..numbers.end);
    let pestering = [one, other].map(|numbers| tokio::spawn(pester(proxy.url.clone(), numbers)));
    for pestering in pestering {
        pestering.await.unwrap();
    }
    let text = metrics().await;
    assert_eq!(series(&text).difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(text.len() < 200_000, "{} bytes", text.len());
    let counted = text.lines().filter(|line| line.starts_with("anteroom_requests_total{"));
    let counted: f64 = counted.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
    assert!(counted >= 100_000.0, "{counted}");
}

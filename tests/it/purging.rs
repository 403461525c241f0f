//! Purging: what is named is gone, with what is kept of the same contact under other identifiers, and it is told what
//! that was.

use anteroom_stand_in::{Fault, INBOX, Matcher, OTHER_INBOX, Point, Shape, StandIn};
use http::StatusCode;
use serde_json::Value;

use crate::support::child::{Program, run};
use crate::support::{Answer, Proxy, both, get, reading, request, send};

const ENTRIES: &str = "anteroom_cache_entries";
const TOKEN: &str = "admin.token = \"let-me-in\"\n";

async fn purge(proxy: &Proxy, what: &str) -> Answer {
    let token = [("authorization", "Bearer let-me-in")];
    send(request("POST", &format!("{}/purge", proxy.admin), &token, what)).await
}

async fn purged(proxy: &Proxy, what: &str) -> Value {
    let answer = purge(proxy, what).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn contact(source: &str) -> String {
    serde_json::json!({ "contact": source }).to_string()
}

#[tokio::test]
async fn what_was_found_and_dropped_is_printed_and_logged_and_names_nobody() {
    let stand_in = StandIn::start(anteroom_stand_in::Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), &format!("{TOKEN}drain.notice = \"0s\"\nlog.hits = 1.0\n")).await;
    let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
    get(&list).await;
    assert!(get(&list).await.is_hit());
    // The settings say where it listens and what the token is, the command's own and no flag.
    let variables = [("ANTEROOM_ADMIN__ADDRESS", program.admin.trim_start_matches("http://"))];
    let file = program.settings_file();
    let arguments = ["purge", "--config", file.to_str().unwrap(), "--contact", "-"];
    let done = run(&arguments, &variables, "visitor-a\n").await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    let bytes = stand_in.list_body("visitor-a").len();
    assert!(done.stdout.starts_with(&format!("dropped 1 list ({bytes} bytes) of 1 contact, in the log ")), "{done:?}");
    let hash = done.stdout.trim().rsplit(' ').next().unwrap().to_owned();
    program.signal("TERM").await;
    let mut program = program;
    program.ended().await;
    let log = program.stderr();
    let line = log.lines().find(|line| line.contains("\"purged\"")).unwrap_or_else(|| panic!("{log}"));
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((line["what"].as_str(), line["by"].as_str()), (Some("contact"), Some("127.0.0.1")));
    assert_eq!((line["lists"].as_u64(), line["bytes"].as_u64()), (Some(1), Some(bytes as u64)));
    assert!(line["timestamp"].is_string());
    // The same as in the access lines.
    assert_eq!(line["contact"].as_str(), Some(hash.as_str()));
    assert!(log.lines().any(|line| line.contains("\"hit\"") && line.contains(&hash)), "{log}");
    assert!(!log.contains("visitor-a") && !format!("{done:?}").contains("visitor-a"));
}

#[tokio::test]
async fn what_is_purged_leaves_memory() {
    let (stand_in, proxy) = both(TOKEN).await;
    for source in ["one", "two", "three"] {
        stand_in.seed(source, Shape { conversations: 2, messages: 20, bytes: 2000 });
        assert!(proxy.list(source).await.cache_status().contains("stored"));
    }
    assert!(proxy.metric("anteroom_body_bytes").await > 200_000.0);
    assert_eq!(purged(&proxy, &contact("one")).await["lists"], 1);
    proxy.wait_for_metric(ENTRIES, 2.0).await;
    let told = purged(&proxy, &format!(r#"{{"inbox":"{INBOX}"}}"#)).await;
    let length = ["two", "three"].map(|source| stand_in.list_body(source).len()).iter().sum::<usize>();
    assert_eq!((told["lists"].as_u64(), told["bytes"].as_u64()), (Some(2), Some(length as u64)));
    assert_eq!(told["contacts"], 2);
    proxy.wait_for_metric(ENTRIES, 0.0).await;
    proxy.wait_for_metric("anteroom_body_bytes", 0.0).await;
    assert!(proxy.metric("anteroom_cache_bytes").await < 1.0);
    // All of nothing is nothing, and no mistake.
    assert_eq!(purged(&proxy, r#"{"all":true}"#).await["lists"], 0);
}

#[tokio::test]
async fn a_name_that_nobody_has_and_one_that_nobody_can_have_are_refused() {
    let (_stand_in, proxy) = both(TOKEN).await;
    proxy.list("visitor-a").await;
    for nonsense in ["", " ", "a/b", "https://chat.example.com/x", "two\nlines", "..", &"x".repeat(2000)] {
        for what in [contact(nonsense), serde_json::json!({ "inbox": nonsense }).to_string()] {
            let answer = purge(&proxy, &what).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{nonsense:?}");
            assert!(answer.text().contains("no identifier"), "{}", answer.text());
        }
    }
    for what in ["", "{}", r#"{"contact":"a","all":true}"#, r#"{"contacts":"a"}"#, r#"{"all":false}"#] {
        assert_eq!(purge(&proxy, what).await.status, StatusCode::BAD_REQUEST, "{what}");
    }
    for what in [contact("nobody"), format!(r#"{{"inbox":"{OTHER_INBOX}"}}"#)] {
        let answer = purge(&proxy, &what).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(!answer.text().contains("nobody") && !answer.text().contains(OTHER_INBOX), "{}", answer.text());
    }
    assert!(proxy.list("visitor-a").await.is_hit(), "what was refused changes nothing");
}

#[tokio::test]
async fn a_contact_goes_with_the_lists_of_all_its_sources() {
    // An empty list names nobody.
    for conversations in [2, 0] {
        let (stand_in, proxy) = both(TOKEN).await;
        stand_in.seed("phone", Shape { conversations, messages: 2, bytes: 100 });
        stand_in.attach("phone", "mail");
        stand_in.verify("mail");
        for source in ["phone", "mail", "visitor-b"] {
            proxy.list(source).await;
            assert!(proxy.list(source).await.is_hit());
        }
        let told = purged(&proxy, &contact("phone")).await;
        assert_eq!((told["lists"].as_u64(), told["contacts"].as_u64()), (Some(2), Some(2)), "{conversations}");
        for source in ["phone", "mail"] {
            assert!(!proxy.list(source).await.is_hit(), "{source}, {conversations}");
        }
        assert!(proxy.list("visitor-b").await.is_hit(), "another's");
        // By a source of which no list is kept, as far as its contact is known.
        purged(&proxy, &contact("phone")).await;
        get(&proxy.contact_url("phone")).await;
        proxy.list("mail").await;
        assert_eq!(purged(&proxy, &contact("phone")).await["lists"], 2, "{conversations}: the contact and the list");
        assert!(!proxy.list("mail").await.is_hit());
    }
}

/// Also where what is only out of date may: nothing from before a purge is served after it.
#[tokio::test]
async fn a_purged_list_never_stands_in_for_an_error() {
    let settings = format!("{TOKEN}cache.serve_outdated_on_error = true");
    let (stand_in, proxy) = both(&settings).await;
    stand_in.attach("visitor-a", "mail");
    stand_in.verify("mail");
    let gone = async |source: &str| {
        stand_in.fault_on(Fault::Error, Matcher::any());
        let answer = proxy.list(source).await;
        assert!(answer.status.is_server_error(), "{source}: {}", answer.cache_status());
        stand_in.clear_faults();
    };
    for source in ["visitor-a", "mail", "visitor-b"] {
        proxy.list(source).await;
    }
    purged(&proxy, &contact("mail")).await;
    gone("visitor-a").await;
    gone("mail").await;
    // What was being fetched meanwhile, by any of its sources.
    for (source, named) in [("visitor-a", "visitor-a"), ("visitor-a", "mail")] {
        proxy.list("mail").await;
        let gate = stand_in.hold(Point::AfterReading, Matcher::list_of(source));
        let early = reading(&proxy, source);
        gate.arrived(1).await;
        purged(&proxy, &contact(named)).await;
        gate.release_all();
        assert_eq!(early.await.unwrap().status, StatusCode::OK, "who had come before it gets it");
        let kept = proxy.metric(ENTRIES).await;
        assert!((kept - 1.0).abs() < f64::EPSILON, "{kept} lists are kept, and only visitor-b's may be");
        gone(source).await;
        // A later one is kept again.
        proxy.list(source).await;
        stand_in.fault_on(Fault::Error, Matcher::any());
        assert!(proxy.list(source).await.status.is_success());
        stand_in.clear_faults();
        purged(&proxy, &contact(source)).await;
    }
    purged(&proxy, r#"{"all":true}"#).await;
    gone("visitor-b").await;
}

//! What the log says, for people and for machines.

use anteroom_stand_in::{Options, StandIn};
use serde_json::Value;

use crate::support::child::Program;
use crate::support::get_with;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

async fn log_of(settings: &str, stand_in: &StandIn) -> String {
    let mut program = Program::serve(&stand_in.url(), settings).await;
    let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
    get_with(&list, &[TRACEPARENT, ("x-request-id", "first")]).await;
    get_with(&list, &[("traceparent", "00-nonsense"), ("x-request-id", "second")]).await;
    get_with(&format!("{}/profile", program.url), &[TRACEPARENT, ("x-request-id", "third")]).await;
    program.signal("TERM").await;
    program.ended().await;
    program.stderr()
}

#[tokio::test]
async fn a_line_for_machines_is_an_object_with_everything_a_request_was() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let log = log_of("log.format = \"json\"\nlog.hits = 1.0\ndrain.notice = \"0s\"", &stand_in).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let of = |id: &str| lines.iter().find(|line| line["request_id"] == id).expect("an access line");
    let (first, second, third) = (of("first"), of("second"), of("third"));
    for (line, outcome) in [(first, "miss"), (second, "hit"), (third, "pass")] {
        assert_eq!(line["outcome"], outcome);
        assert_eq!(line["target"], "anteroom::access");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["method"], "GET");
        for number in ["status", "duration_ms", "received", "sent"] {
            assert!(line[number].is_number(), "{number}: {line}");
        }
        assert!(line["timestamp"].is_string(), "{line}");
    }
    assert_eq!(first["contact"], second["contact"]);
    assert_eq!(first["contact"].as_str().map(str::len), Some(16));
    assert_eq!(third.get("contact"), None);
    assert_eq!((&first["trace_id"], second.get("trace_id")), (&Value::from(TRACE), None));
    assert_eq!(third["trace_id"], TRACE);
}

#[tokio::test]
async fn a_line_for_people_is_no_json() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let log = log_of("log.format = \"pretty\"\ndrain.notice = \"0s\"", &stand_in).await;
    let line = log.lines().find(|line| line.contains("first")).expect("an access line");
    assert!(line.contains("outcome=\"miss\"") && line.contains("status=200") && !line.starts_with('{'), "{line}");
    assert!(!log.contains("second"), "by default a hit has no line");
}

/// A shared fetch is no one reader's.
#[tokio::test]
async fn a_trace_goes_on_with_what_is_passed_on_and_with_nothing_else() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    log_of("drain.notice = \"0s\"", &stand_in).await;
    let requests = stand_in.requests();
    let lists: Vec<_> = requests.iter().filter(|request| request.is_list).collect();
    assert_eq!(lists.len(), 1);
    assert!(lists.iter().all(|request| !request.headers.contains_key("traceparent")));
    let passed = requests.iter().find(|request| request.target == "/profile").expect("it was passed on");
    assert_eq!(passed.headers["traceparent"], TRACEPARENT.1);
}

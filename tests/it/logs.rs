//! What the log says, for people and for machines.

use std::process::Stdio;
use std::time::Duration;

use anteroom_stand_in::{Fault, Matcher, Options, StandIn};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::child::{Program, command, run};
use crate::support::raw::{Scripted, Talk};
use crate::support::{get, get_with, post, request, send};

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

fn access_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("one object a line"));
    lines.filter(|line| line["target"] == "anteroom::access").collect()
}

fn of_id<'a>(lines: &'a [Value], id: &str) -> &'a Value {
    lines.iter().find(|line| line["request_id"] == id).unwrap_or_else(|| panic!("no line of {id}: {lines:?}"))
}

async fn stopped(mut program: Program) -> String {
    program.signal("TERM").await;
    program.ended().await;
    program.stderr()
}

const JSON: &str = "log.format = \"json\"\ndrain.notice = \"0s\"\n";

#[tokio::test]
async fn a_line_says_what_was_asked_for_by_whom_and_how_long_the_upstream_took() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), &format!("{JSON}log.hits = 1.0")).await;
    let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
    let contact = list.strip_suffix("/conversations").unwrap();
    let conversation = stand_in.conversation_ids("visitor-a")[0];
    get_with(&list, &[("x-request-id", "miss")]).await;
    get_with(&list, &[("x-request-id", "hit")]).await;
    let message = format!("{list}/{conversation}/messages");
    let fields = [("x-request-id", "write"), ("content-type", "application/json")];
    send(request("POST", &message, &fields, "{\"content\":\"hush\"}")).await;
    get_with(contact, &[("x-request-id", "contact")]).await;
    get_with(&format!("{}/elsewhere/hush", program.url), &[("x-request-id", "other")]).await;
    let log = stopped(program).await;
    let lines = access_lines(&log);
    for (id, route, asks) in [
        ("miss", "conversations", true),
        ("hit", "conversations", false),
        ("write", "messages", true),
        ("contact", "contact", true),
        ("other", "other", true),
    ] {
        let line = of_id(&lines, id);
        assert_eq!(line["route"], route, "{id}");
        assert_eq!(line["upstream_ms"].as_f64().is_some_and(|took| took > 0.0), asks, "{line}");
        // All by one client, whose address is nowhere.
        assert_eq!(line["client"], lines[0]["client"]);
        assert_eq!(line["client"].as_str().map(str::len), Some(16));
    }
    for id in ["write", "contact"] {
        assert_eq!(of_id(&lines, id)["contact"], of_id(&lines, "miss")["contact"], "{id}");
    }
    assert_eq!(of_id(&lines, "other").get("contact"), None);
    assert!(!log.contains("hush") && lines.iter().all(|line| !line.to_string().contains("127.0.0.1")), "{log}");
}

#[tokio::test]
async fn a_clients_address_is_whole_or_nowhere_if_that_is_wanted() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    for (setting, expected) in [("whole", Some("127.0.0.1")), ("off", None)] {
        let program = Program::serve(&stand_in.url(), &format!("{JSON}log.client = \"{setting}\"")).await;
        get_with(&format!("{}/x", program.url), &[("x-request-id", "one")]).await;
        let lines = access_lines(&stopped(program).await);
        assert_eq!(of_id(&lines, "one")["client"].as_str(), expected);
    }
}

#[tokio::test]
async fn only_what_failed_or_was_slow_has_a_line_if_that_is_wanted() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let trouble = "log.only = \"trouble\"\nupstream.head_timeout = \"200ms\"\nlog.slow = \"100ms\"";
    let program = Program::serve(&stand_in.url(), &format!("{JSON}{trouble}")).await;
    let url = format!("{}/x", program.url);
    get_with(&url, &[("x-request-id", "well")]).await;
    stand_in.fault_on(Fault::Hang, Matcher::any());
    get_with(&url, &[("x-request-id", "failed")]).await;
    stand_in.clear_faults();
    let mut unread = Talk::to(&program.url).await;
    unread.send("nonsense\r\n\r\n").await;
    unread.rest().await;
    let lines = access_lines(&stopped(program).await);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&of_id(&lines, "failed")["level"], &lines[0]["status"]), (&Value::from("WARN"), &Value::from(504)));
    // A hit that was slow has a line whatever share of hits has one.
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        talk.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        talk.rest().await;
    })
    .await;
    let program = Program::serve(&upstream.url(), &format!("{JSON}log.slow = \"1ms\"\nlog.only = \"trouble\"")).await;
    get_with(&format!("{}/x", program.url), &[("x-request-id", "slow")]).await;
    let lines = access_lines(&stopped(program).await);
    assert_eq!(of_id(&lines, "slow")["outcome"], "pass");
}

#[tokio::test]
async fn a_tunnel_has_one_line_when_it_ends_with_what_passed() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        assert_eq!(talk.exactly(5).await.as_deref(), Some(&b"hello"[..]));
        talk.send("welcome").await;
        talk.rest().await;
    })
    .await;
    let program = Program::serve(&upstream.url(), JSON).await;
    let mut client = Talk::to(&program.url).await;
    let handshake = "GET /cable HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     x-request-id: tunnel\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    client.send(handshake).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101"));
    client.send("hello").await;
    assert_eq!(client.exactly(7).await.as_deref(), Some(&b"welcome"[..]));
    assert!(access_lines(&program.stderr()).is_empty(), "it has not ended");
    drop(client);
    program.wait_for_metric("anteroom_tunnels", |open| open < 0.5).await;
    let lines = access_lines(&stopped(program).await);
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = of_id(&lines, "tunnel");
    assert_eq!(
        (&line["route"], &line["status"], &line["detail"]),
        (&"cable".into(), &101.into(), &"tunnel-ended".into())
    );
    assert_eq!((&line["received"], &line["sent"]), (&5.into(), &7.into()), "{line}");
    assert!(line["client"].is_string() && line["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{line}");
}

#[tokio::test]
async fn what_could_not_be_read_as_a_request_has_a_line() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    for (bytes, status, detail) in [
        ("GET / HTTP/1.1\r\nhost h\r\n\r\n".to_owned(), 400, "parse"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)), 431, "too_large"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200)), 431, "too_large"),
    ] {
        let program = Program::serve(&stand_in.url(), JSON).await;
        let mut talk = Talk::to(&program.url).await;
        talk.send(&bytes).await;
        assert_eq!(talk.message().await.map(|answer| answer.status()), Some(status));
        program.wait_for_stderr("\"outcome\":\"refused\"").await;
        let lines = access_lines(&stopped(program).await);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert_eq!(
            (&line["status"], &line["detail"], &line["route"]),
            (&status.into(), &detail.into(), &"unread".into())
        );
        assert!(line["client"].is_string() && line.get("request_id").is_none(), "{line}");
    }
}

/// All that a deployment does with standard error but read it.
#[tokio::test]
async fn nothing_about_serving_depends_on_where_the_log_goes() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let deserted = {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    // Nobody reads it; it takes 64 KiB.
    let (_unread, full) = std::io::pipe().unwrap();
    let no_room = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for (name, stderr) in
        [("deserted", deserted), ("full pipe", Stdio::from(full)), ("full disk", Stdio::from(no_room))]
    {
        let settings = "log.level = \"trace\"\nlog.hits = 1.0\ndrain.notice = \"0s\"";
        let mut program = Program::serve_into(stderr, "127.0.0.1:0", &stand_in.url(), settings).await;
        let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
        // At `trace` each request has lines enough for any pipe.
        for _ in 0..100 {
            assert_eq!(get(&list).await.status, 200, "{name}");
            let path = format!("{}{}", program.url, StandIn::list_path("nobody"));
            assert_eq!(get(&path).await.status, 404, "{name}");
        }
        assert_eq!(post(&format!("{list}/1/toggle_typing"), "{}").await.status.as_u16() / 100, 4, "{name}");
        assert_eq!(get(&format!("{}/ready", program.admin)).await.status, 200, "{name}");
        if name != "full pipe" {
            assert!(program.metric("anteroom_log_lines_dropped_total").await > 100.0, "{name}");
        }
        program.signal("TERM").await;
        assert_eq!(program.ended().await.code(), Some(0), "{name}");
    }
}

#[tokio::test]
async fn a_standard_output_that_takes_nothing_is_no_reason_not_to_serve() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let deserted = {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let no_room = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for stdout in [deserted, Stdio::from(no_room)] {
        let arguments = [
            "serve",
            "--config",
            "/dev/null",
            "--upstream",
            &stand_in.url(),
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ];
        let mut child = command(&arguments).stdout(stdout).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // The log has the addresses, too.
        let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(first["message"], "started");
        assert_eq!(get(&format!("http://{}/ready", first["admin"].as_str().unwrap())).await.status, 200);
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn everything_on_standard_error_is_json_if_the_log_is() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended =
        run(&["serve", "--upstream", &stand_in.url(), "--listen", &address, "--admin", "127.0.0.1:0"], &[], "").await;
    assert_eq!(ended.code, Some(1));
    let line: Value = serde_json::from_str(&ended.stderr).unwrap_or_else(|_| panic!("{}", ended.stderr));
    assert!(line["message"].as_str().unwrap().contains(&format!("cannot listen on {address}")), "{line}");
    assert_eq!(line["level"], "ERROR");
}

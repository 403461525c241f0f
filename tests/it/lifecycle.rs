//! The program from its start to its end: what it says, how it obeys signals, and what its commands do.

use anteroom::server::listeners::Drained;
use anteroom_stand_in::{Matcher, Options, Point, StandIn};
use http::StatusCode;

use crate::support::child::{Program, run};
use crate::support::raw::{Scripted, Talk, exchange};
use crate::support::relay::Relay;
use crate::support::{Proxy, get, get_with, spawn};

/// No notice, since nobody has to hear of the drain.
const PROMPT: &str = "drain.notice = \"0s\"\n";

async fn both(settings: &str) -> (StandIn, Program) {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), settings).await;
    (stand_in, program)
}

fn list(program: &Program, source: &str) -> String {
    format!("{}{}", program.url, StandIn::list_path(source))
}

#[tokio::test]
async fn it_says_where_it_listens_once_it_does() {
    let (_stand_in, mut program) = both(PROMPT).await;
    assert_eq!(program.said, "");
    for url in [&program.url, &program.admin] {
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
    }
    assert_eq!(get(&list(&program, "visitor-a")).await.status, StatusCode::OK);
    assert_eq!(get(&format!("{}/ready", program.admin)).await.status, StatusCode::OK);
    assert_eq!(get(&format!("{}/live", program.admin)).await.status, StatusCode::OK);
    assert_eq!(run(&["ready", "--admin", &program.admin], &[], "").await.code, Some(0));
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
    assert_eq!(program.rest().await, "");
    assert_eq!(run(&["ready", "--admin", &program.admin], &[], "").await.code, Some(1));
}

/// A supervisor may be quick: whoever has read the line may signal.
#[tokio::test]
async fn a_signal_right_after_the_announcement_is_heard() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    for signal in ["TERM", "INT"].repeat(5) {
        let mut program = Program::serve(&stand_in.url(), PROMPT).await;
        program.signal("HUP").await;
        program.signal(signal).await;
        assert_eq!(program.ended().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn idle_and_silent_connections_do_not_hold_up_the_drain() {
    let (_stand_in, mut program) = both(PROMPT).await;
    let mut idle = Talk::to(&program.url).await;
    idle.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await;
    idle.message().await.unwrap();
    let mut silent = Talk::to(&program.url).await;
    let mut idle_admin = Talk::to(&program.admin).await;
    idle_admin.send("GET /live HTTP/1.1\r\nhost: h\r\n\r\n").await;
    idle_admin.message().await.unwrap();
    program.signal("TERM").await;
    assert!(idle.rest().await.is_empty());
    assert!(silent.rest().await.is_empty());
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn during_the_notice_requests_are_taken_and_ready_says_no() {
    let (_stand_in, mut program) = both("drain.notice = \"1h\"\n").await;
    program.signal("TERM").await;
    program.wait_for_stderr("draining").await;
    let ready = get(&format!("{}/ready", program.admin)).await;
    assert_eq!((ready.status, ready.text().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "draining\n"));
    assert_eq!(get(&format!("{}/live", program.admin)).await.status, StatusCode::OK);
    let answer = get(&list(&program, "visitor-a")).await;
    assert_eq!((answer.status, answer.header("connection")), (StatusCode::OK, Some("close")));
    let asked = run(&["ready", "--admin", &program.admin], &[], "").await;
    assert_eq!(asked.code, Some(1));
    assert!(asked.stderr.contains("not ready"), "{}", asked.stderr);
    // A second signal does not wait for anything.
    program.signal("INT").await;
    assert_eq!(program.ended().await.code(), Some(1));
}

#[tokio::test]
async fn answers_in_flight_arrive_whole_and_nobody_new_is_let_in() {
    let (stand_in, mut program) = both(PROMPT).await;
    let gate = stand_in.hold(Point::AfterReading, Matcher::any());
    let url = list(&program, "visitor-a");
    let read = spawn(async move { get(&url).await });
    let contact = format!("{}/public/api/v1/inboxes/{}/contacts/visitor-b", program.url, anteroom_stand_in::INBOX);
    let passed = spawn(async move { get(&contact).await });
    gate.arrived(2).await;
    program.signal("TERM").await;
    program.wait_for_stderr("draining").await;
    // Refused from some moment on.
    let address = program.url.trim_start_matches("http://").to_owned();
    while tokio::net::TcpStream::connect(&address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.release_all();
    let read = read.await.unwrap();
    assert_eq!((read.status, read.body), (StatusCode::OK, stand_in.list_body("visitor-a")));
    assert_eq!(read.headers.get("connection").unwrap(), "close");
    assert_eq!(passed.await.unwrap().status, StatusCode::OK);
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(program.stderr().contains("arrived whole"));
}

#[tokio::test]
async fn the_deadline_cuts_what_does_not_end() {
    let (stand_in, mut program) = both("drain.notice = \"0s\"\ndrain.deadline = \"100ms\"\n").await;
    let _gate = stand_in.hold(Point::AfterReading, Matcher::any());
    let mut client = Talk::to(&program.url).await;
    client.send(format!("GET {} HTTP/1.1\r\nhost: h\r\n\r\n", StandIn::list_path("visitor-a"))).await;
    stand_in.wait_for("the fetch", |seen| seen.len() == 1).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(1));
    assert!(client.rest().await.is_empty());
    assert!(program.stderr().contains("drain.deadline"));
}

#[tokio::test]
async fn settings_are_read_again_on_hangup_if_they_are_good() {
    let (_stand_in, mut program) = both(PROMPT).await;
    let other = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother").await;
    let reload = async |text: &str, result: &str| {
        std::fs::write(program.settings_file(), text).unwrap();
        program.signal("HUP").await;
        let counted = format!("anteroom_config_reloads_total{{result=\"{result}\"}}");
        program.wait_for_metric(&counted, |count| count > 0.5).await;
    };
    assert_eq!(get(&list(&program, "visitor-a")).await.status, StatusCode::OK);
    reload("cache.ttl = \"soon\"\nnonsense = 1\n", "failed").await;
    program.wait_for_stderr("the settings stay as they were").await;
    assert!(program.stderr().contains("cache.ttl") && program.stderr().contains("nonsense"), "{}", program.stderr());
    assert!(get_with(&list(&program, "visitor-a"), &[]).await.is_hit(), "bad settings change nothing");
    // The command line is stronger than the file, so the flag's upstream stays; another setting shows the reload.
    reload(&format!("cache.credentials = \"ignore\"\nupstream.url = \"{}\"\n", other.url()), "ok").await;
    let shared = get_with(&list(&program, "visitor-b"), &[("cookie", "a=b")]).await;
    assert!(shared.cache_status().starts_with("anteroom; fwd=uri-miss"), "{}", shared.cache_status());
    assert!(other.requests().is_empty());
    program.signal("TERM").await;
    program.ended().await;
}

#[tokio::test]
async fn a_port_in_use_is_told_and_ends_it() {
    let taken = Scripted::answering("").await;
    let address = taken.address.to_string();
    for (listen, admin) in [(address.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", address.as_str())] {
        let ended =
            run(&["serve", "--upstream", "http://127.0.0.1:9", "--listen", listen, "--admin", admin], &[], "").await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert!(ended.stderr.contains("cannot listen on") && ended.stderr.contains(&address), "{}", ended.stderr);
        assert!(ended.stderr.to_lowercase().contains("in use"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn wrong_settings_are_all_told_at_once() {
    let variables = [("ANTEROOM_CACHE__TTL", "soon"), ("ANTEROOM_CACHE__TLL", "1s"), ("ANTEROOM_LOG__HITS", "7")];
    for command in [&["config"][..], &["serve"][..]] {
        let ended = run(command, &variables, "").await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{command:?}");
        for told in ["ANTEROOM_CACHE__TTL", "ANTEROOM_CACHE__TLL", "ANTEROOM_LOG__HITS", "upstream.url"] {
            assert!(ended.stderr.contains(told), "{told} in {}", ended.stderr);
        }
    }
    assert_eq!(run(&["serve", "--nonsense"], &[], "").await.code, Some(2));
    assert_eq!(run(&["serve", "--config", "/nowhere.toml"], &[], "").await.code, Some(2));
}

/// Whatever `serve` refuses without opening a port, `config` refuses, in the same words and the same list.
#[tokio::test]
async fn config_refuses_what_serve_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let no_certificate = folder.path().join("empty.pem");
    std::fs::write(&no_certificate, "").unwrap();
    for (ca_file, what) in
        [("/nowhere/ca.pem", "cannot be read"), (no_certificate.to_str().unwrap(), "holds no certificate")]
    {
        let variables = [
            ("ANTEROOM_UPSTREAM__URL", "https://a.test/app/accounts/1"),
            ("ANTEROOM_UPSTREAM__CA_FILE", ca_file),
            ("ANTEROOM_CACHE__TTL", "soon"),
        ];
        let config = run(&["config"], &variables, "").await;
        let serve = run(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &variables, "").await;
        assert_eq!((config.code, serve.code), (Some(2), Some(2)));
        assert_eq!(config.stderr, serve.stderr);
        assert!(config.stderr.contains("environment: 3 problems") && config.stderr.contains(what), "{}", config.stderr);
        assert!(config.stderr.contains("write \"https://a.test\""), "{}", config.stderr);
    }
}

/// As in the image, whose health check has no arguments.
#[tokio::test]
async fn whoever_asks_a_running_proxy_finds_it_by_its_settings() {
    let (_stand_in, program) = both("admin.token = \"hush-hush\"\n").await;
    let address = program.admin.trim_start_matches("http://").to_owned();
    let port = address.rsplit(':').next().unwrap();
    let url = format!("{}/", program.admin);
    for admin in [&address, &program.admin, &url, &format!("0.0.0.0:{port}"), &format!("localhost:{port}")] {
        for command in [&["ready"][..], &["purge", "--all"]] {
            let by_flag = [command, &["--admin", admin]].concat();
            let ended = run(&by_flag, &[("ANTEROOM_ADMIN__TOKEN", "hush-hush")], "").await;
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{by_flag:?}");
        }
    }
    for admin in [address.clone(), program.admin.clone(), format!("0.0.0.0:{port}")] {
        let variables = [("ANTEROOM_ADMIN__ADDRESS", admin.as_str()), ("ANTEROOM_ADMIN__TOKEN", "hush-hush")];
        for command in [&["ready"][..], &["purge", "--all"]] {
            let ended = run(command, &variables, "").await;
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{command:?} {admin}");
        }
    }
    // By the file alone, whatever else may be wrong in it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.toml");
    std::fs::write(&file, format!("cache.ttl = 'soon'\n[admin]\naddress = '{address}'\ntoken = 'hush-hush'\n"))
        .unwrap();
    for command in [&["ready"][..], &["purge", "--all"]] {
        let by_file = [command, &["--config", file.to_str().unwrap()]].concat();
        let ended = run(&by_file, &[], "").await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{by_file:?}");
    }
    // The variable is stronger than the file; nobody listens there.
    let elsewhere = [("ANTEROOM_ADMIN__ADDRESS", "127.0.0.1:1")];
    assert_eq!(run(&["ready", "--config", file.to_str().unwrap()], &elsewhere, "").await.code, Some(1));
    for unclear in ["here", "127.0.0.1:0"] {
        let ended = run(&["ready"], &[("ANTEROOM_ADMIN__ADDRESS", unclear)], "").await;
        assert_eq!(ended.code, Some(2), "{unclear}: {}", ended.stderr);
        assert!(ended.stderr.contains("admin.address"), "{}", ended.stderr);
    }
}

/// `serve` takes what `ready` takes.
#[tokio::test]
async fn the_private_listener_may_be_given_as_a_url() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve_at("http://127.0.0.1:0/", &stand_in.url(), "").await;
    assert_eq!(run(&["ready", "--admin", &program.admin], &[], "").await.code, Some(0));
}

/// As in the compose file: somebody who opens the dashboard sees something on it.
#[tokio::test]
async fn the_demonstration_visits_a_proxy_in_front_of_its_stand_in() {
    let relay = Relay::start().await;
    let program = Program::demo_with(&["--visit", &relay.url], &[]).await;
    relay.leads_to(&program.url);
    for outcome in [
        r#"{method="GET",outcome="hit",status_class="2xx"}"#,
        r#"{method="GET",outcome="miss",status_class="2xx"}"#,
        r#"{method="POST",outcome="write",status_class="2xx"}"#,
    ] {
        program.wait_for_metric(&format!("anteroom_requests_total{outcome}"), |count| count > 0.5).await;
    }
}

#[tokio::test]
async fn config_shows_the_settings_in_force_and_no_secret() {
    let variables = [
        ("ANTEROOM_UPSTREAM__URL", "https://api.example.test"),
        ("ANTEROOM_ADMIN__TOKEN", "hush-hush"),
        ("ANTEROOM_CACHE__TTL", "7s"),
    ];
    let ended = run(&["config"], &variables, "").await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.contains("https://api.example.test") && ended.stdout.contains("7s"), "{}", ended.stdout);
    assert!(ended.stdout.contains("***") && !ended.stdout.contains("hush"), "{}", ended.stdout);
}

#[tokio::test]
async fn purge_makes_it_forget_a_contact_an_inbox_or_everything() {
    let (stand_in, program) = both("admin.token = \"hush-hush\"\n").await;
    let (a, b) = (list(&program, "visitor-a"), list(&program, "visitor-b"));
    let warm = async || {
        for url in [&a, &b] {
            get(url).await;
            assert!(get(url).await.is_hit());
        }
    };
    let purge = async |what: &[&str], token: &str, name: &str| {
        let arguments = [&["purge", "--admin", &program.admin][..], what].concat();
        run(&arguments, &[("ANTEROOM_ADMIN__TOKEN", token)], name).await
    };
    warm().await;
    let wrong = purge(&["--all"], "guess", "").await;
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("401") && !wrong.stderr.contains("guess"), "{}", wrong.stderr);
    assert!(get(&a).await.is_hit());

    let done = purge(&["--contact", "-"], "hush-hush", "visitor-a\n").await;
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert!(done.stdout.starts_with("dropped 1 list (") && done.stdout.contains(" of 1 contact"), "{}", done.stdout);
    assert!(!get(&a).await.is_hit());
    assert!(get(&b).await.is_hit());

    warm().await;
    assert_eq!(purge(&["--inbox", "-"], "hush-hush", anteroom_stand_in::INBOX).await.code, Some(0));
    assert!(!get(&a).await.is_hit());
    assert!(!get(&b).await.is_hit());

    warm().await;
    // The token in a file.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hush-hush\n").unwrap();
    let arguments = ["purge", "--admin", &program.admin, "--token-file", file.path().to_str().unwrap(), "--all"];
    assert_eq!(run(&arguments, &[], "").await.code, Some(0));
    assert!(!get(&a).await.is_hit());
    assert_eq!(stand_in.list_requests("visitor-a"), 4);

    for (arguments, input) in [
        (&["--all"][..], ""),
        (&["--contact", "visitor-a"][..], ""),
        (&["--contact", "-", "--all"][..], "x"),
        (&[][..], ""),
    ] {
        // No token, a name on the command line, two things, nothing.
        let ended = run(&[&["purge", "--admin", &program.admin][..], arguments].concat(), &[], input).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(purge(&["--contact", "-"], "hush-hush", "\n").await.code, Some(2), "an empty name");
}

#[tokio::test]
async fn without_a_token_purge_is_off() {
    let (_stand_in, program) = both("").await;
    let ended = run(&["purge", "--admin", &program.admin, "--all"], &[("ANTEROOM_ADMIN__TOKEN", "anything")], "").await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("403") && ended.stderr.contains("admin.token"), "{}", ended.stderr);
    // The public listener knows nothing of it.
    let public = exchange(&program.url, "POST /purge HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(public.status(), 404);
}

/// What the access log says of an answer is what became of it, not what was meant.
#[tokio::test]
async fn the_log_tells_an_answer_that_was_not_whole() {
    let (stand_in, mut program) = both(PROMPT).await;
    let told = async |detail: &str| program.wait_for_stderr(&format!("\"detail\":\"{detail}\"")).await;
    let mut leaving = Talk::to(&program.url).await;
    leaving.send("GET /rails/active_storage/disk/100000000 HTTP/1.1\r\nhost: h\r\n\r\n").await;
    leaving.head().await.unwrap();
    drop(leaving);
    told("client-left").await;
    stand_in.fault_on(anteroom_stand_in::Fault::Truncate, Matcher::any());
    let cut = exchange(&program.url, "GET /nowhere HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(!cut.whole);
    told("cut-short").await;
    stand_in.clear_faults();
    for path in ["/nowhere", "/rails/active_storage/disk/0", "/rails/active_storage/disk/9"] {
        exchange(&program.url, format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n")).await;
    }
    program.signal("TERM").await;
    program.ended().await;
    assert_eq!(program.stderr().matches("client-left").count(), 1, "{}", program.stderr());
    assert_eq!(program.stderr().matches("cut-short").count(), 1);
}

/// Nobody was promised an answer for half a head.
#[tokio::test]
async fn half_a_head_does_not_hold_up_the_drain() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let proxy = Proxy::start(&stand_in, "drain.deadline = \"1h\"").await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send("GET / HTTP/1.1\r\nhost: a\r\n").await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 1.0).await;
    assert_eq!(proxy.stop().await, Drained::Whole);
    assert!(talk.rest().await.is_empty());
}

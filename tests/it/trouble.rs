//! The upstream in trouble: whoever runs the proxy learns what is wrong, once, in words, everywhere the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anteroom_stand_in::{Fault, Matcher, Options, StandIn};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::support::child::{Program, run};
use crate::support::raw::{Scripted, Talk};
use crate::support::script::{Script, answer};
use crate::support::{Answer, Proxy, get, get_with, spawn};

/// An https upstream whose certificate, for this name and until this year, is by the authority in the file.
async fn https_upstream(name: &str, until: i32) -> (tempfile::NamedTempFile, SocketAddr) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut certificate = CertificateParams::new(vec![name.to_owned()]).unwrap();
    certificate.not_before = date_time_ymd(2000, 1, 1);
    certificate.not_after = date_time_ymd(until, 1, 1);
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), authority.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Whoever does not trust it goes away; nobody here asks it for more.
            spawn(acceptor.accept(stream));
        }
    });
    (ca_file, address)
}

/// An address where nobody listens.
async fn deserted() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The lines of a log in JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("one object a line: {line}"))).collect()
}

/// The lines that are no access lines.
fn told(log: &str) -> Vec<Value> {
    lines(log).into_iter().filter(|line| line["target"] != "anteroom::access").collect()
}

struct Case {
    upstream: String,
    settings: String,
    status: u16,
    class: &'static str,
    words: &'static str,
}

fn case(upstream: impl Into<String>, settings: &str, status: u16, class: &'static str, words: &'static str) -> Case {
    Case { upstream: upstream.into(), settings: settings.to_owned(), status, class, words }
}

/// Asks a proxy once in front of an upstream in trouble, and looks everywhere.
async fn assert_said_everywhere(case: Case) {
    let Case { upstream, settings, status, class, words } = case;
    let mut program =
        Program::serve(&upstream, &format!("log.format = \"json\"\ndrain.notice = \"0s\"\n{settings}")).await;
    let answer = get(&format!("{}/secret-path", program.url)).await;
    let address = upstream.split("://").nth(1).unwrap();
    // The client, in words and by program.
    assert_eq!(answer.status.as_u16(), status, "{class}");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(words) && detail.contains(address), "{class}: {detail}");
    let proxy_status = answer.header("proxy-status").unwrap();
    assert_eq!(proxy_status, format!("anteroom; error={class}; details=\"{detail}\""));
    // The metric.
    assert!(
        (program.metric(&format!("anteroom_upstream_errors_total{{class=\"{class}\"}}")).await - 1.0).abs() < 0.1,
        "{class}"
    );
    // The log.
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    let warned: Vec<Value> = told(&log).into_iter().filter(|line| line["error"] == class).collect();
    assert_eq!(warned.len(), 1, "{class}: {log}");
    assert_eq!((&warned[0]["level"], &warned[0]["count"]), (&Value::from("WARN"), &Value::from(1)));
    assert_eq!(warned[0]["message"], detail);
    let access: Vec<Value> = lines(&log).into_iter().filter(|line| line["target"] == "anteroom::access").collect();
    assert_eq!((&access[0]["error"], &access[0]["level"]), (&Value::from(class), &Value::from("WARN")), "{log}");
    assert!(!log.contains("secret-path") && !detail.contains("secret-path"));
    // `anteroom check`.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("check.toml");
    std::fs::write(&file, settings).unwrap();
    let checked =
        run(&["check", "--config", file.to_str().unwrap(), &format!("{upstream}/secret-path")], &[], "").await;
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains(words) && checked.stderr.contains(address), "{class}: {}", checked.stderr);
    assert!(!checked.stderr.contains("secret-path"), "{}", checked.stderr);
}

#[tokio::test]
async fn why_there_is_no_connection_is_said_everywhere_in_the_same_words() {
    assert_said_everywhere(case(
        format!("http://{}", deserted().await),
        "",
        502,
        "connection_refused",
        "it refused the connection",
    ))
    .await;
    let nobody = "http://nobody.invalid:3000";
    assert_said_everywhere(case(nobody, "", 502, "dns_error", "its name cannot be resolved")).await;
    // It takes the connection, and closes it.
    let closing = Scripted::start(|_, talk| async move { drop(talk) }).await;
    let words = "it closed the connection during the TLS handshake";
    let upstream = format!("https://{}", closing.address);
    assert_said_everywhere(case(upstream, "", 502, "connection_terminated", words)).await;
    // It takes the connection, and says nothing.
    let silent = Scripted::start(|_, mut talk| async move { drop(talk.rest().await) }).await;
    let upstream = format!("https://{}", silent.address);
    let hasty = "upstream.connect_timeout = \"200ms\"";
    let words = "the TLS handshake was not over in time";
    assert_said_everywhere(case(upstream, hasty, 502, "connection_timeout", words)).await;
}

#[tokio::test]
async fn what_is_wrong_with_tls_is_said_everywhere_in_the_same_words() {
    let trusting = |file: &tempfile::NamedTempFile| format!("upstream.ca_file = {:?}", file.path());
    let certificate = "tls_certificate_error";
    let (_, address) = https_upstream("127.0.0.1", 4000).await;
    let https = |address: SocketAddr| format!("https://{address}");
    assert_said_everywhere(case(https(address), "", 502, certificate, "signed by nobody who is trusted here")).await;
    let (file, address) = https_upstream("other.example.com", 4000).await;
    let words = "its certificate is for another name";
    assert_said_everywhere(case(https(address), &trusting(&file), 502, certificate, words)).await;
    let (file, address) = https_upstream("127.0.0.1", 2001).await;
    let words = "its certificate has expired";
    assert_said_everywhere(case(https(address), &trusting(&file), 502, certificate, words)).await;
    let eager = Scripted::start(|_, mut talk| async move {
        talk.exactly(16).await;
        talk.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        talk.rest().await;
    })
    .await;
    let words = "it does not speak TLS there; is it to be asked with http?";
    assert_said_everywhere(case(https(eager.address), "", 502, "tls_protocol_error", words)).await;
    let (_, address) = https_upstream("127.0.0.1", 4000).await;
    let upstream = format!("http://{address}");
    let words = "its answer is not HTTP; is it to be asked with https?";
    assert_said_everywhere(case(upstream, "", 502, "http_protocol_error", words)).await;
}

#[tokio::test]
async fn an_upstream_that_gives_no_answer_is_said_everywhere_in_the_same_words() {
    let closing = Scripted::start(|_, mut talk| async move { drop(talk.head().await) }).await;
    let words = "it closed the connection without an answer";
    assert_said_everywhere(case(closing.url(), "", 502, "connection_terminated", words)).await;
    let silent = Scripted::start(|_, mut talk| async move { drop(talk.rest().await) }).await;
    let hasty = "upstream.head_timeout = \"200ms\"";
    let words = "it took too long to answer";
    assert_said_everywhere(case(silent.url(), hasty, 504, "http_response_timeout", words)).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_counted_as_such() {
    let upstream = Scripted::start(|_, mut talk| async move {
        talk.head().await;
        talk.send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n[").await;
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url(), "").await;
    let answer = proxy.list("visitor-a").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.header("proxy-status").unwrap().starts_with("anteroom; error=http_response_incomplete; details="));
    proxy.wait_for_metric("anteroom_upstream_errors_total{class=\"http_response_incomplete\"}", 1.0).await;
}

/// A client's own broken body says nothing of the upstream.
#[tokio::test]
async fn a_clients_own_mistake_is_none_of_the_upstreams() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let program = Program::serve(&stand_in.url(), "log.format = \"json\"").await;
    let mut talk = Talk::to(&program.url).await;
    talk.send("POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n").await;
    talk.rest().await;
    program.wait_for_stderr("\"outcome\":\"failed\"").await;
    let log = program.stderr();
    assert!(!log.contains("\"WARN\"") || !log.contains("the upstream"), "{log}");
    let errors = program.metrics().await;
    let errors = errors.lines().filter(|line| line.starts_with("anteroom_upstream_errors_total"));
    assert!(errors.into_iter().all(|line| line.ends_with(" 0")));
}

#[tokio::test]
async fn one_line_when_it_begins_to_fail_and_one_when_it_answers_again() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let settings = "log.format = \"json\"\ndrain.notice = \"0s\"\nlog.level = \"info,anteroom::access=off\"";
    let mut program = Program::serve(&stand_in.url(), settings).await;
    let url = format!("{}/x", program.url);
    get(&url).await;
    stand_in.fault_on(Fault::Reset, Matcher::any());
    for _ in 0..20 {
        assert_eq!(get(&url).await.status, StatusCode::BAD_GATEWAY);
    }
    stand_in.clear_faults();
    for _ in 0..3 {
        assert_eq!(get(&url).await.status, StatusCode::NOT_FOUND);
    }
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    let of = |word: &str| {
        told(&log).into_iter().filter(|line| line["message"].as_str().unwrap().contains(word)).collect::<Vec<_>>()
    };
    let (failed, recovered) = (of("without an answer"), of("answers again"));
    assert_eq!((failed.len(), recovered.len()), (1, 1), "{log}");
    assert_eq!((&failed[0]["level"], &recovered[0]["level"]), (&Value::from("WARN"), &Value::from("INFO")));
    assert_eq!(recovered[0]["count"], 20);
}

/// Lists that stand in say so, a refresh that fails is told of, and many of them do not fill the log.
#[tokio::test]
async fn an_upstream_that_is_dead_behind_stale_lists_is_seen_in_the_log() {
    for fault in [Fault::Reset, Fault::Error, Fault::Throttle] {
        let stand_in = StandIn::start(Options::default()).await.unwrap();
        let settings =
            "log.format = \"json\"\ndrain.notice = \"0s\"\ncache.ttl = \"1ms\"\ncache.stale_while_revalidate = \"0s\"";
        let mut program = Program::serve(&stand_in.url(), settings).await;
        let list = format!("{}{}", program.url, StandIn::list_path("visitor-a"));
        get(&list).await;
        stand_in.fault(fault);
        let began = tokio::time::Instant::now();
        let mut stale = 0;
        for _ in 0..200 {
            stale += usize::from(get(&list).await.cache_status().contains("detail=upstream-failing"));
        }
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
        assert!(stale > 150, "{stale}");
        program.signal("TERM").await;
        program.ended().await;
        let log = program.stderr();
        let access: Vec<Value> = lines(&log).into_iter().filter(|line| line["detail"] == "upstream-failing").collect();
        assert!(!access.is_empty() && access.len() <= 10 * seconds, "{} lines of {stale}", access.len());
        assert!(access.iter().all(|line| line["outcome"] == "stale" && line["contact"].is_string()));
        let warned = told(&log).into_iter().filter(|line| line["level"] == "WARN" && line["count"].is_number()).count();
        assert!((1..=seconds).contains(&warned), "{log}");
        assert!(!log.contains("answers again"), "{log}");
    }
}

fn redirect(to: &str) -> crate::support::script::Scripted {
    let mut redirect = answer(302, "text/html", "");
    redirect.headers_mut().insert("location", to.parse().unwrap());
    redirect
}

#[tokio::test]
async fn what_comes_in_a_lists_place_is_told_once_with_its_likely_cause() {
    for (kind, likely, words) in [
        ("tls", "forced_tls", "upstream.url with https"),
        ("login", "login_page", "somebody is to sign in first"),
        ("elsewhere", "redirect", "the API is somewhere else"),
        ("page", "page", "a page for people"),
        ("missing page", "page", "a page for people"),
        ("json", "other_body", "another API's"),
    ] {
        let upstream = Script::start(move |request| {
            let host = request.headers()["host"].to_str().unwrap();
            match kind {
                "tls" => redirect(&format!("https://{host}{}", request.uri())),
                "login" => redirect("/app/login"),
                "elsewhere" => redirect("https://elsewhere.example.com/"),
                "page" => answer(200, "text/html; charset=utf-8", "<html>"),
                "missing page" => answer(404, "text/html; charset=utf-8", "<html>"),
                _ => answer(200, "application/json", "{\"version\":\"1.2\"}"),
            }
        })
        .await;
        let mut program = Program::serve(&upstream.url, "log.format = \"json\"\ndrain.notice = \"0s\"").await;
        let list = format!("{}{}", program.url, StandIn::list_path("zebra"));
        for fields in [&[][..], &[("cookie", "a=b")], &[]] {
            get_with(&list, fields).await;
        }
        assert!(program.metric(&format!("anteroom_no_lists_total{{likely=\"{likely}\"}}")).await > 0.9, "{kind}");
        program.signal("TERM").await;
        program.ended().await;
        let log = program.stderr();
        let warned: Vec<Value> = told(&log).into_iter().filter(|line| line["likely"].is_string()).collect();
        assert_eq!(warned.len(), 1, "{kind}: {log}");
        assert_eq!((&warned[0]["likely"], &warned[0]["level"]), (&Value::from(likely), &Value::from("WARN")), "{kind}");
        assert!(warned[0]["message"].as_str().unwrap().contains(words), "{kind}: {log}");
        assert!(!log.contains("zebra"), "{kind}: {log}");
    }
}

/// Where it leads may depend on what one reader sent.
#[tokio::test]
async fn a_redirect_is_neither_shared_nor_stored_and_takes_nothing_away() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (counting, redirecting) = (asked.clone(), Arc::new(AtomicUsize::new(0)));
    let redirects = redirecting.clone();
    let upstream = Script::start(move |_| {
        let number = counting.fetch_add(1, Ordering::SeqCst);
        if redirects.load(Ordering::SeqCst) > 0 {
            redirect(&format!("/elsewhere/{number}"))
        } else {
            let list = std::fs::read_to_string("tests/fixtures/payload/list-typical.json").unwrap();
            answer(200, "application/json", &list)
        }
    })
    .await;
    let proxy = Proxy::in_front_of(&upstream.url, "cache.ttl = \"1m\"").await;
    let stored = proxy.list("kept").await;
    redirecting.store(1, Ordering::SeqCst);
    let readers: Vec<_> = (0..8).map(|_| crate::support::reading(&proxy, "visitor-a")).collect();
    let mut seen = std::collections::BTreeSet::new();
    for reader in readers {
        let answer: Answer = reader.await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
        assert!(seen.insert(answer.header("location").unwrap().to_owned()), "two readers had one redirect");
    }
    assert!((proxy.metric("anteroom_cache_entries").await - 1.0).abs() < 0.1);
    let again = proxy.list("kept").await;
    assert!(again.is_hit() && again.body == stored.body);
}

#[tokio::test]
async fn the_program_says_at_its_start_what_runs_and_what_nobody_may_have_meant() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let upstream = format!("{}/quiet/prefix", stand_in.url());
    let settings = "log.format = \"json\"\ncache.ttl = \"7s\"\nlimits.connections = 900000\ndrain.notice = \"0s\"";
    let mut program = Program::serve_at("0.0.0.0:0", &upstream, settings).await;
    program.signal("TERM").await;
    program.ended().await;
    let log = program.stderr();
    let first = &lines(&log)[0];
    assert_eq!((&first["message"], &first["level"]), (&Value::from("started"), &Value::from("INFO")), "{log}");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(first["upstream"], stand_in.url());
    assert_eq!(format!("http://{}", first["listen"].as_str().unwrap()), program.url);
    assert_eq!((&first["ttl"], &first["mode"]), (&Value::from("7s"), &Value::from("writes and cable")));
    assert!(!log.contains("quiet"), "{log}");
    let version = run(&["--version"], &[], "").await.stdout;
    let commit = first["commit"].as_str().unwrap();
    assert_eq!(version, format!("anteroom {} ({commit})\n", env!("CARGO_PKG_VERSION")));
    let warned: Vec<Value> = lines(&log).into_iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warned.len(), 2, "{log}");
    assert!(warned[0]["message"].as_str().unwrap().contains("admin.token"), "{log}");
    assert!(warned[1]["message"].as_str().unwrap().contains("ulimit -n"), "{log}");
}

#[tokio::test]
async fn a_reload_says_what_it_changes_and_what_needs_a_restart() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let before = "log.format = \"json\"\ncache.ttl = \"20s\"\nadmin.token = \"open-sesame\"\n";
    let program = Program::serve(&stand_in.url(), before).await;
    let last = "anteroom_config_last_reload_successful";
    program.wait_for_metric(last, |value| value > 0.9).await;
    assert!(program.metric("anteroom_config_last_reload_success_timestamp_seconds").await > 1.7e9);
    let after = "log.format = \"json\"\ncache.ttl = \"7s\"\nadmin.token = \"other-words\"\ncache.memory = \"300MiB\"\n";
    std::fs::write(program.settings_file(), after).unwrap();
    program.signal("HUP").await;
    program.wait_for_stderr("the settings were read again").await;
    let log = program.stderr();
    let line = lines(&log).into_iter().find(|line| line["message"] == "the settings were read again").unwrap();
    assert_eq!(line["changed"], "admin.token *** -> ***; cache.ttl 20s -> 7s");
    assert_eq!(line["needs_restart"], "cache.memory 256MiB -> 300MiB");
    assert!(!log.contains("sesame") && !log.contains("other-words"), "{log}");
    std::fs::write(program.settings_file(), "cache.ttl = \"soon\"").unwrap();
    program.signal("HUP").await;
    program.wait_for_metric(last, |value| value < 0.1).await;
    std::fs::write(program.settings_file(), before).unwrap();
    program.signal("HUP").await;
    program.wait_for_metric(last, |value| value > 0.9).await;
}

//! TLS of the public listener: both protocols over it, certificates that change under living connections, and those who
//! never come to the end of a handshake.

use std::path::Path;
use std::time::Duration;

use anteroom_stand_in::{Options, StandIn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::child::{Program, run};
use crate::support::http2::Http2;
use crate::support::raw::{Scripted, Talk};
use crate::support::tls::Certificate;
use crate::support::{Proxy, jump};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// A way to end that waits for nobody.
const PROMPT: &str = "drain.notice = \"0s\"\ndrain.deadline = \"5s\"\n";

async fn secure(upstream: &str) -> (Certificate, Proxy) {
    let certificate = Certificate::for_names(&["front.test"]);
    let proxy = Proxy::in_front_of(upstream, &certificate.settings()).await;
    (certificate, proxy)
}

/// Asks for a path in HTTP/1.1, on a connection that lives on.
async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: front.test\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection ended");
    }
    String::from_utf8(answer).unwrap()
}

fn certificate_of(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn lists_are_served_over_tls_in_both_protocols() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (certificate, proxy) = secure(&stand_in.url()).await;
    let path = StandIn::list_path("visitor-a");
    let stream = certificate.connect(&proxy.url, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let http2 = Http2::over(stream, "front.test", &h2::client::Builder::new()).await;
    let miss = http2.get(&path).await;
    assert!(miss.body == stand_in.list_body("visitor-a") && !miss.is_hit());
    assert!(http2.get(&path).await.is_hit());
    for protocols in [&["http/1.1"][..], &[]] {
        let mut stream = certificate.connect(&proxy.url, protocols).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: front.test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(&miss.body) && String::from_utf8_lossy(&answer).contains("anteroom; hit"));
    }
    assert!(certificate.connect(&proxy.url, &["http/1.0"]).await.is_err(), "there is nothing to agree on");
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_refused\"}", 1.0).await;
}

#[tokio::test]
async fn the_upstream_is_told_that_the_client_came_over_tls() {
    let upstream = Scripted::answering(OK).await;
    let (certificate, proxy) = secure(&upstream.url()).await;
    let mut stream = certificate.connect(&proxy.url, &[]).await.unwrap();
    ask(&mut stream, "/x").await;
    let seen = upstream.last_request();
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.field("forwarded"), Some("for=127.0.0.1;host=\"front.test\";proto=https"));
    let stream = certificate.connect(&proxy.url, &["h2"]).await.unwrap();
    Http2::over(stream, "front.test", &h2::client::Builder::new()).await.get("/x").await;
    let seen = upstream.last_request();
    assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.field("x-forwarded-host"), Some("front.test"));
    assert!(seen.field("via").unwrap().starts_with("2.0 anteroom ("), "{}", seen.head);
}

/// A client that ends its sending, in order or by closing the socket's half alone, gets its answer.
#[tokio::test]
async fn a_client_that_half_closes_over_tls_is_answered() {
    let upstream = Scripted::answering(OK).await;
    let (certificate, proxy) = secure(&upstream.url()).await;
    let mut stream = certificate.connect(&proxy.url, &[]).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    let errors = proxy.metric("anteroom_connection_errors_total{kind=\"io\"}").await;
    // Many go without a word of farewell; that is no error.
    let mut stream = certificate.connect(&proxy.url, &[]).await.unwrap();
    ask(&mut stream, "/x").await;
    let (socket, _) = stream.into_inner();
    drop(socket);
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 0.0).await;
    assert!((proxy.metric("anteroom_connection_errors_total{kind=\"io\"}").await - errors).abs() < 0.5);
}

#[tokio::test]
async fn a_large_body_passes_whole_over_tls_both_ways() {
    let stand_in = StandIn::start(Options::default()).await.unwrap();
    let (certificate, proxy) = secure(&stand_in.url()).await;
    let mut stream = certificate.connect(&proxy.url, &[]).await.unwrap();
    let path = "/rails/active_storage/disk/5000000";
    let request = format!("GET {path} HTTP/1.1\r\nhost: front.test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    assert_eq!(answer.len() - head - 4, 5_000_000);
}

#[tokio::test]
async fn who_speaks_plain_http_to_tls_is_told_so() {
    let upstream = Scripted::answering(OK).await;
    let (_certificate, proxy) = secure(&upstream.url()).await;
    let mut talk = Talk::to(&proxy.url).await;
    talk.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let answer = talk.message().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.whole && answer.text().contains("https://"), "{answer:?}");
    assert!(talk.rest().await.is_empty());
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_plain\"}", 0.0).await;
    drop(talk);
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_plain\"}", 1.0).await;
    let mut nonsense = Talk::to(&proxy.url).await;
    nonsense.send([0, 1, 2, 3]).await;
    assert!(nonsense.rest().await.is_empty());
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_refused\"}", 1.0).await;
    assert!(upstream.requests().is_empty());
}

/// Nobody waits for it longer than for a head, and others do not notice.
#[tokio::test]
async fn a_handshake_that_never_ends_is_ended() {
    let upstream = Scripted::answering(OK).await;
    let (certificate, proxy) = secure(&upstream.url()).await;
    let mut silent = Talk::to(&proxy.url).await;
    let mut half = Talk::to(&proxy.url).await;
    half.send([0x16, 3, 1, 2, 0, 1]).await;
    let mut left = Talk::to(&proxy.url).await;
    left.send([0x16, 3, 1]).await;
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 3.0).await;
    drop(left);
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_left\"}", 1.0).await;
    let mut stream = certificate.connect(&proxy.url, &[]).await.unwrap();
    ask(&mut stream, "/x").await;
    jump(Duration::from_secs(61)).await;
    assert!(half.rest().await.is_empty() && silent.rest().await.is_empty());
    proxy.wait_for_metric("anteroom_connection_errors_total{kind=\"tls_timeout\"}", 1.0).await;
}

#[tokio::test]
async fn a_drain_waits_for_no_handshake() {
    let upstream = Scripted::answering(OK).await;
    let certificate = Certificate::for_names(&["front.test"]);
    let more = format!("drain.deadline = \"1h\"\n{}", certificate.settings());
    let proxy = Proxy::in_front_of(&upstream.url(), &more).await;
    let mut half = Talk::to(&proxy.url).await;
    half.send([0x16, 3, 1, 2, 0, 1]).await;
    let _silent = Talk::to(&proxy.url).await;
    let _idle = certificate.connect(&proxy.url, &[]).await.unwrap();
    proxy.wait_for_metric("anteroom_connections{listener=\"public\"}", 3.0).await;
    assert_eq!(proxy.stop().await, anteroom::server::listeners::Drained::Whole);
}

/// Puts another pair where links lead, as Kubernetes and certbot do: the links' own times do not change.
fn link(folder: &Path, to: &Certificate) {
    for (name, file) in [("tls.crt", to.certificate()), ("tls.key", to.key())] {
        let (new, old) = (folder.join(format!("{name}.new")), folder.join(name));
        std::os::unix::fs::symlink(file, &new).unwrap();
        std::fs::rename(new, old).unwrap();
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_under_living_connections_and_a_bad_pair_keeps_the_good_one() {
    let upstream = Scripted::answering(OK).await;
    let (first, second, third) = (
        Certificate::for_names(&["front.test"]),
        Certificate::for_names(&["front.test"]),
        Certificate::for_names(&["front.test"]),
    );
    let folder = tempfile::tempdir().unwrap();
    link(folder.path(), &first);
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let settings =
        format!("{PROMPT}listen.tls.certificate = '{}'\nlisten.tls.key = '{}'\n", certificate.display(), key.display());
    let mut program = Program::serve(&upstream.url(), &settings).await;
    assert!(program.url.starts_with("https://"), "{}", program.url);
    let end = program.metric("anteroom_certificate_not_after_seconds").await;
    assert!(end > 4e9, "rcgen's last for long: {end}");
    let mut old = first.connect(&program.url, &["http/1.1"]).await.unwrap();
    let old_http2 = first.connect(&program.url, &["h2"]).await.unwrap();
    let old_http2 = Http2::over(old_http2, "front.test", &h2::client::Builder::new()).await;
    assert_eq!(old_http2.get("/x").await.text(), "ok");

    // By itself, within seconds.
    link(folder.path(), &second);
    program.wait_for_metric("anteroom_certificate_renewals_total{result=\"ok\"}", |count| count > 0.5).await;
    let new = second.connect(&program.url, &[]).await.unwrap();
    assert_ne!(certificate_of(&new), certificate_of(&old));
    assert!(first.connect(&program.url, &[]).await.is_err(), "it is another authority's now");
    assert!(ask(&mut old, "/x").await.ends_with("ok"), "connections go on");
    assert_eq!(old_http2.get("/x").await.text(), "ok");

    // A key that is another's.
    std::fs::remove_file(&key).unwrap();
    std::fs::copy(first.key(), &key).unwrap();
    program.wait_for_stderr("the certificate stays as it was").await;
    assert!(program.stderr().contains("is not the key of the certificate"), "{}", program.stderr());
    second.connect(&program.url, &[]).await.unwrap();
    program.signal("HUP").await;
    program.wait_for_metric("anteroom_config_reloads_total{result=\"failed\"}", |count| count > 0.5).await;
    second.connect(&program.url, &[]).await.unwrap();

    // At once, on SIGHUP.
    link(folder.path(), &third);
    program.signal("HUP").await;
    program.wait_for_metric("anteroom_config_reloads_total{result=\"ok\"}", |count| count > 0.5).await;
    third.connect(&program.url, &[]).await.unwrap();
    assert!(ask(&mut old, "/x").await.ends_with("ok"));
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

/// Whatever `serve` refuses, `config` refuses in the same words.
#[tokio::test]
async fn a_pair_that_is_none_is_refused_with_the_setting_that_is_wrong() {
    let (one, other) = (Certificate::for_names(&["front.test"]), Certificate::for_names(&["front.test"]));
    let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (certificate, key) = (text(one.certificate()), text(one.key()));
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = empty.path().to_str().unwrap();
    for (certificate, key, what) in [
        (certificate.as_str(), "", "listen.tls.key is not"),
        ("", key.as_str(), "listen.tls.certificate is not"),
        (certificate.as_str(), "/nowhere.pem", "listen.tls.key: "),
        ("/nowhere.pem", key.as_str(), "listen.tls.certificate: "),
        (certificate.as_str(), text(other.key()).as_str(), "is not the key of the certificate"),
        (certificate.as_str(), certificate.as_str(), "holds no key"),
        (key.as_str(), key.as_str(), "holds no certificate"),
        (empty, key.as_str(), "holds no certificate"),
    ] {
        let mut variables = vec![("ANTEROOM_UPSTREAM__URL", "http://127.0.0.1:9")];
        if !certificate.is_empty() {
            variables.push(("ANTEROOM_LISTEN__TLS__CERTIFICATE", certificate));
        }
        if !key.is_empty() {
            variables.push(("ANTEROOM_LISTEN__TLS__KEY", key));
        }
        let config = run(&["config"], &variables, "").await;
        let serve = run(&["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &variables, "").await;
        assert_eq!((config.code, serve.code), (Some(2), Some(2)), "{what}: {}", config.stderr);
        assert!(config.stderr == serve.stderr && config.stderr.contains(what), "{what}: {}", config.stderr);
    }
    let variables = [
        ("ANTEROOM_UPSTREAM__URL", "http://127.0.0.1:9"),
        ("ANTEROOM_LISTEN__TLS__CERTIFICATE", certificate.as_str()),
        ("ANTEROOM_LISTEN__TLS__KEY", key.as_str()),
    ];
    assert_eq!(run(&["config"], &variables, "").await.code, Some(0));
}

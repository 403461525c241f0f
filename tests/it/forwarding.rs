//! Whom the upstream takes a request to be from: trusted proxies are believed, nobody else, and no answer is shared
//! beyond the host it was made for.

use std::sync::Mutex;

use anteroom_stand_in::StandIn;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use crate::support::nginx::Nginx;
use crate::support::raw::exchange;
use crate::support::script::{Script, Scripted, answer, json};
use crate::support::tls::Certificate;
use crate::support::{Proxy, get, get_with, spawn};

const TRUST: &str = "listen.trusted_proxies = [\"127.0.0.0/8\"]";
const LIST: &str = r#"[{"id":1,"uuid":"u","contact":{"id":42},"messages":[],"account_id":7}]"#;

/// An API that is set up with forced TLS (`api.md` 6.7): whoever comes without it is sent to https.
fn forces_tls<B>(request: &Request<B>) -> Scripted {
    if request.headers().get("x-forwarded-proto").is_some_and(|protocol| protocol == "https") {
        return json(LIST);
    }
    let mut answer = answer(301, "text/html", "");
    let there = format!("https://chat.example{}", request.uri().path());
    answer.headers_mut().insert(header::LOCATION, HeaderValue::try_from(there).unwrap());
    answer
}

#[tokio::test]
async fn an_api_that_forces_tls_serves_lists_to_whom_a_trusted_proxy_says_came_by_tls() {
    let api = Script::start(forces_tls).await;
    let proxy = Proxy::in_front_of(&api.url, TRUST).await;
    let by_tls = [("x-forwarded-proto", "https")];
    let list = get_with(&proxy.list_url("a"), &by_tls).await;
    assert_eq!((list.status, list.text()), (StatusCode::OK, LIST.to_owned()));
    assert!(get_with(&proxy.list_url("a"), &by_tls).await.is_hit(), "the key is the same whatever the protocol");
}

#[tokio::test]
async fn an_api_that_forces_tls_is_told_https_if_the_operator_says_so() {
    let api = Script::start(forces_tls).await;
    let proxy = Proxy::in_front_of(&api.url, "upstream.forwarded_proto = \"https\"").await;
    assert_eq!(get(&proxy.list_url("a")).await.status, StatusCode::OK);
    assert_eq!(get(&format!("{}/anything", proxy.url)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stranger_is_not_believed_and_his_redirect_is_nobody_elses() {
    let api = Script::start(forces_tls).await;
    let proxy = Proxy::in_front_of(&api.url, "").await;
    for _ in 0..2 {
        let list = get_with(&proxy.list_url("a"), &[("x-forwarded-proto", "https")]).await;
        assert_eq!(list.status, StatusCode::MOVED_PERMANENTLY);
        assert!(!list.is_hit(), "{}", list.cache_status());
    }
}

/// nginx in front, which ends TLS, as its manual would have it.
struct EndsTls {
    nginx: Nginx,
    certificate: Certificate,
}

impl EndsTls {
    async fn in_front_of(proxy: &Proxy) -> Self {
        let certificate = Certificate::for_names(&["127.0.0.1"]);
        let nginx = Nginx::with(|address| {
            format!(
                "server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {};
                   location / {{ proxy_pass {}; proxy_http_version 1.1; proxy_set_header Host $host;
                     proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                     proxy_set_header X-Forwarded-Proto $scheme; }} }}",
                certificate.certificate().display(),
                certificate.key().display(),
                proxy.url,
            )
        })
        .await;
        Self { nginx, certificate }
    }

    async fn list(&self, source: &str) -> (StatusCode, String) {
        let url = format!("https://{}{}", self.nginx.address, StandIn::list_path(source));
        let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
        let response = self.certificate.client().request(request).await.expect("an answer");
        let how = response.headers()["cache-status"].to_str().unwrap().to_owned();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        (status, how)
    }
}

#[tokio::test]
async fn behind_nginx_that_ends_tls_an_api_that_forces_tls_serves_lists() {
    let api = Script::start(forces_tls).await;
    let trusting = Proxy::in_front_of(&api.url, TRUST).await;
    let nginx = EndsTls::in_front_of(&trusting).await;
    assert_eq!(nginx.list("a").await.0, StatusCode::OK);
    let (status, how) = nginx.list("a").await;
    assert!(status == StatusCode::OK && how.starts_with("anteroom; hit"), "{how}");
    let wary = Proxy::in_front_of(&api.url, "").await;
    let nginx = EndsTls::in_front_of(&wary).await;
    assert_eq!(nginx.list("a").await.0, StatusCode::MOVED_PERMANENTLY);
}

/// An API that says which host it was asked for.
fn names_the_host<B>(request: &Request<B>) -> Scripted {
    let host = request.headers()[header::HOST].to_str().unwrap();
    json(&format!(r#"[{{"id":1,"uuid":"u","contact":{{"id":42}},"messages":[],"account_id":7,"host":"{host}"}}]"#))
}

#[tokio::test]
async fn with_the_clients_host_upstream_an_answer_for_one_host_is_never_anothers() {
    let api = Script::start(names_the_host).await;
    let proxy = Proxy::in_front_of(&api.url, "upstream.host = \"client\"").await;
    let ask = async |host: &str| {
        let path = StandIn::list_path("a");
        exchange(&proxy.url, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await
    };
    for (host, hit) in [("a.test", false), ("b.test", false), ("A.test", true), ("b.test", true)] {
        let list = ask(host).await;
        assert!(list.text().contains(&format!("\"host\":\"{}\"", host.to_lowercase())), "{host}: {}", list.text());
        assert_eq!(list.field("cache-status").unwrap().starts_with("anteroom; hit"), hit, "{host}");
    }
}

#[tokio::test]
async fn a_fixed_host_is_sent_whatever_the_client_asked() {
    let api = Script::start(names_the_host).await;
    let proxy = Proxy::in_front_of(&api.url, "upstream.host = \"chat.example\"").await;
    for path in [StandIn::list_path("a"), "/passed".to_owned()] {
        let answer = get(&format!("{}{path}", proxy.url)).await;
        assert!(answer.text().contains("\"host\":\"chat.example\""), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_fixed_host_is_the_name_that_the_certificate_must_have() {
    let certificate = Certificate::for_names(&["chat.example"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = certificate.acceptor();
    let seen: &'static Mutex<Vec<String>> = Box::leak(Box::default());
    spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            seen.lock().unwrap().push(stream.get_ref().1.server_name().unwrap_or_default().to_owned());
            let service =
                hyper::service::service_fn(async |request| Ok::<_, std::convert::Infallible>(names_the_host(&request)));
            spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let trusting = format!("upstream.ca_file = {:?}", certificate.authority());
    let proxy = Proxy::in_front_of(&url, &format!("{trusting}\nupstream.host = \"chat.example\"")).await;
    assert_eq!(get(&proxy.list_url("a")).await.status, StatusCode::OK);
    assert_eq!(*seen.lock().unwrap(), ["chat.example"]);
    let other = Proxy::in_front_of(&url, &trusting).await;
    assert_eq!(get(&other.list_url("a")).await.status, StatusCode::BAD_GATEWAY, "the certificate is not for 127.0.0.1");
}

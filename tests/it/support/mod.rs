//! What every test needs: a proxy in front of a stand-in, a client, and time that moves when a test says so.
#![allow(dead_code, reason = "not every module of the tests needs all of it")]

pub mod browser;
pub mod child;
pub mod http2;
pub mod nginx;
pub mod raw;
pub mod redis;
pub mod relay;
pub mod script;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use anteroom::config::{self, Config, Flags, SettingsFile};
use anteroom::engine::metrics::Metrics;
use anteroom::server::listeners::{Addresses, Drained, Server, Stop};
use anteroom::state::State;
use anteroom_stand_in::{INBOX, Options, StandIn};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A proxy in this process, over real sockets, on ports the system chose.
pub struct Proxy {
    pub url: String,
    pub admin: String,
    pub addresses: Addresses,
    pub state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Drained>,
}

/// The settings of a proxy in front of an upstream; `settings` is more TOML.
pub fn settings(upstream: &str, settings: &str) -> Config {
    loaded(Some(upstream.to_owned()), settings)
}

fn loaded(upstream: Option<String>, settings: &str) -> Config {
    let flags = Flags { upstream, listen: Some("127.0.0.1:0".into()), admin: Some("127.0.0.1:0".into()) };
    let text = format!("drain.notice = \"0s\"\n{settings}");
    let none = std::iter::empty::<(String, String)>();
    match config::load(SettingsFile::Text("test.toml".into(), text), &flags, none) {
        Ok(loaded) => loaded.config,
        Err(mistakes) => panic!("{mistakes}"),
    }
}

impl Proxy {
    /// In front of a stand-in.
    pub async fn start(stand_in: &StandIn, more: &str) -> Self {
        Self::in_front_of(&stand_in.url(), more).await
    }

    /// In front of any upstream.
    pub async fn in_front_of(upstream: &str, more: &str) -> Self {
        Self::of(settings(upstream, more)).await
    }

    /// With `upstream.url` among the settings.
    pub async fn with_settings(settings: &str) -> Self {
        Self::of(loaded(None, settings)).await
    }

    /// With settings that are read already.
    pub async fn of(config: Config) -> Self {
        let settings = config.server.clone();
        let state = State::new(config, Arc::new(Metrics::new())).expect("the room can be put together");
        let server = Server::bind(state.clone(), settings).await.expect("loopback can be bound");
        let addresses = server.addresses().expect("a bound socket has an address");
        let (public, admin) = (addresses.port().expect("one of TCP"), addresses.admin);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async {
            let _ = stopped.await;
            Stop::Asked
        }));
        let (url, admin) = (format!("http://{public}"), format!("http://{admin}"));
        Self { url, admin, addresses, state, stop: Some(stop), running }
    }

    /// Tells it to stop; gives how the drain went.
    pub async fn stop(mut self) -> Drained {
        drop(self.stop.take());
        self.running.await.expect("the server does not panic")
    }

    /// The list of a contact of the usual inbox.
    pub fn list_url(&self, source: &str) -> String {
        format!("{}{}", self.url, StandIn::list_path(source))
    }

    /// The path of a contact of the usual inbox.
    pub fn contact_url(&self, source: &str) -> String {
        format!("{}/public/api/v1/inboxes/{INBOX}/contacts/{source}", self.url)
    }

    /// The usual inbox, which passes through.
    pub fn inbox_url(&self) -> String {
        format!("{}/public/api/v1/inboxes/{INBOX}", self.url)
    }

    /// Reads a list.
    pub async fn list(&self, source: &str) -> Answer {
        get(&self.list_url(source)).await
    }

    /// The value of a metric, as `/metrics` shows it; zero if it is not there.
    pub async fn metric(&self, name_and_labels: &str) -> f64 {
        let text = get(&format!("{}/metrics", self.admin)).await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a metric is a number"))
    }

    /// Waits until a metric has a value: a fact, not a time. Panics after 20 s.
    pub async fn wait_for_metric(&self, name_and_labels: &str, value: f64) {
        let waiting = async {
            while (self.metric(name_and_labels).await - value).abs() > f64::EPSILON {
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(told.is_ok(), "{name_and_labels} never was {value}");
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a readable field"))
    }

    /// `Cache-Status`, which is always there.
    pub fn cache_status(&self) -> &str {
        self.header("cache-status").expect("every answer has a Cache-Status")
    }

    pub fn is_hit(&self) -> bool {
        self.cache_status().starts_with("anteroom; hit")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("text")
    }
}

/// A client with a pool of connections of its own.
pub fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads the whole answer.
pub async fn send(request: Request<Full<Bytes>>) -> Answer {
    let response = client().request(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

/// A request with some fields and a body.
pub fn request(method: &str, url: &str, fields: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(url);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

pub async fn get(url: &str) -> Answer {
    send(request("GET", url, &[], "")).await
}

pub async fn get_with(url: &str, fields: &[(&str, &str)]) -> Answer {
    send(request("GET", url, fields, "")).await
}

/// A write with a JSON body.
pub async fn post(url: &str, body: &str) -> Answer {
    send(request("POST", url, &[("content-type", "application/json")], body)).await
}

/// Moves tokio's clock, in a test of one thread: nothing waits, timers that were due fire. The jump may not pass
/// limits that the test does not mean (stall, head and idle limits count too).
pub async fn jump(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

/// Starts a task of this test.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}

/// A stand-in and a proxy in front of it, with more settings.
pub async fn both(more: &str) -> (StandIn, Proxy) {
    let stand_in = StandIn::start(Options::default()).await.expect("a stand-in");
    let proxy = Proxy::start(&stand_in, more).await;
    (stand_in, proxy)
}

/// A reader of its own.
pub fn reading(proxy: &Proxy, source: &str) -> JoinHandle<Answer> {
    let url = proxy.list_url(source);
    spawn(async move { get(&url).await })
}

/// An agent resolves the first conversation of a source, by its number alone.
pub async fn resolve(stand_in: &StandIn, proxy: &Proxy, source: &str) -> Answer {
    let conversation = stand_in.conversation_ids(source)[0];
    let url = format!("{}/api/v1/accounts/1/conversations/{conversation}/toggle_status", proxy.url);
    let agent = [("content-type", "application/json"), ("api_access_token", "agent-token")];
    send(request("POST", &url, &agent, r#"{"status":"resolved"}"#)).await
}

/// A reader who comes now gets what the upstream has.
pub async fn is_up_to_date(stand_in: &StandIn, proxy: &Proxy, source: &str) {
    assert!(proxy.list(source).await.body == stand_in.list_body(source), "an older list than the upstream has");
}

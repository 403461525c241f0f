//! Visitors for a demonstration: they read and write through a proxy at their leisure, so that its metrics show
//! something.

use std::time::Duration;

use anteroom_stand_in::StandIn;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Between two requests.
const PACE: Duration = Duration::from_millis(150);
/// Before they try again, if nobody answers.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Before they look again whether the stand-in is behind the proxy.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Messages they write in all: lists that grow for ever are no demonstration.
const MESSAGES: usize = 100;
/// Turns between two writes.
const TURNS: usize = 20;

/// Visits for ever. Nothing is written as long as what answers has not the stand-in's list: a proxy in front of a real
/// API is left alone.
pub(super) async fn visit(proxy: Uri) {
    let visitors = Visitors { client: Client::builder(TokioExecutor::new()).build_http(), proxy };
    let mut turn = 0_usize;
    loop {
        let pause = match visitors.turn(turn).await {
            Some(StatusCode::OK) => {
                turn = turn.wrapping_add(1);
                PACE
            }
            Some(_) => LOOK_AGAIN,
            None => TRY_AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

struct Visitors {
    client: Client<HttpConnector, Full<Bytes>>,
    proxy: Uri,
}

impl Visitors {
    /// One reads the list; now and then somebody asks whether it has changed, or for something else, or writes.
    async fn turn(&self, turn: usize) -> Option<StatusCode> {
        let visitor = if turn.is_multiple_of(3) { "visitor-b" } else { "visitor-a" };
        let list = StandIn::list_path(visitor);
        let read = self.ask(Method::GET, &list, &[], "").await;
        if read != Some(StatusCode::OK) {
            return read;
        }
        match turn % TURNS {
            5 => self.ask(Method::GET, &list, &[(header::IF_NONE_MATCH, "*")], "").await,
            10 => self.ask(Method::GET, &list, &[(header::COOKIE, "theme=dark")], "").await,
            15 => self.ask(Method::GET, list.trim_end_matches("/conversations"), &[], "").await,
            0 => self.write(turn / TURNS).await,
            _ => None,
        };
        read
    }

    async fn write(&self, count: usize) -> Option<StatusCode> {
        let conversation = format!("{}/131", StandIn::list_path("visitor-a"));
        let json = [(header::CONTENT_TYPE, "application/json")];
        let (path, body) =
            if count < MESSAGES { ("messages", r#"{"content":"Hello"}"#) } else { ("update_last_seen", "{}") };
        self.ask(Method::POST, &format!("{conversation}/{path}"), &json, body).await
    }

    /// The status of the answer, once all of it is there.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        fields: &[(header::HeaderName, &'static str)],
        body: &'static str,
    ) -> Option<StatusCode> {
        let authority = self.proxy.authority()?;
        let mut request = Request::builder().method(method).uri(format!("http://{authority}{path}"));
        for (name, value) in fields {
            request = request.header(name, *value);
        }
        let response = self.client.request(request.body(Full::from(body)).ok()?).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    }
}

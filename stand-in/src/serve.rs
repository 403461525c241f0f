//! The way of a request: connection, log, faults, gates, answer, middleware, and out.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::faults::{Befallen, Fault};
use super::http::{Content, Reply, finish, preflight};
use super::json::json;
use super::log::{Point, Seen};
use super::params::{Params, Unreadable};
use super::routes::{self, Route};
use super::shared::Shared;
use super::stamps::{hex, wall_clock};
use super::wire::{Altered, Body, Download, Ending, Handle, Wire};
use super::{cable, handlers, render};

/// The service gives a request up after this long.
const SERVICE_LIMIT: Duration = Duration::from_secs(15);

/// Bodies with parameters are kept in memory up to here; direct uploads are not.
const MAX_PARAMETERS: usize = 64 * 1024 * 1024;

/// The connection is closed without a byte.
#[derive(Debug)]
pub(super) struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stand-in hangs up, as it was told to")
    }
}

impl std::error::Error for Gone {}

/// Accepts until the stand-in stops or goes down.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let up = shared.up();
    loop {
        let accepted = tokio::select! {
            () = up.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if let Ok((stream, _)) = accepted {
            shared.connections.fetch_add(1, Ordering::SeqCst);
            shared.tasks.spawn(connection(Arc::clone(&shared), stream, up.clone()));
        } else {
            // Out of file descriptors, most likely: a moment later there may be one.
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, up: CancellationToken) {
    // A connection that cannot be set up like this still works.
    let _ = stream.set_nodelay(true);
    let handle = Arc::new(Handle::default());
    let service = service_fn({
        let (shared, handle) = (Arc::clone(&shared), Arc::clone(&handle));
        move |request| serve(Arc::clone(&shared), Arc::clone(&handle), request)
    });
    let wire = TokioIo::new(Wire { stream, handle: Arc::clone(&handle) });
    let served = http1::Builder::new().auto_date_header(false).serve_connection(wire, service).with_upgrades();
    let mut served = pin!(served);
    let mut close_idle = shared.close_idle.subscribe();
    loop {
        tokio::select! {
            // How a connection ends is its client's business, or that of a fault.
            _ = served.as_mut() => return,
            () = up.cancelled() => return,
            _ = close_idle.changed() => if handle.is_idle() { return },
        }
    }
}

/// One request.
async fn serve(
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Gone> {
    let (busy, started) = (handle.begin(), Instant::now());
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let target = request.uri().path_and_query().map_or("*", |it| it.as_str()).to_owned();
    let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
    let mut route = routes::find(&routes::effective_method(&method, &headers, None), path);
    let mut seen = note(&method, &target, &headers, route.as_ref());
    let place = shared.log.note(seen.clone());
    let is_public = routes::is_public(path);
    if let Some(reply) = preflight(&method, &headers).filter(|_| is_public) {
        return Ok(shared.send(reply, &[], busy, &handle));
    }

    let mut params = Params::read(query, &HeaderMap::new(), &[]);
    if route != Some(Route::Upload) {
        let Ok(body) = Limited::new(request.body_mut(), MAX_PARAMETERS).collect().await else {
            return Ok(shared.send(Reply::too_large(), &[], busy, &handle));
        };
        seen.body = body.to_bytes();
        seen.body_length = Some(seen.body.len() as u64);
        shared.log.note_body(place, seen.body.len() as u64, seen.body.clone());
        params = Params::read(query, &headers, &seen.body);
        let in_form = params.as_ref().ok().and_then(|params| params.text("_method"));
        if let Some(in_form) = in_form {
            route = routes::find(&routes::effective_method(&method, &headers, Some(&in_form)), path);
        }
    }

    let befallen = shared.faults.lock().unwrap_or_else(PoisonError::into_inner).befall(&seen);
    if befallen.has(Fault::Hang) {
        std::future::pending::<()>().await;
    }
    if befallen.has(Fault::Reset) {
        return Err(Gone);
    }
    if route == Some(Route::Cable) && cable::wants_upgrade(&headers) {
        return Ok(cable::accept(&shared, request));
    }
    let front = [(Fault::Unavailable, StatusCode::SERVICE_UNAVAILABLE), (Fault::Html, StatusCode::OK)];
    if let Some((_, status)) = front.iter().find(|(fault, _)| befallen.has(*fault)) {
        return Ok(shared.send(Reply::maintenance(*status), &[], busy, &handle));
    }

    let mut reply = shared.answer(route, params, request, &seen, place, &befallen).await?;
    if befallen.has(Fault::ResetAfter) {
        return Err(Gone);
    }
    if befallen.has(Fault::ErrorAfter) {
        reply = Reply::broken();
    }
    if befallen.has(Fault::WrongShape) {
        reply = Reply::json(render::to_json(&json!({ "meta": {}, "payload": [] })));
    }
    finish(&mut reply, &method, &headers, place, started.elapsed(), is_public);
    Ok(shared.send(reply, befallen.all(), busy, &handle))
}

fn note(method: &Method, target: &str, headers: &HeaderMap, route: Option<&Route>) -> Seen {
    Seen {
        method: method.clone(),
        target: target.to_owned(),
        headers: headers.clone(),
        body_length: None,
        body: Bytes::new(),
        is_list: matches!(route, Some(Route::List(_))),
        source_id: route.and_then(Route::who).map(|who| who.source.clone()),
    }
}

/// Reads a body of any size and answers what it was.
async fn upload(shared: &Shared, place: usize, mut body: Incoming) -> Result<Reply, hyper::Error> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            hash.update(&data);
            length += data.len() as u64;
        }
    }
    shared.log.note_body(place, length, Bytes::new());
    let answer = json!({ "byte_size": length, "sha256": hex(&hash.finalize()) });
    Ok(Reply::json(render::to_json(&answer)))
}

impl Shared {
    /// What the service answers, before the middleware.
    async fn answer(
        &self,
        route: Option<Route>,
        params: Result<Params, Unreadable>,
        request: Request<Incoming>,
        seen: &Seen,
        place: usize,
        befallen: &Befallen,
    ) -> Result<Reply, Gone> {
        let accepts_json_only = seen.headers.get(header::ACCEPT).is_some_and(|it| it == "application/json");
        Ok(match (route, params) {
            _ if befallen.has(Fault::Throttle) || !self.within_rate(&seen.headers) => Reply::throttled(),
            _ if befallen.has(Fault::Error) => Reply::broken(),
            (None, _) => Reply::no_route(accepts_json_only),
            (Some(Route::Download(length)), _) => {
                Reply::stream("application/octet-stream", Download::of(length).boxed_unsync())
            }
            (Some(Route::Upload), _) => upload(self, place, request.into_body()).await.map_err(|_| Gone)?,
            (Some(Route::Cable), _) => Reply::no_socket(),
            (Some(_), Err(Unreadable)) => Reply::unreadable(accepts_json_only),
            (Some(route), Ok(params)) => self.work(&route, seen, &params, befallen).await,
        })
    }

    /// The application at work: gates, threads, time and the data.
    ///
    /// A list is read first and then takes its time, so that it is as old as a real one by the time it arrives. A
    /// write takes its time first and then happens.
    async fn work(&self, route: &Route, seen: &Seen, params: &Params, befallen: &Befallen) -> Reply {
        let verifies = matches!(route, Route::ShowContact(_)) && params.get("identifier_hash").is_some();
        let is_write = route.is_write() || verifies;
        self.stop_at(Point::BeforeReading, seen).await;
        let _thread = match &self.threads {
            Some(threads) => threads.acquire().await.ok(),
            None => None,
        };
        let slowed = if befallen.has(Fault::Slow) { self.slow_by } else { Duration::ZERO };
        if is_write && !service_time(self.latency.base + slowed).await {
            return Reply::broken();
        }
        let reordered = befallen.has(Fault::Reorder) && self.lists.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        let answer = handlers::answer(self, route, &seen.headers, params, reordered);
        let answer = answer.unwrap_or_else(|_| Reply::not_found().into());
        let messages = u32::try_from(answer.messages).unwrap_or(u32::MAX);
        let cost = self.latency.base + self.latency.per_message.saturating_mul(messages) + slowed;
        if !is_write && !service_time(cost).await {
            return Reply::broken();
        }
        self.stop_at(if is_write { Point::Acknowledging } else { Point::AfterReading }, seen).await;
        answer.reply
    }

    /// Stops at every gate that stands here for this request.
    async fn stop_at(&self, point: Point, seen: &Seen) {
        self.gates.pass(|(at, matcher)| *at == point && matcher.matches(seen)).await;
    }

    /// Counts a request in for its client and minute; false is one too many.
    fn within_rate(&self, headers: &HeaderMap) -> bool {
        let Some(limit) = self.requests_per_minute else { return true };
        // The peer is on this machine, a private address: the last entry of the list counts.
        let forwarded = headers.get("x-forwarded-for").and_then(|it| it.to_str().ok()).unwrap_or_default();
        let client = forwarded.rsplit(',').next().unwrap_or_default().trim().to_owned();
        let minute = wall_clock().as_secs() / 60;
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.0 != minute {
            *rate = (minute, std::collections::HashMap::new());
        }
        let count = rate.1.entry(client).or_default();
        *count += 1;
        *count <= limit
    }

    /// Sends an answer, well or, if a fault says so, badly.
    fn send(&self, reply: Reply, faults: &[Fault], busy: super::wire::Busy, handle: &Handle) -> Response<Body> {
        let Reply { status, mut headers, content } = reply;
        for (name, value) in &*self.extra_headers.lock().unwrap_or_else(PoisonError::into_inner) {
            headers.append(name.clone(), value.clone());
        }
        if faults.contains(&Fault::SetCookie) {
            headers.append(header::SET_COOKIE, HeaderValue::from_static("_session=demo; path=/; HttpOnly"));
        }
        if faults.contains(&Fault::NoEtag) {
            headers.remove(header::ETAG);
        }
        if let (true, Content::Bytes(body)) = (faults.contains(&Fault::CloseDelimited), &content) {
            handle.write_instead(close_delimited(status, &headers, body));
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut body = Altered::unaltered(content.into_body(), busy);
        let half = http_body::Body::size_hint(&body.inner).lower().min(128 * 1024) / 2;
        for fault in faults {
            let (allowance, ending, announced) = match fault {
                Fault::HangBody => (0, Ending::Hangs, true),
                Fault::Truncate => (half, Ending::Breaks, true),
                Fault::TruncateChunked => (half, Ending::Breaks, false),
                Fault::Chunked => (u64::MAX, Ending::Well, false),
                _ => continue,
            };
            (body.allowance, body.ending, body.announced) = (allowance, ending, announced);
        }
        let mut response = Response::new(body.boxed_unsync());
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        response
    }
}

/// Takes its time; false if that is more than the service allows, after what it allows.
async fn service_time(cost: Duration) -> bool {
    if !cost.is_zero() {
        sleep(cost.min(SERVICE_LIMIT)).await;
    }
    cost < SERVICE_LIMIT
}

/// An answer that hyper does not send: its end is the end of the connection.
fn close_delimited(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Bytes {
    let mut raw = format!("HTTP/1.1 {status}\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        raw.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    raw.extend(b"\r\n");
    raw.extend(body);
    raw.into()
}

//! The WebSocket for contacts: ActionCable, as far as a contact's client sees it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::interval;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;

use super::account::ACCOUNT;
use super::data::Event;
use super::json::{Value, json};
use super::render::to_json;
use super::shared::Shared;
use super::stamps::wall_clock;
use super::wire::{Body, full};

const PROTOCOL: &str = "actioncable-v1-json";

/// Whether this is a proper WebSocket handshake.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: header::HeaderName, token: &str| {
        let value = headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
        value.split(',').any(|it| it.trim().eq_ignore_ascii_case(token))
    };
    has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        && headers.contains_key(header::SEC_WEBSOCKET_KEY)
}

/// Answers the handshake and keeps the socket in a task of its own.
pub(super) fn accept(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let accepted = HeaderValue::from_str(&derive_accept_key(key)).expect("base64");
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let speaks_cable = offered.split(',').any(|it| it.trim() == PROTOCOL);

    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if speaks_cable {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    let upgrade = hyper::upgrade::on(request);
    shared.tasks.spawn(keep(Arc::clone(shared), upgrade, shared.up()));
    response
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// One socket from its welcome to its end.
async fn keep(shared: Arc<Shared>, upgrade: OnUpgrade, up: CancellationToken) {
    let upgraded = tokio::select! {
        () = up.cancelled() => return,
        upgraded = upgrade => upgraded,
    };
    let Ok(upgraded) = upgraded else { return };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let events = shared.world.lock().unwrap_or_else(PoisonError::into_inner).events.subscribe();
    // The client may have left at any moment: then there is nobody to tell.
    let _ = talk(&shared, &mut socket, events, &up).await;
    let goodbye = json!({ "type": "disconnect", "reason": "server_restart", "reconnect": true });
    let _ = send(&mut socket, &goodbye).await;
    let _ = socket.close(None).await;
}

type Spoken = Result<(), tokio_tungstenite::tungstenite::Error>;

async fn send(socket: &mut Socket, frame: &Value) -> Spoken {
    let text = String::from_utf8_lossy(&to_json(frame)).into_owned();
    socket.send(Frame::text(text)).await
}

/// Speaks until either side has had enough; `Ok` is that this side has.
async fn talk(shared: &Shared, socket: &mut Socket, mut events: Receiver<Event>, up: &CancellationToken) -> Spoken {
    let mut subscriptions: Vec<(String, String)> = Vec::new();
    let mut ping = interval(Duration::from_secs(3));
    ping.tick().await;
    send(socket, &json!({ "type": "welcome" })).await?;
    loop {
        tokio::select! {
            () = up.cancelled() => return Ok(()),
            _ = ping.tick() => {
                send(socket, &json!({ "type": "ping", "message": wall_clock().as_secs() })).await?;
            }
            event = events.recv() => match event {
                Ok(Event::Changed { tokens, name, data }) => {
                    for (identifier, _) in subscriptions.iter().filter(|(_, token)| tokens.contains(token)) {
                        let message = json!({ "event": name, "data": data });
                        send(socket, &json!({ "identifier": identifier, "message": message })).await?;
                    }
                }
                // At most once: what was missed is not repeated.
                Err(RecvError::Lagged(_)) => {}
                Ok(Event::Restart) | Err(RecvError::Closed) => return Ok(()),
            },
            frame = socket.next() => match frame {
                Some(Ok(Frame::Text(text))) => {
                    if let Some(subscription) = subscribe(shared, &text) {
                        confirm(shared, socket, &subscription.0).await?;
                        subscriptions.push(subscription);
                    }
                }
                Some(Ok(Frame::Close(_))) | None => return Err(tokio_tungstenite::tungstenite::Error::ConnectionClosed),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
        }
    }
}

async fn confirm(shared: &Shared, socket: &mut Socket, identifier: &str) -> Spoken {
    send(socket, &json!({ "identifier": identifier, "type": "confirm_subscription" })).await?;
    let online = {
        let world = shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        let users = world.agents.keys().map(|id| (id.to_string(), json!("online")));
        Value::Object(users.collect())
    };
    let data = json!({ "account_id": ACCOUNT, "users": online });
    let message = json!({ "event": "presence.update", "data": data });
    send(socket, &json!({ "identifier": identifier, "message": message })).await
}

/// The identifier and the token of a subscription. An unknown token gets no answer at all.
fn subscribe(shared: &Shared, text: &str) -> Option<(String, String)> {
    let command: Value = serde_json::from_str(text).ok()?;
    if command["command"] != "subscribe" {
        return None;
    }
    let identifier = command["identifier"].as_str()?;
    let channel: Value = serde_json::from_str(identifier).ok()?;
    let token = channel["pubsub_token"].as_str().filter(|_| channel["channel"] == "RoomChannel")?;
    let world = shared.world.lock().unwrap_or_else(PoisonError::into_inner);
    let known = world.contact_inboxes.values().any(|it| it.pubsub_token == token);
    known.then(|| (identifier.to_owned(), token.to_owned()))
}

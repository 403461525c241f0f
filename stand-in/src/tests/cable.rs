//! The WebSocket as a contact's client sees it.

use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::super::json::{Value, json};
use super::webhooks::assert_same_shape;
use super::{get, list, send, start};

/// The next frame that is not a ping.
async fn next(socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>) -> Value {
    loop {
        let frame = socket.next().await.expect("open").expect("a frame");
        let frame: Value = serde_json::from_str(frame.to_text().expect("text")).expect("JSON");
        if frame["type"] != "ping" {
            return frame;
        }
    }
}

#[tokio::test]
async fn cable_welcomes_confirms_and_tells_of_messages() {
    let stand_in = start().await;
    assert_eq!(get(&stand_in, "/cable").await.status, StatusCode::NOT_FOUND);
    let mut request = format!("ws://{}/cable", stand_in.addr()).into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "actioncable-v1-json".parse().expect("a value"));
    let stream = TcpStream::connect(stand_in.addr()).await.expect("it listens");
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.expect("a handshake");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "actioncable-v1-json");

    assert_eq!(next(&mut socket).await, json!({"type": "welcome"}));
    for token in ["unknown".to_owned(), stand_in.pubsub_token("visitor-a")] {
        let identifier = json!({"channel": "RoomChannel", "pubsub_token": token}).to_string();
        let command = json!({"command": "subscribe", "identifier": identifier}).to_string();
        socket.send(Frame::text(command)).await.expect("open");
    }
    assert_eq!(next(&mut socket).await["type"], "confirm_subscription", "and not a word about the unknown token");
    assert_eq!(next(&mut socket).await["message"]["event"], "presence.update");
    stand_in.agent_message("visitor-c", "for somebody else");
    let id = stand_in.agent_message("visitor-a", "<b>");
    let message = std::mem::take(&mut next(&mut socket).await["message"]);
    assert_eq!((&message["event"], &message["data"]["id"]), (&json!("message.created"), &json!(id)));
    let sample: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/events/cable-frames.json")).expect("JSON");
    assert_same_shape(&sample[5]["frame"]["message"], &message, "message.created");
    let typing = format!("{}/131/toggle_typing", list("visitor-a"));
    send(&stand_in, "POST", &typing, &serde_json::json!({"typing_status": "on"})).await;
    stand_in.agent_types("visitor-a", false);
    let message = std::mem::take(&mut next(&mut socket).await["message"]);
    assert_eq!(message["event"], "conversation.typing_off", "and nothing of what he typed himself");
    assert_eq!((&message["data"]["conversation"]["id"], &message["data"]["user"]["id"]), (&json!(131), &json!(31)));
    stand_in.restart_cable();
    assert_eq!(next(&mut socket).await["reason"], "server_restart");
}

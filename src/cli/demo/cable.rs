//! A visitor's WebSocket through the proxy: ActionCable, as a chat widget speaks it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// For each thing that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A WebSocket that hears what happens to one contact.
pub(super) struct Cable(WebSocketStream<TcpStream>);

impl Cable {
    /// Connects through the proxy at this address and subscribes with the contact's token.
    pub(super) async fn subscribe(proxy: &str, token: &str) -> Result<Self, String> {
        let subscribing = async {
            let request = format!("ws://{proxy}/cable").into_client_request().map_err(|error| error.to_string())?;
            let stream = TcpStream::connect(proxy).await.map_err(|error| error.to_string())?;
            let connected = tokio_tungstenite::client_async(request, stream).await;
            let mut this = Self(connected.map_err(|error| format!("no WebSocket: {error}"))?.0);
            let identifier = json!({ "channel": "RoomChannel", "pubsub_token": token }).to_string();
            let command = json!({ "command": "subscribe", "identifier": identifier }).to_string();
            this.0.send(Message::text(command)).await.map_err(|error| error.to_string())?;
            this.next(|frame| frame["type"] == "confirm_subscription").await?;
            Ok(this)
        };
        in_time(subscribing).await
    }

    /// Waits for an event of this name.
    pub(super) async fn event(&mut self, name: &str) -> Result<(), String> {
        in_time(self.next(|frame| frame["message"]["event"] == name)).await
    }

    async fn next(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<(), String> {
        while let Some(frame) = self.0.next().await {
            let frame = frame.map_err(|error| error.to_string())?;
            if frame.to_text().ok().and_then(|text| serde_json::from_str(text).ok()).is_some_and(|frame| wanted(&frame))
            {
                return Ok(());
            }
        }
        Err("the WebSocket was closed".to_owned())
    }
}

async fn in_time<T>(waiting: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| Err("nothing came in time".to_owned()))
}

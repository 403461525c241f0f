//! A receiver of webhooks that knows nothing of how the stand-in makes them.

use std::time::Duration;

use http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::stamps::hex;
use super::parse;

pub(super) const SECRET: &str = "whsec_test_0001";

/// A request as it came over the wire.
pub(super) struct Received {
    pub(super) line: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// A receiver that knows no HTTP library: each request gets the same answer, or none.
pub(super) struct Receiver {
    pub(super) url: String,
    pub(super) received: mpsc::UnboundedReceiver<Received>,
}

impl Receiver {
    pub(super) async fn answering(status: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hooks?token=letmein", listener.local_addr().expect("bound"));
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, status, sender.clone()));
            }
        });
        Self { url, received }
    }

    pub(super) async fn start() -> Self {
        Self::answering(Some("204 No Content")).await
    }

    pub(super) async fn next(&mut self) -> Received {
        timeout(Duration::from_secs(20), self.received.recv()).await.expect("a delivery").expect("it listens")
    }
}

async fn receive(mut stream: TcpStream, status: Option<&str>, sender: mpsc::UnboundedSender<Received>) {
    let mut raw = Vec::new();
    loop {
        if stream.read_buf(&mut raw).await.expect("open") == 0 {
            return;
        }
        let Some(end) = raw.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(raw[..end].to_vec()).expect("text");
        let (line, fields) = head.split_once("\r\n").expect("headers");
        // An answer is parsed by the same code: only the first line differs.
        let parsed = parse(format!("HTTP/1.1 200 \r\n{fields}\r\n\r\n").as_bytes());
        let length: usize = parsed.header("content-length").parse().expect("a length");
        if raw.len() < end + 4 + length {
            continue;
        }
        let received = Received { line: line.to_owned(), headers: parsed.headers, body: raw[end + 4..].to_vec() };
        sender.send(received).ok();
        let Some(status) = status else { return std::future::pending().await };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.expect("open");
        return;
    }
}

/// HMAC-SHA256 by hand, for keys of up to 64 bytes.
fn hmac(key: &str, text: &[u8]) -> String {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key.as_bytes()).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    hex(&Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

/// Whether the signature is that of the body and the timestamp.
pub(super) fn assert_signed(headers: &HeaderMap, body: &[u8]) {
    let value = |name: &str| headers[name].to_str().expect("text");
    let signed = [value("x-chatwoot-timestamp").as_bytes(), b".", body].concat();
    assert_eq!(value("x-chatwoot-signature"), format!("sha256={}", hmac(SECRET, &signed)));
}

#[test]
fn hmac_by_hand_gives_the_published_signature() {
    let signature = hmac(SECRET, b"1781182950.{\"event\":\"message_created\",\"id\":1}");
    assert_eq!(signature, "7b8f49c5fa5b713bad1778de91d85efdead7cd36c8083114285b1ae7a203ed47");
}

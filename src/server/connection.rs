//! One connection of a client, from its first byte: TLS or not, and which HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, HEAD_LIMIT};
use super::heads::Heads;
use super::socket::{Socket, first_bytes, socket};
use super::stream::{ClientStream, Progress};
use super::{http1, http2};
use crate::engine::metrics::Raised;
use crate::engine::tls::{Tls, handshake_error};
use crate::policy::http::client::{Protocol, Side};
use crate::state::State;

/// What a client says first who speaks HTTP/2 without having asked (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The first byte of TLS.
const HANDSHAKE: u8 = 0x16;
/// What somebody gets who speaks plain HTTP where TLS is spoken.
const SPEAKS_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
                            content-length: 43\r\n\r\nThis port speaks TLS. Write https:// here.\n";

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Door {
    /// The listener's name.
    pub(super) name: &'static str,
    pub(super) state: Arc<State>,
    /// Heads that have not ended, of all connections.
    pub(super) heads: Arc<Heads>,
    /// `limits.head`.
    pub(super) head_limit: usize,
    /// Cancelled when connections finish the answer in flight and end.
    pub(super) closing: CancellationToken,
}

/// Serves one connection.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, door: Door) {
    // Small answers leave at once.
    let _ = stream.set_nodelay(true);
    serve_any(stream, peer, door).await;
}

/// The same over any stream of bytes.
pub(super) async fn serve_any<S>(io: S, peer: SocketAddr, door: Door)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Door { name, state, heads, head_limit, closing } = door;
    let _open = Raised::new(&state.metrics.connections.with_label_values(&[name]));
    let stall = state.active().upstream.settings().stall_timeout;
    let socket = socket(io, stall);
    let side = Side::from(peer);
    let mut conversation = Conversation { name, state: state.clone(), heads, head_limit, closing, peer, side };
    if !conversation.is_public() {
        return http1::serve(socket, conversation).await;
    }
    let Some(tls) = &state.tls else { return serve_plain(socket, conversation).await };
    let Some(stream) = secured(socket, tls, &conversation).await else { return };
    conversation.side.protocol = Protocol::Https;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, conversation).await;
    } else {
        http1::serve(stream, conversation).await;
    }
}

/// HTTP/1.1, or HTTP/2 by who knows that it is spoken here.
async fn serve_plain<S>(mut socket: Socket<S>, conversation: Conversation)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let is_preface = |early: &[u8]| match early.strip_prefix(PREFACE) {
        Some(_) => Some(true),
        None => (!PREFACE.starts_with(early)).then_some(false),
    };
    match begun(&mut socket, HEAD_LIMIT, &conversation, is_preface).await {
        Begun::Told(true) => http2::serve(socket, conversation).await,
        Begun::Told(false) => http1::serve(socket, conversation).await,
        Begun::TooSlow => {
            conversation.ended_by("timeout");
            conversation.log_unread(StatusCode::REQUEST_TIMEOUT, "timeout");
        }
        Begun::Over => {}
    }
}

/// The connection after its handshake; none if that came to nothing, which is told.
async fn secured<S>(mut socket: Socket<S>, tls: &Tls, conversation: &Conversation) -> Option<Box<TlsStream<Socket<S>>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ended = |kind: &'static str| {
        conversation.ended_by(kind);
        None
    };
    match begun(&mut socket, HEAD_LIMIT, conversation, |early| early.first().copied()).await {
        Begun::Told(HANDSHAKE) => {}
        Begun::Told(byte) if byte.is_ascii_alphabetic() => {
            let progress = Arc::new(Progress::new(conversation.heads.clone()));
            ClientStream::new(socket, progress).refuse(SPEAKS_TLS).await;
            return ended("tls_plain");
        }
        Begun::Told(_) => return ended("tls_refused"),
        Begun::TooSlow => return ended("tls_timeout"),
        Begun::Over => return None,
    }
    let shaken = tokio::select! {
        shaken = timeout(HEAD_LIMIT, tls.acceptor().accept(socket)) => shaken,
        () = conversation.closing.cancelled() => return None,
    };
    match shaken {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            ended(handshake_error(&error))
        }
        Err(_) => ended("tls_timeout"),
    }
}

/// How a connection has begun.
enum Begun<T> {
    Told(T),
    /// Something was said, and not enough.
    TooSlow,
    /// Nothing was, or the proxy is about to end.
    Over,
}

async fn begun<S: AsyncRead + AsyncWrite + Unpin, T>(
    socket: &mut Socket<S>,
    limit: Duration,
    conversation: &Conversation,
    tells: impl Fn(&[u8]) -> Option<T>,
) -> Begun<T> {
    let mut has_begun = false;
    let told = tokio::select! {
        told = timeout(limit, first_bytes(socket, &mut has_begun, tells)) => told,
        () = conversation.closing.cancelled() => return Begun::Over,
    };
    match told {
        Ok(Ok(Some(told))) => Begun::Told(told),
        Err(_) if has_begun => Begun::TooSlow,
        Ok(_) if has_begun => {
            conversation.ended_by("incomplete");
            Begun::Over
        }
        _ => Begun::Over,
    }
}

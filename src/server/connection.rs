//! One connection of a client, from its first byte: TLS or not, and which HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::connections::{Connections, Full};
use super::conversation::{Conversation, PUBLIC};
use super::heads::Heads;
use super::proxy_protocol;
use super::socket::{Socket, first_bytes, socket};
use super::sockets::Accepted;
use super::progress::Progress;
use super::stream::ClientStream;
use super::{http1, http2};
use crate::engine::metrics::{Limit, Raised};
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
    /// `limits.head_timeout`.
    pub(super) head_timeout: Duration,
    /// `limits.idle_timeout`.
    pub(super) idle_timeout: Duration,
    /// `listen.proxy_protocol`.
    pub(super) proxy_protocol: bool,
    /// Who is connected.
    pub(super) connections: Arc<Connections>,
    /// Cancelled when connections finish the answer in flight and end.
    pub(super) closing: CancellationToken,
}

/// Serves one connection, if there is a place for it.
pub(super) async fn serve(mut stream: Accepted, mut peer: SocketAddr, door: Door) {
    let progress = Arc::new(Progress::new(door.heads.clone()));
    let closing = door.closing.child_token();
    let is_trusted = door.state.active().config.forward.trusted.contain(peer.ip());
    let is_local = matches!(stream, Accepted::Right(_));
    let limited = (door.name == PUBLIC && !is_trusted && !is_local).then_some(peer.ip());
    let errors = &door.state.metrics.connection_errors;
    let reached = |limit| {
        if door.name == PUBLIC {
            door.state.metrics.limits.reached(limit);
        }
    };
    let _held = match door.connections.take(limited, progress.clone(), closing.clone()) {
        Ok(held) => held,
        // It is closed: there is no place for saying so.
        Err(full) => {
            let (kind, limit) = match full {
                Full::InAll => ("too_many", Limit::Connections),
                Full::OfAddress => ("too_many_of_address", Limit::ConnectionsPerAddress),
            };
            reached(limit);
            return errors.with_label_values(&[kind]).inc();
        }
    };
    if door.proxy_protocol && is_trusted {
        let told = tokio::select! {
            told = timeout(door.head_timeout, proxy_protocol::read(&mut stream)) => told,
            () = closing.cancelled() => return,
        };
        match told {
            Ok(Ok(told)) => peer = told.client.unwrap_or(peer),
            told => {
                if told.is_err() {
                    reached(Limit::HeadTimeout);
                }
                return errors.with_label_values(&["proxy_protocol"]).inc();
            }
        }
    }
    let Door { name, state, head_limit, head_timeout, idle_timeout, .. } = door;
    let side = Side::from(peer);
    let conversation =
        Conversation { name, state, head_limit, idle_timeout, head_timeout, progress, closing, peer, side };
    converse(stream, conversation).await;
}

/// Requests and answers over any stream of bytes, until one of the two sides has had enough.
async fn converse<S>(io: S, mut conversation: Conversation)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let state = conversation.state.clone();
    let _open = Raised::new(&state.metrics.connections.with_label_values(&[conversation.name]));
    let socket = socket(io, state.active().upstream.settings().stall_timeout);
    if !conversation.is_public() {
        return http1::serve(socket, conversation).await;
    }
    let Some(tls) = &state.tls else { return serve_plain(socket, conversation).await };
    let Some(stream) = Box::pin(secured(socket, tls, &conversation)).await else { return };
    conversation.side.protocol = Protocol::Https;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(http2::serve(stream, conversation)).await;
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
    match begun(&mut socket, conversation.idle_timeout, &conversation, is_preface).await {
        // Few connections speak it: the others do not make room for it.
        Begun::Told(true) => Box::pin(http2::serve(socket, conversation)).await,
        Begun::Told(false) => http1::serve(socket, conversation).await,
        Begun::TooSlow => {
            conversation.ended_by("timeout");
            conversation.reached(Limit::HeadTimeout);
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
    match begun(&mut socket, conversation.idle_timeout, conversation, |early| early.first().copied()).await {
        Begun::Told(HANDSHAKE) => {}
        Begun::Told(byte) if byte.is_ascii_alphabetic() => {
            let Conversation { progress, head_timeout, idle_timeout, .. } = conversation;
            ClientStream::new(socket, progress.clone(), *head_timeout, *idle_timeout).refuse(SPEAKS_TLS).await;
            return ended("tls_plain");
        }
        Begun::Told(_) => return ended("tls_refused"),
        Begun::TooSlow => {
            conversation.reached(Limit::HeadTimeout);
            return ended("tls_timeout");
        }
        Begun::Over => return None,
    }
    let shaken = tokio::select! {
        shaken = timeout(conversation.head_timeout, tls.acceptor().accept(socket)) => shaken,
        () = conversation.closing.cancelled() => return None,
    };
    match shaken {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            ended(handshake_error(&error))
        }
        Err(_) => {
            conversation.reached(Limit::HeadTimeout);
            ended("tls_timeout")
        }
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
        Err(_) => {
            conversation.reached(Limit::IdleTimeout);
            Begun::Over
        }
        Ok(_) if has_begun => {
            conversation.ended_by("incomplete");
            Begun::Over
        }
        _ => Begun::Over,
    }
}

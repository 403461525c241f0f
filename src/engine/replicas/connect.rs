//! Connections to one Redis: how each is made, as whom, and why it was not.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::AbortOnDropHandle;

use super::super::metrics::ExchangeFailure;
use super::super::upstream::ways::roots;
use super::settings::{Door, ReplicasSettings};

/// Why Redis could not be asked: the kind, and in words.
#[derive(Debug)]
pub struct Failed {
    /// The kind.
    pub kind: ExchangeFailure,
    words: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.words)
    }
}

impl Failed {
    pub(super) fn new(kind: ExchangeFailure, words: impl fmt::Display) -> Self {
        Self { kind, words: words.to_string() }
    }

    /// No reply came in time.
    pub fn too_slow(limit: Duration) -> Self {
        Self::new(ExchangeFailure::Timeout, format_args!("no answer within {limit:?}"))
    }
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        let kind = match error.code() {
            Some("READONLY") => ExchangeFailure::ReadOnly,
            Some("NOREPLICAS") => ExchangeFailure::NoReplicas,
            Some("OOM") => ExchangeFailure::Full,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => ExchangeFailure::Denied,
            // What a script has met stands in its message.
            _ if error.is_io_error() || error.is_connection_dropped() => ExchangeFailure::Connection,
            _ => of_words(&error.to_string()),
        };
        Self::new(kind, error)
    }
}

/// What a script has met is told within its error.
fn of_words(words: &str) -> ExchangeFailure {
    let known = [
        ("READONLY", ExchangeFailure::ReadOnly),
        ("NOREPLICAS", ExchangeFailure::NoReplicas),
        ("OOM", ExchangeFailure::Full),
        ("NOPERM", ExchangeFailure::Denied),
        ("permission", ExchangeFailure::Denied),
        ("uthentication", ExchangeFailure::Denied),
    ];
    known.into_iter().find(|(word, _)| words.contains(word)).map_or(ExchangeFailure::Other, |(_, kind)| kind)
}

/// A connection to one server, whatever it goes over.
pub(super) type Stream = Either<TlsStream<TcpStream>, Either<TcpStream, UnixStream>>;

/// A connection, and the task that drives it as long as this is there.
pub(super) type Driven = (MultiplexedConnection, AbortOnDropHandle<()>);

/// Connects, with no limit on time.
pub(super) async fn connection(
    settings: &ReplicasSettings,
    door: &Door,
    info: &RedisConnectionInfo,
) -> Result<Driven, Failed> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let stream = stream(settings, door).await?;
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    Ok((connection, AbortOnDropHandle::new(tokio::spawn(driver))))
}

/// The bytes to and from a server.
pub(super) async fn stream(settings: &ReplicasSettings, door: &Door) -> Result<Stream, Failed> {
    Ok(match door {
        Door::Tls(host, port) => Either::Left(tls(settings, host, *port).await?),
        Door::Tcp(host, port) => Either::Right(Either::Left(tcp(host, *port).await?)),
        Door::Unix(path) => Either::Right(Either::Right(UnixStream::connect(path).await.map_err(not_connected)?)),
    })
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect((host, port)).await.map_err(not_connected)?;
    stream.set_nodelay(true).map_err(not_connected)?;
    Ok(stream)
}

/// Certificates are read anew each time: they may have been changed.
async fn tls(settings: &ReplicasSettings, host: &str, port: u16) -> Result<TlsStream<TcpStream>, Failed> {
    let failed = |why: String| Failed::new(ExchangeFailure::Connection, why);
    let roots = roots(settings.ca_file.as_deref(), "replicas.ca_file").map_err(failed)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(format!("replicas.redis: {error}")))?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp(host, port).await?).await.map_err(not_connected)
}

fn not_connected(error: io::Error) -> Failed {
    Failed::new(ExchangeFailure::Connection, error)
}

/// Who connects; the password is read anew each time, since it may have been changed.
pub(super) fn info(settings: &ReplicasSettings) -> Result<RedisConnectionInfo, Failed> {
    let mut info = RedisConnectionInfo::default().set_db(settings.redis.database.into());
    if let Some(user) = &settings.redis.user {
        info = info.set_username(user);
    }
    if let Some(password) = password(settings)? {
        info = info.set_password(password);
    }
    Ok(info)
}

/// `replicas.password_file`, as it stands now.
pub(super) fn password(settings: &ReplicasSettings) -> Result<Option<String>, Failed> {
    let Some(file) = &settings.password_file else { return Ok(None) };
    let password = std::fs::read_to_string(file)
        .map_err(|error| Failed::new(ExchangeFailure::Denied, format_args!("replicas.password_file: {error}")))?;
    Ok(Some(password.trim_end_matches(['\r', '\n']).to_owned()))
}

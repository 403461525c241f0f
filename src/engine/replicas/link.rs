//! The connection to Redis over which replicas exchange what they know: made and dropped by its user, never renewed in
//! silence, for whoever decides has to know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Script, ScriptInvocation, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use super::read;
use super::settings::{Door, ReplicasSettings};
use super::super::metrics::ExchangeFailure;
use super::super::upstream::ways::roots;
use crate::policy::replicas::exchange::{Hint, MemberId, Reply, Request};
use crate::policy::replicas::wire;

/// Hints that wait to be heard; more are lost, which costs time and nothing else.
const HINTS: usize = 1024;
/// How long a subscription may take to be made.
const SUBSCRIBING: Duration = Duration::from_secs(2);

/// Why an exchange failed: the kind, and in words.
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

/// What every exchange of a fleet has in common.
pub struct Names {
    script: Script,
    fleet: String,
    log: String,
    hints: String,
    agreement: [u8; 16],
}

impl Names {
    /// The names of the keys, and the script.
    pub fn new(prefix: &str, agreement: [u8; 16]) -> Self {
        Self {
            script: Script::new(include_str!("exchange.lua")),
            // The braces keep them in one slot of a cluster.
            fleet: format!("{{{prefix}}}:1:fleet"),
            log: format!("{{{prefix}}}:1:log"),
            hints: hints_of(prefix),
            agreement,
        }
    }
}

/// The channel on which is told what there will be to read.
pub(super) fn hints_of(prefix: &str) -> String {
    format!("{{{prefix}}}:1:hint")
}

/// A connection.
pub struct Link {
    connection: MultiplexedConnection,
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects.
    pub async fn open(settings: &ReplicasSettings) -> Result<Self, Failed> {
        let info = info(settings)?;
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let (connection, driver) = match &settings.redis.door {
            Door::Tls(host, port) => {
                let stream = tls(settings, host, *port).await?;
                let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
                (connection, tokio::spawn(driver))
            }
            Door::Tcp(host, port) => {
                let (connection, driver) = MultiplexedConnection::new_with_config(&info, tcp(host, *port).await?, config).await?;
                (connection, tokio::spawn(driver))
            }
            Door::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(not_connected)?;
                let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
                (connection, tokio::spawn(driver))
            }
        };
        Ok(Self { connection, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Runs a script, as long as it may take.
    pub(super) async fn run(&self, invocation: &ScriptInvocation<'_>) -> Result<Value, Failed> {
        Ok(invocation.invoke_async(&mut self.connection.clone()).await?)
    }

    /// One exchange. `random` is for an epoch and for the mark of what is told, if either is needed.
    pub async fn exchange(
        &mut self,
        names: &Names,
        id: MemberId,
        request: &Request,
        random: ([u8; 16], u64),
    ) -> Result<Reply, Failed> {
        let (epoch, tag) = random;
        let batch = if request.items.is_empty() { Vec::new() } else { wire::encode(&request.items) };
        let flag = |flag: bool| if flag { "1" } else { "0" };
        let applied_tag = if request.applied.seq == 0 { Vec::new() } else { request.applied.tag.to_be_bytes().to_vec() };
        let mut invocation = names.script.prepare_invoke();
        invocation.key(&names.fleet).key(&names.log).arg(&id[..]).arg(request.number);
        invocation.arg(request.epoch.as_ref().map_or(&[][..], |epoch| epoch)).arg(request.applied.seq).arg(applied_tag);
        invocation.arg(flag(request.fresh)).arg(flag(request.ripe)).arg(flag(request.leaving));
        invocation.arg(&tag.to_be_bytes()[..]).arg(batch).arg(&epoch[..]).arg(&names.agreement[..]).arg(&names.hints);
        for (id, number) in &request.silent {
            invocation.arg(&id[..]).arg(*number);
        }
        let value: Value = invocation.invoke_async(&mut self.connection).await?;
        read::reply(value).ok_or_else(|| Failed::new(ExchangeFailure::Other, "the reply is not one of the script"))
    }
}

/// What is heard ahead of exchanges, as long as this is there.
pub struct Hints {
    heard: mpsc::Receiver<Hint>,
    _task: AbortOnDropHandle<()>,
}

impl Hints {
    /// Begins to listen. If it cannot, nothing is heard.
    pub fn subscribe(settings: ReplicasSettings, names: &Names) -> Self {
        let (tell, heard) = mpsc::channel(HINTS);
        let channel = names.hints.clone();
        let task = tokio::spawn(async move {
            let subscribing = tokio::time::timeout(SUBSCRIBING, subscribed(&settings, &channel)).await;
            let Ok(Ok(mut subscription)) = subscribing else { return };
            let mut messages = subscription.on_message();
            while let Some(message) = messages.next().await {
                if let Some(hint) = read::hint(message.get_payload_bytes())
                    && matches!(tell.try_send(hint), Err(mpsc::error::TrySendError::Closed(_)))
                {
                    return;
                }
            }
        });
        Self { heard, _task: AbortOnDropHandle::new(task) }
    }

    /// The next one; none if there will be no more.
    pub async fn next(&mut self) -> Option<Hint> {
        self.heard.recv().await
    }
}

async fn subscribed(settings: &ReplicasSettings, channel: &str) -> Result<PubSub, Failed> {
    let info = info(settings)?;
    let mut subscription = match &settings.redis.door {
        Door::Tls(host, port) => PubSub::new(&info, tls(settings, host, *port).await?).await?,
        Door::Tcp(host, port) => PubSub::new(&info, tcp(host, *port).await?).await?,
        Door::Unix(path) => PubSub::new(&info, UnixStream::connect(path).await.map_err(not_connected)?).await?,
    };
    subscription.subscribe(channel).await?;
    Ok(subscription)
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

fn not_connected(error: std::io::Error) -> Failed {
    Failed::new(ExchangeFailure::Connection, error)
}

/// Who connects; the password is read anew each time, since it may have been changed.
fn info(settings: &ReplicasSettings) -> Result<RedisConnectionInfo, Failed> {
    let mut info = RedisConnectionInfo::default().set_db(settings.redis.database.into());
    if let Some(user) = &settings.redis.user {
        info = info.set_username(user);
    }
    if let Some(file) = &settings.password_file {
        let password = std::fs::read_to_string(file)
            .map_err(|error| Failed::new(ExchangeFailure::Denied, format_args!("replicas.password_file: {error}")))?;
        info = info.set_password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(info)
}

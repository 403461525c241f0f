//! The connection to Redis over which replicas exchange what they know: made and dropped by its user, never renewed in
//! silence, for whoever decides has to know.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Script, ScriptInvocation, Value};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::super::metrics::ExchangeFailure;
use super::connect::{Failed, connection, info, stream};
use super::primary::{Primary, primary};
use super::read;
use super::settings::{ReplicasSettings, Way};
use crate::policy::replicas::exchange::{Hint, MemberId, Reply, Request};
use crate::policy::replicas::wire;

/// Hints that wait to be heard; more are lost, which costs time and nothing else.
const HINTS: usize = 1024;
/// How long a subscription may take to be made.
const SUBSCRIBING: Duration = Duration::from_secs(2);

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

    pub(super) fn fleet(&self) -> &str {
        &self.fleet
    }

    pub(super) fn log(&self) -> &str {
        &self.log
    }

    pub(super) fn hints(&self) -> &str {
        &self.hints
    }
}

/// The channel on which is told what there will be to read.
pub(super) fn hints_of(prefix: &str) -> String {
    format!("{{{prefix}}}:1:hint")
}

/// The key of what there is of an answer. All of a fleet have one slot of a cluster, for only one of its nodes is asked; else
/// each has its own.
pub(super) fn answer_key(settings: &ReplicasSettings, name: &str, kind: &str) -> String {
    let prefix = &settings.prefix;
    match &settings.redis.way {
        Way::Cluster(_) => format!("{{{prefix}}}:1:{name}:{kind}"),
        Way::Server(_) | Way::Sentinels(..) => format!("{prefix}:1:{{{name}}}:{kind}"),
    }
}

/// A connection.
pub struct Link {
    connection: MultiplexedConnection,
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects to the server that takes the writes of a fleet.
    pub async fn open(settings: &ReplicasSettings) -> Result<Self, Failed> {
        let Primary { door, .. } = primary(settings).await?;
        let (connection, driver) = connection(settings, &door, &info(settings)?).await?;
        Ok(Self { connection, _driver: driver })
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
        let applied_tag =
            if request.applied.seq == 0 { Vec::new() } else { request.applied.tag.to_be_bytes().to_vec() };
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
    let Primary { door, .. } = primary(settings).await?;
    let mut subscription = PubSub::new(&info(settings)?, stream(settings, &door).await?).await?;
    subscription.subscribe(channel).await?;
    Ok(subscription)
}

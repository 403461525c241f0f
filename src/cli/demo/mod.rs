//! `anteroom demo`: the stand-in and the proxy, or several that share through Redis, in one process. It plays what the proxy
//! does, and keeps running for whoever wants to try it himself.

mod acts;
mod cable;
mod claim;
mod client;
mod counted;
mod fleet;
mod redis;
mod replicas;
mod visitors;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Config, Flags, Loaded, SettingsFile};
use crate::engine::metrics::Metrics;
use crate::engine::replicas::settings::{Door, Mode, Way};
use crate::policy::http::target::is_reachable;
use crate::policy::secret::Secret;
use crate::server::sockets::Inherited;
use anteroom_stand_in::{Fault, INBOX, Options, StandIn, Trouble, Webhook};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use http::Uri;
use http::uri::{Authority, Scheme};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;

use super::log::log_to_standard_error;
use super::serve::serve;
use super::terminal::{Done, announce, runtime};
use acts::Acts;
use client::Client;
use fleet::FleetActs;
use redis::Redis;
use replicas::{Others, Replica};
use visitors::visit;

/// What is different from `serve` if nobody sets it.
const PRESETS: [(&str, &str); 6] = [
    ("listen.address", "\"127.0.0.1:8080\""),
    // Nobody waits for a demonstration to end,
    ("drain.notice", "\"0s\""),
    // nor half a minute until a list is too old.
    ("cache.ttl", "\"4s\""),
    ("cache.stale_while_revalidate", "\"2s\""),
    // A thousand readers are a thousand lines.
    ("log.only", "\"trouble\""),
    ("log.level", "\"warn\""),
];

#[derive(Args)]
pub(super) struct Demo {
    /// A file of settings: those of serve, but that upstream.url is the stand-in. ANTEROOM_ variables count as well.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect, 127.0.0.1:8080 if nothing is set; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the status page, metrics and health are, 127.0.0.1:9180 if nothing is set.
    #[arg(long, value_name = "ADDR|URL")]
    admin: Option<String>,
    /// Where the stand-in listens, for other programs to ask it too; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    stand_in: SocketAddr,
    /// Play no acts: only the stand-in and the proxy.
    #[arg(long)]
    no_acts: bool,
    /// So many proxies that share what has changed through Redis, 2 to 8, with acts of their own; those after the first
    /// listen on free ports of 127.0.0.1.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=8))]
    replicas: Option<u8>,
    /// The Redis of --replicas; without it redis-server is started for the demonstration, and killed in its acts.
    #[arg(long, value_name = "URL", requires = "replicas")]
    redis: Option<String>,
    /// A proxy in front of the stand-in, where visitors are to read and write, so that there is something to see; without
    /// acts.
    #[arg(long, value_name = "URL", value_parser = visited)]
    visit: Option<Authority>,
    /// What the stand-in does wrong with lists; may be given more than once; without acts.
    #[arg(long, value_name = "KIND", value_parser = fault())]
    fault: Vec<Fault>,
}

/// Faults by their names, each with a line of help.
fn fault() -> impl TypedValueParser<Value = Fault> {
    let values = Fault::ALL.map(|(name, _, about)| PossibleValue::new(name).help(about));
    PossibleValuesParser::new(values).map(|name| Fault::named(&name).expect("one of the possible values"))
}

/// Where visitors go: a URL of a proxy that speaks HTTP without TLS, or what is wrong with it.
fn visited(text: &str) -> Result<Authority, String> {
    let url: Option<Uri> = text.parse().ok().filter(|_| !text.contains('#'));
    let url = url.filter(|url| url.scheme() == Some(&Scheme::HTTP) && url.path() == "/" && url.query().is_none());
    let authority = url.as_ref().and_then(Uri::authority).filter(|authority| is_reachable(authority));
    authority.cloned().ok_or_else(|| "write http://, the host of a proxy and its port, and nothing after it".to_owned())
}

impl Demo {
    pub(super) fn run(self) -> Done {
        runtime()?.block_on(self.start())
    }

    async fn start(self) -> Done {
        // With faults or visitors the acts would claim what is not so.
        let with_acts = !self.no_acts && self.fault.is_empty() && self.visit.is_none();
        let options = Options { address: self.stand_in, ..Options::demo(self.fault) };
        let stand_in = StandIn::start(options).await;
        let stand_in = Arc::new(stand_in.map_err(|error| format!("the stand-in cannot start: {error}"))?);
        let secret = random()?;
        let mut redis = match (self.replicas, &self.redis) {
            (Some(_), None) => Some(Redis::prepare(&random()?)?),
            _ => None,
        };
        let url = redis.as_ref().map(|redis| format!("unix://{}", redis.socket().display())).or(self.redis);
        let flags = Flags { upstream: Some(stand_in.url()), listen: self.listen, admin: self.admin };
        let reread = settings(self.config, flags, presets(url)?, Secret::new(secret.as_str()));
        let loaded = reread()?;
        // Another one may be set.
        let way = loaded.config.replicas.as_ref().map(|replicas| &replicas.redis.way);
        redis.take_if(|redis| way != Some(&Way::Server(Door::Unix(redis.socket()))));
        let metrics = Arc::new(Metrics::new());
        let log = log_to_standard_error(&loaded.config.log, &metrics)?;
        announce(&format!("stand-in for the API on {}\n", stand_in.url()));
        if let Some(redis) = &mut redis {
            redis.start().await?;
            announce(&format!("redis-server on {}\n", redis.socket().display()));
        }
        let others = Others::start(&loaded.config, usize::from(self.replicas.unwrap_or(1) - 1)).await?;
        if let Some(authority) = &self.visit {
            tokio::spawn(visit(Client::new(&format!("http://{authority}"))));
        }
        let redis = redis.map(|redis| Arc::new(Mutex::new(redis)));
        let stage = Stage {
            with_acts,
            // It lives as long as the proxy, not as the acts.
            stand_in: stand_in.clone(),
            metrics: metrics.clone(),
            secret,
            config: loaded.config.clone(),
            others: others.replicas.clone(),
            redis: redis.clone(),
        };
        let done =
            serve(loaded, metrics, log.clone(), reread, Inherited::default(), |public, admin| stage.set(public, admin));
        let done = log.close(done.await);
        // They leave Redis before it ends.
        others.stop().await;
        drop(redis);
        Ok(done)
    }
}

/// What is there once everything listens.
struct Stage {
    with_acts: bool,
    stand_in: Arc<StandIn>,
    metrics: Arc<Metrics>,
    /// Of the demonstration's own webhooks.
    secret: String,
    config: Config,
    others: Vec<Replica>,
    redis: Option<Arc<Mutex<Redis>>>,
}

impl Stage {
    /// Plays the acts, if there are any, and says then what to type.
    fn set(self, public: Option<SocketAddr>, admin: SocketAddr) {
        for (number, Replica { proxy, admin, .. }) in (2..).zip(&self.others) {
            announce(&format!("replica {number} on http://{proxy}, its status page on http://{admin}/\n"));
        }
        let Some(public) = public.filter(|_| self.config.tls.is_none()) else {
            announce("The acts need a public listener without TLS that has a port.\n");
            return;
        };
        let (lifetimes, by_origin) = (self.config.lifetimes, self.config.origin.is_some());
        if by_origin {
            announce("The acts are about lists that live as cache.ttl says: by the API's own word none is kept.\n");
        }
        let webhook = webhook(&format!("http://{public}{}", self.config.webhook.path), self.secret.clone());
        tokio::spawn(async move {
            if self.with_acts && !by_origin && !until_told_to_stop(self.play(public, admin, &webhook)).await {
                return;
            }
            self.stand_in.send_webhooks_to(webhook);
            let ttl = if by_origin { None } else { Some(lifetimes.ttl) };
            explain(public, admin, &self.stand_in.url(), ttl, self.others.last());
        });
    }

    async fn play(&self, public: SocketAddr, admin: SocketAddr, webhook: &Webhook) {
        let (stand_in, metrics, proxy) = (self.stand_in.clone(), self.metrics.clone(), public.to_string());
        if self.others.is_empty() {
            let (webhook, lifetimes) = (webhook.clone(), self.config.lifetimes);
            return Acts { stand_in, metrics: [metrics], proxy, webhook, lifetimes }.play().await;
        }
        let Some(settings) = self.config.replicas.as_ref().filter(|settings| settings.mode == Mode::Strict) else {
            return announce("The acts are about replicas.mode = \"strict\".\n");
        };
        let replicas = [&[Replica { metrics, proxy, admin }], &self.others[..]].concat();
        FleetActs { stand_in, replicas, redis: self.redis.clone(), cut_off: settings.cut_off }.play().await;
    }
}

/// What is different from `serve` if nobody sets it; `redis` is where replicas share.
fn presets(redis: Option<String>) -> Result<Vec<(&'static str, String)>, String> {
    let mut presets: Vec<_> = PRESETS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    if let Some(url) = redis {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        presets.push(("replicas.redis", quoted(&url)));
        presets.push(("replicas.secret", quoted(&random()?)));
        // Whatever else shares through this Redis is another fleet.
        presets.push(("replicas.prefix", quoted("anteroom-demo")));
    }
    Ok(presets)
}

/// What reads the settings: those of this command, with another secret for its own webhooks.
fn settings(
    file: Option<PathBuf>,
    flags: Flags,
    presets: Vec<(&'static str, String)>,
    secret: Option<Secret>,
) -> impl Fn() -> Result<Loaded, String> + Send + Sync + 'static {
    // What is installed on this machine for the proxy is not meant for a demonstration: no file unless it is named.
    let file = file.map_or(SettingsFile::None, SettingsFile::Given);
    move || {
        let presets: Vec<_> = presets.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let loaded = config::load_preset(&presets, file.clone(), &flags, std::env::vars_os());
        let mut loaded = loaded.map_err(|mistakes| format!("the settings are wrong\n{mistakes}"))?;
        loaded.config.webhook.secrets.extend(secret.clone());
        Ok(loaded)
    }
}

/// Whether it came to its end before somebody told the program to stop.
async fn until_told_to_stop(playing: impl Future<Output = ()>) -> bool {
    let heard = signal(SignalKind::interrupt()).and_then(|it| Ok((it, signal(SignalKind::terminate())?)));
    let Ok((mut interrupt, mut terminate)) = heard else { return false };
    tokio::select! {
        () = playing => true,
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
    }
}

/// For this run, in 32 digits: a secret, or a name. Nobody has to type it, so nobody is shown it.
fn random() -> Result<String, String> {
    let mut bytes = [0; 16];
    let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    drawn.map_err(|error| format!("no random numbers: {error}"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The proxy as a receiver, told as late as by a queue that has other things to do.
fn webhook(url: &str, secret: String) -> Webhook {
    let delay = Duration::from_millis(200)..=Duration::from_millis(400);
    Webhook::account(url).signed_with(secret).with(Trouble { delay, ..Trouble::default() })
}

/// Says what to type, and what it will show.
fn explain(public: SocketAddr, admin: SocketAddr, stand_in: &str, ttl: Option<Duration>, other: Option<&Replica>) {
    let then = ttl.map_or_else(String::new, |ttl| format!(", and within {ttl:?} a hit"));
    let list = format!("http://{public}/public/api/v1/inboxes/{INBOX}/contacts/visitor-a/conversations");
    let elsewhere = other.map_or_else(String::new, |Replica { proxy, .. }| {
        format!(
            "# A write through one replica; the read through another after it has the message.
other=http://{proxy}/public/api/v1/inboxes/{INBOX}/contacts/visitor-a/conversations
curl -sD- -o/dev/null -d 'content=Is it the same here?' $list/131/messages; curl -sD- $other
"
        )
    });
    let behind = format!("{stand_in}/api/v1/accounts/7/conversations/131/messages");
    announce(&format!(
        "
Status page: http://{admin}/ and metrics: http://{admin}/metrics

Try it yourself in another terminal; Cache-Status says what became of each. Without -o/dev/null the body comes, too.

list={list}
# A miss{then}.
curl -sD- -o/dev/null $list
# A 304: the client has this list already.
curl -sD- -o/dev/null -H 'If-None-Match: *' $list
# A write; the read after it has the message.
curl -sD- -o/dev/null -d 'content=Is anybody there?' $list/131/messages
# An agent answers behind the proxy's back, straight to the API; half a second later the list has it.
curl -sD- -o/dev/null -H 'api_access_token: agent-token' -d 'content=We are here.' {behind}
{elsewhere}
Ctrl-C ends it.
"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_go_to_a_proxy_and_nowhere_else() {
        assert_eq!(visited("http://proxy:8080/").as_ref().map(Authority::as_str), Ok("proxy:8080"));
        assert!(visited("http://127.0.0.1").is_ok());
        for wrong in [
            "",
            "hush",
            "proxy:8080",
            "https://proxy",
            "http://",
            "http://a:b@proxy",
            "http://proxy:0",
            "http://proxy/path",
            "http://proxy/?a",
            "http://proxy/#a",
        ] {
            assert!(visited(wrong).is_err(), "{wrong}");
        }
    }
}

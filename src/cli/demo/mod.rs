//! `anteroom demo`: the stand-in and the proxy in one process. It plays what the proxy does, and keeps running for
//! whoever wants to try it himself.

mod acts;
mod cable;
mod claim;
mod client;
mod counted;
mod visitors;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Flags, Loaded, SettingsFile};
use crate::engine::metrics::Metrics;
use crate::policy::http::target::is_reachable;
use crate::policy::secret::Secret;
use crate::server::sockets::Inherited;
use anteroom_stand_in::{Fault, INBOX, Options, StandIn, Trouble, Webhook};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use http::Uri;
use http::uri::{Authority, Scheme};
use tokio::signal::unix::{SignalKind, signal};

use super::log::log_to_standard_error;
use super::serve::serve;
use super::terminal::{Done, announce, runtime};
use acts::Acts;
use client::Client;
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
        let secret = new_secret().map_err(|error| format!("no random numbers: {error}"))?;
        let flags = Flags { upstream: Some(stand_in.url()), listen: self.listen, admin: self.admin };
        let reread = settings(self.config, flags, Secret::new(secret.as_str()));
        let loaded = reread()?;
        let metrics = Arc::new(Metrics::new());
        let log = log_to_standard_error(&loaded.config.log, &metrics)?;
        announce(&format!("stand-in for the API on {}\n", stand_in.url()));
        if let Some(authority) = &self.visit {
            tokio::spawn(visit(Client::new(&format!("http://{authority}"))));
        }
        let (lifetimes, path) = (loaded.config.lifetimes, loaded.config.webhook.path.clone());
        let (is_plain, by_origin) = (loaded.config.tls.is_none(), loaded.config.origin.is_some());
        let (told, counting) = (stand_in.clone(), metrics.clone());
        let bound = move |public: Option<SocketAddr>, admin| {
            let Some(public) = public.filter(|_| is_plain) else {
                announce("The acts need a public listener without TLS that has a port.\n");
                return;
            };
            let webhook = webhook(&format!("http://{public}{path}"), secret);
            let acts = Acts {
                stand_in: told.clone(),
                metrics: counting,
                proxy: public.to_string(),
                webhook: webhook.clone(),
                lifetimes,
            };
            if by_origin {
                announce("The acts are about lists that live as cache.ttl says: by the API's own word none is kept.\n");
            }
            tokio::spawn(async move {
                if with_acts && !by_origin && !until_told_to_stop(acts.play()).await {
                    return;
                }
                told.send_webhooks_to(webhook);
                explain(public, admin, &told.url(), if by_origin { None } else { Some(lifetimes.ttl) });
            });
        };
        Ok(log.close(serve(loaded, metrics, log.clone(), reread, Inherited::default(), bound).await))
    }
}

/// What reads the settings: those of this command, with another secret for its own webhooks.
fn settings(
    file: Option<PathBuf>,
    flags: Flags,
    secret: Option<Secret>,
) -> impl Fn() -> Result<Loaded, String> + Send + Sync + 'static {
    // What is installed on this machine for the proxy is not meant for a demonstration: no file unless it is named.
    let file = file.map_or(SettingsFile::None, SettingsFile::Given);
    move || {
        let loaded = config::load_preset(&PRESETS, file.clone(), &flags, std::env::vars_os());
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

/// A secret for this run. Nobody has to type it, so nobody is shown it.
fn new_secret() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The proxy as a receiver, told as late as by a queue that has other things to do.
fn webhook(url: &str, secret: String) -> Webhook {
    let delay = Duration::from_millis(200)..=Duration::from_millis(400);
    Webhook::account(url).signed_with(secret).with(Trouble { delay, ..Trouble::default() })
}

/// Says what to type, and what it will show.
fn explain(public: SocketAddr, admin: SocketAddr, stand_in: &str, ttl: Option<Duration>) {
    let then = ttl.map_or_else(String::new, |ttl| format!(", and within {ttl:?} a hit"));
    let list = format!("http://{public}/public/api/v1/inboxes/{INBOX}/contacts/visitor-a/conversations");
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

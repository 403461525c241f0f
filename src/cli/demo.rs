//! `anteroom demo`: the stand-in and the proxy in one process, and the `curl` lines that show what the proxy does.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Flags, Loaded, SettingsFile};
use crate::engine::metrics::Metrics;
use crate::policy::secret::Secret;
use crate::server::sockets::Inherited;
use anteroom_stand_in::{Fault, INBOX, Options, StandIn, Trouble, Webhook};
use clap::Args;
use http::Uri;

use super::log::log_to_standard_error;
use super::serve::serve;
use super::terminal::{Done, announce, runtime};
use super::visitors::visit;

#[derive(Args)]
pub(super) struct Demo {
    /// Where clients connect; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where metrics and health are.
    #[arg(long, value_name = "ADDR|URL", default_value = "127.0.0.1:9180")]
    admin: String,
    /// Where the stand-in listens, for other programs to ask it too; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    stand_in: SocketAddr,
    /// A proxy in front of the stand-in, where visitors are to read and write, so that there is something to see.
    #[arg(long, value_name = "URL")]
    visit: Option<Uri>,
    /// What the stand-in does wrong with lists, such as slow, error, hang or truncate; may be given more than once.
    #[arg(long, value_name = "KIND")]
    fault: Vec<Fault>,
}

impl Demo {
    pub(super) fn run(self) -> Done {
        runtime()?.block_on(async {
            let options = Options { address: self.stand_in, ..Options::demo(self.fault) };
            let stand_in = StandIn::start(options).await;
            let stand_in = stand_in.map_err(|error| format!("the stand-in cannot start: {error}"))?;
            let secret = new_secret().map_err(|error| format!("no random numbers: {error}"))?;
            let flags = Flags { upstream: Some(stand_in.url()), listen: Some(self.listen), admin: Some(self.admin) };
            let known = Secret::new(secret.as_str());
            let reread = move || -> Result<Loaded, String> {
                let none = std::iter::empty::<(String, String)>();
                let loaded = config::load(SettingsFile::None, &flags, none);
                let mut loaded = loaded.map_err(|mistakes| format!("the settings are wrong\n{mistakes}"))?;
                let config = &mut loaded.config;
                // Nobody waits for a demonstration to end.
                config.server.drain_notice = Duration::ZERO;
                config.log.hits = 1.0;
                config.webhook.secrets = known.iter().cloned().collect();
                Ok(loaded)
            };
            let loaded = reread()?;
            let metrics = Arc::new(Metrics::new());
            let log = log_to_standard_error(&loaded.config.log, &metrics)?;
            announce(&format!("stand-in for the API on {}\n", stand_in.url()));
            let stand_in = &stand_in;
            if let Some(proxy) = self.visit {
                tokio::spawn(visit(proxy));
            }
            let bound = |public: Option<SocketAddr>, admin| {
                let Some(public) = public else { return };
                stand_in.send_webhooks_to(webhook(public, secret));
                explain(public, admin, &stand_in.url());
            };
            Ok(log.close(serve(loaded, metrics, log.clone(), reread, Inherited::default(), bound).await))
        })
    }
}

/// A secret for this run. Nobody has to type it, so nobody is shown it.
fn new_secret() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// The proxy as a receiver, told as late as by a queue that has other things to do.
fn webhook(public: SocketAddr, secret: String) -> Webhook {
    let delay = Duration::from_millis(200)..=Duration::from_millis(400);
    let webhook = Webhook::account(format!("http://{public}/_anteroom/webhooks")).signed_with(secret);
    webhook.with(Trouble { delay, ..Trouble::default() })
}

/// Says what to type, and what it will show.
fn explain(public: SocketAddr, admin: SocketAddr, stand_in: &str) {
    let contact = format!("http://{public}/public/api/v1/inboxes/{INBOX}/contacts/visitor-a");
    let list = format!("{contact}/conversations");
    let behind = format!("{stand_in}/api/v1/accounts/7/conversations/131/messages");
    announce(&format!(
        "
Type these into another terminal:

# A miss: fetched from the API; Cache-Status says fwd=uri-miss.
curl -i {list}

# A hit: the same again, from memory; Cache-Status says hit.
curl -i {list}

# A 304: the client has this list already.
curl -i -H 'If-None-Match: *' {list}

# A write: it passes through, and the list is out of date before this answer comes.
curl -i -H 'Content-Type: application/json' -d '{{\"content\": \"Is anybody there?\"}}' {list}/131/messages

# The read after it: fetched again, with the new message at its end.
curl -i {list}

# What the proxy counted.
curl http://{admin}/metrics

# An agent answers behind the proxy's back: this goes straight to the API, which tells the proxy by webhook.
curl -i -H 'api_access_token: agent-token' -d 'content=We are here.' {behind}

# The read after it: the webhook has come within half a second, so the answer is in the list.
curl -i {list}

"
    ));
}

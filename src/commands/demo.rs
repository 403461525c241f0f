//! `anteroom demo`: the stand-in and the proxy in one process, and the `curl` lines that show what the proxy does.

use std::io::Write;
use std::net::SocketAddr;

use anteroom::config::{self, Flags, SettingsFile};
use anteroom::demo::{Fault, INBOX, Options, StandIn};
use clap::Args;

use super::{Done, log_to_standard_error, runtime, serve};

#[derive(Args)]
pub(super) struct Demo {
    /// Where clients connect; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where metrics and health are.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9180")]
    admin: String,
    /// Where the stand-in listens, for other programs to ask it too; port 0 lets the system choose.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    stand_in: SocketAddr,
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
            let flags = Flags { upstream: Some(stand_in.url()), listen: Some(self.listen), admin: Some(self.admin) };
            let reread = move || {
                let none = std::iter::empty::<(String, String)>();
                let loaded = config::load(SettingsFile::None, &flags, none);
                loaded.map(|loaded| loaded.config).map_err(|mistakes| format!("the settings are wrong\n{mistakes}"))
            };
            let mut config = reread()?;
            // Nobody waits for a demonstration to end.
            config.server.drain_notice = std::time::Duration::ZERO;
            config.log.hits = 1.0;
            log_to_standard_error(&config.log)?;
            println!("stand-in for the API on {}", stand_in.url());
            serve(config, reread, explain).await
        })
    }
}

/// Says what to type, and what it will show.
fn explain(public: SocketAddr, admin: SocketAddr) {
    let contact = format!("http://{public}/public/api/v1/inboxes/{INBOX}/contacts/visitor-a");
    let list = format!("{contact}/conversations");
    println!(
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
"
    );
    // A closed pipe is no reason to stop.
    let _ = std::io::stdout().flush();
}

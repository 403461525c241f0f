//! The command line: what each command does, and its exit code. 0 well, 1 failed while running, 2 arguments or
//! settings.

mod admin_client;
mod check;
mod completions;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod explain;
mod log;
mod purge;
mod ready;
pub mod report;
mod serve;
mod service_manager;
mod start;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::engine::build_info::VERSION_AND_COMMIT;
use admin_client::AdminClient;
use check::Check;
use completions::KnownShell;
use config::File;
use explain::Explain;
use purge::Purge;
use serve::Serve;
use terminal::{Done, complain};
use top::Top;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(message) => {
            complain(&message);
            ExitCode::from(2)
        }
    }
}

/// The command line, for what describes it: manual pages are made from this.
pub fn command() -> clap::Command {
    Cli::command()
}

/// A caching reverse proxy in front of the Chatwoot-compatible public API.
#[derive(Parser)]
#[command(
    version = VERSION_AND_COMMIT,
    about,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "\
Settings come from flags, from variables such as ANTEROOM_CACHE__TTL, and from a file; anteroom config shows them all.

Exit codes: 0 well, 1 failed while running, 2 arguments or settings."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy in front of an API.
    #[command(after_help = "\
SIGTERM and SIGINT: no new work, answers in flight arrive, then exit (settings drain.*).
SIGHUP: the settings are read again; mistakes in them change nothing.")]
    Serve(Serve),
    /// Compare a list with the published contract: what differs, what trimming saves, where the bytes are.
    Check(Check),
    /// Show the settings in force and where each came from, or everything that is wrong with them.
    Config(File),
    /// Ask a running proxy whether it takes requests: exit code 0 if it does.
    Ready(AdminClient),
    /// Make a running proxy forget what it has of a contact, of an inbox, or everything.
    #[command(after_help = "\
Identifiers are credentials: they come from standard input, not from the command line that others can see.

  printf %s \"$CONTACT\" | anteroom purge --token-file admin-token --contact -")]
    Purge(Purge),
    /// Say why a request is answered from memory, or is not.
    #[command(after_help = "\
Identifiers are credentials: they come from standard input, not from the command line that others can see.

  printf '%s\\n' \"$INBOX\" \"$CONTACT\" | anteroom explain --token-file admin-token \\
      GET '/public/api/v1/inboxes/{inbox}/contacts/{contact}/conversations'")]
    Explain(Explain),
    /// Show who asks most: contacts and inboxes by requests, bytes and misses.
    #[command(after_help = "\
Contacts and inboxes are told by hashes, which are those of the log until the proxy starts anew.
anteroom explain tells the hashes of an identifier. Only while somebody watches is anything counted.")]
    Top(Top),
    /// Print what a shell needs to complete this command line.
    #[command(after_help = "\
Where each shell looks for it:

  anteroom completions bash > /etc/bash_completion.d/anteroom
  anteroom completions zsh > /usr/local/share/zsh/site-functions/_anteroom
  anteroom completions fish > ~/.config/fish/completions/anteroom.fish")]
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: KnownShell,
    },
    /// Try it out: a stand-in for the API and the proxy in front of it, which show what they do and go on running.
    #[cfg(feature = "demo")]
    #[command(after_help = "\
Lists are served for 4 s and once more for 2 s here, so that the acts are short, and the log has
trouble only. Whatever --config or a variable sets is stronger.")]
    Demo(demo::Demo),
}

impl Cli {
    /// Runs the command.
    fn run(self) -> Done {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Check(check) => check.run(),
            Command::Config(file) => file.show(),
            Command::Ready(client) => ready::ready(&client),
            Command::Purge(purge) => purge.run(),
            Command::Explain(explain) => explain.run(),
            Command::Top(top) => top.run(),
            Command::Completions { shell } => completions::complete(shell, &mut Self::command()),
            #[cfg(feature = "demo")]
            Command::Demo(demo) => demo.run(),
        }
    }
}

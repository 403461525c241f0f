//! `anteroom completions`: what a shell needs to complete the command line.

use std::process::ExitCode;

use super::terminal::{Done, say};

/// The shells for which `anteroom completions` is tried out.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script for a shell.
pub(super) fn complete(shell: KnownShell, command: &mut clap::Command) -> Done {
    let shell = match shell {
        KnownShell::Bash => clap_complete::Shell::Bash,
        KnownShell::Zsh => clap_complete::Shell::Zsh,
        KnownShell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "anteroom", &mut script);
    say(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
}

//! `anteroom config`, and how every command reads the settings.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::terminal::{Done, say};
use crate::config::{self, Flags, SettingsFile};

#[derive(Args)]
pub(super) struct File {
    /// The file of settings; without it ./anteroom.toml or /etc/anteroom/anteroom.toml, if there is one.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl File {
    /// Which file that is.
    pub(super) fn source(self) -> SettingsFile {
        self.config.map_or(SettingsFile::Usual, SettingsFile::Given)
    }

    /// Reads and checks all settings.
    pub(super) fn load(self, flags: &Flags) -> Result<config::Loaded, String> {
        config::load(self.source(), flags, std::env::vars_os())
            .map_err(|mistakes| format!("the settings are wrong\n{mistakes}"))
    }

    /// Prints the settings in force.
    pub(super) fn show(self) -> Done {
        say(self.load(&Flags::default())?.listing(), ExitCode::SUCCESS)
    }
}

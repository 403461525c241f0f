//! Command line to exit code.

mod commands;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::Cli::parse().run() {
        Ok(code) => code,
        Err(message) => {
            commands::complain(&message);
            ExitCode::from(2)
        }
    }
}

//! The log of the program, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

/// Sends the log to standard error, as the settings say.
pub(super) fn log_to_standard_error(settings: &LogSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| format!("log.level: {error}"))?;
    let on_terminal = std::io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for eyes: not for a file, nor for those who do not want them (no-color.org).
    let colours = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let logs = logs.with_ansi(colours);
    let set = if pretty { logs.compact().try_init() } else { logs.json().flatten_event(true).try_init() };
    set.map_err(|error| format!("logging: {error}"))
}

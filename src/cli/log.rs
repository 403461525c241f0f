//! The log of the program, on standard error.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::time::Duration;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::terminal::Done;
use crate::config::{LogFormat, LogSettings};
use crate::engine::log_lines::LogLines;
use crate::engine::metrics::Metrics;

/// How long the last lines may take when the program ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log, once it is set up.
#[derive(Clone)]
pub(super) struct Log(LogLines);

impl Log {
    /// Waits for the last lines, but not for ever.
    pub(super) fn flush(&self) {
        self.0.flush(LAST_LINES);
    }

    /// The end of a command that logs: its mistake is a line like all others.
    pub(super) fn close(&self, done: Done) -> ExitCode {
        let code = done.unwrap_or_else(|message| {
            tracing::error!("{message}");
            ExitCode::from(2)
        });
        self.flush();
        code
    }
}

/// Sends the log to standard error, as the settings say. From now on nothing else is written there: whoever waits for
/// standard error would wait as long as its reader likes.
pub(super) fn log_to_standard_error(settings: &LogSettings, metrics: &Metrics) -> Result<Log, String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| format!("log.level: {error}"))?;
    let on_terminal = std::io::stderr().is_terminal();
    let pretty = match settings.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let cannot = |error: &dyn std::fmt::Display| format!("logging: {error}");
    let lost = metrics.telling.log_lines_dropped.clone();
    let lines = LogLines::to(std::io::stderr(), lost).map_err(|error| cannot(&error))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone());
    // Colours are for eyes: not for a file, nor for those who do not want them (no-color.org).
    let colours = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A line that cannot be written is counted, not complained of on the same standard error.
    let logs = logs.with_ansi(colours).log_internal_errors(false);
    let ours = filter_fn(may_be_told);
    let set = if pretty {
        logs.compact().finish().with(ours).try_init()
    } else {
        logs.json().flatten_event(true).finish().with(ours).try_init()
    };
    set.map_err(|error| cannot(&error))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(lines))
}

/// Libraries tell in fine detail what a peer sent (h2 repeats a path that is none), and a path is a credential here: of
/// theirs, nothing finer than `info` is a line, whatever the settings say.
fn may_be_told(line: &Metadata<'_>) -> bool {
    let is_ours = line.target().split("::").next() == Some("anteroom");
    is_ours || *line.level() <= LevelFilter::INFO
}

/// A panic is a line, too.
fn log_panic(info: &PanicHookInfo<'_>) {
    let message = message_of(info.payload());
    let location = info.location().map(ToString::to_string);
    // Only if the environment asks for it (`RUST_BACKTRACE`).
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(location, backtrace, "panicked: {message}");
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

//! What every command needs to talk to the terminal.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// An error on the way: one message, exit code 2 unless a command says otherwise.
pub(super) type Done = Result<ExitCode, String>;

/// Tells of a mistake.
pub(super) fn complain(message: &str) {
    // Where it cannot be told, the exit code must do: nothing may panic here.
    let _ = writeln!(std::io::stderr(), "anteroom: {message}");
}

/// Prints what was asked for.
pub(super) fn say(text: &str, code: ExitCode) -> Done {
    show(text).map(|_| code)
}

/// The same, and whether anybody reads on: whoever reads only the first lines closes the pipe, which is no mistake.
pub(super) fn show(text: &str) -> Result<bool, String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("standard output: {error}")),
    }
}

/// Tells on standard output what is of use to whoever started the program. If it cannot be told, that is no reason not
/// to serve.
pub(super) fn announce(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What runs the program's tasks. A worker has room for 256 that can go on; the others lie where all workers take them from,
/// and would wait behind those: it looks there at every second turn, else with 1,000 connections some wait five times as long.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.global_queue_interval(2).enable_all().build().map_err(|error| format!("no runtime: {error}"))
}

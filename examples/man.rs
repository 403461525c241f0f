//! Writes the manual pages of the program and of each command into a folder: `cargo run --example man -- FOLDER`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    // What cannot be written ends this with its reason.
    std::fs::create_dir_all(&folder).expect("a folder");
    clap_mangen::generate_to(anteroom::cli::command(), &folder).expect("pages");
    ExitCode::SUCCESS
}

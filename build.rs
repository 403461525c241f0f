//! Tells the program its commit: the variable `ANTEROOM_COMMIT` if it is set, else what git says, else `unknown`.

#![allow(clippy::print_stdout, reason = "this is how cargo is told")]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=ANTEROOM_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("ANTEROOM_COMMIT").ok().map(|commit| commit.trim().to_owned());
    let commit = given.filter(|commit| !commit.is_empty()).or_else(commit_of_git);
    // Of another name: what begins with ANTEROOM_ is a setting to the program, and cargo runs it with this variable.
    println!("cargo::rustc-env=BUILD_COMMIT={}", commit.unwrap_or_else(|| "unknown".into()));
}

/// The short name of the commit, if this is a working tree of its own and git is there.
fn commit_of_git() -> Option<String> {
    // Sources unpacked below somebody else's working tree are not of that commit.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::var("CARGO_MANIFEST_DIR").ok()?;
    if Path::new(&top).canonicalize().ok()? != Path::new(&here).canonicalize().ok()? {
        return None;
    }
    // It gets a line with every commit and every switch; a file that is not there would mean building every time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

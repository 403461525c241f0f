//! The command line explains itself: what every command's help says, and what shells are told.

use std::fmt::Write;
use std::path::Path;

use crate::support::child::run;

const COMMANDS: [&str; 10] =
    ["", "serve", "check", "config", "ready", "purge", "explain", "top", "completions", "demo"];

#[tokio::test]
async fn the_help_of_every_command_is_as_it_was_read() {
    let mut rendered = String::new();
    for command in COMMANDS {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|argument| !argument.is_empty()).collect();
        let told = run(&arguments, &[("COLUMNS", "100")], "").await;
        assert_eq!(told.code, Some(0), "{told:?}");
        let shown = ["$ anteroom", command, "--help"].join(" ").replace("  ", " ");
        let _ = writeln!(rendered, "{shown}\n{}", told.stdout);
    }
    assert!(rendered.lines().all(|line| line.chars().count() <= 100), "a line is too wide for a terminal");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/help.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &rendered).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == rendered,
        "the help differs from tests/fixtures/help.txt; read it, then UPDATE=1 cargo test --test it help\n{rendered}"
    );
}

/// The fixture has a text for each command there is.
#[tokio::test]
async fn no_command_is_left_out() {
    let told = run(&["--help"], &[], "").await;
    let commands = told.stdout.split("Commands:\n").nth(1).and_then(|text| text.split("\n\n").next()).unwrap();
    let named = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let named: Vec<&str> =
        named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert_eq!(named, COMMANDS[1..]);
}

#[tokio::test]
async fn shells_can_complete_every_command_and_flag() {
    for shell in ["bash", "zsh", "fish"] {
        let told = run(&["completions", shell], &[], "").await;
        assert_eq!(told.code, Some(0), "{told:?}");
        for word in COMMANDS.iter().copied().chain(["token-file", "upstream", "fault"]) {
            assert!(told.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["completions", "tcsh"], &[], "").await.code, Some(2));
}

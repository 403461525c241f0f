//! The house stands: imports go downwards only, and the ground floor knows no time, no tasks and no sockets.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                // What only tests use may use anything.
                let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 5, "the sources are in {folder}");
    found
}

fn assert_absent(folder: &str, words: &[&str]) {
    for (path, text) in sources(folder) {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
}

const TOP: [&str; 17] = [
    "server",
    "proxy",
    "list",
    "preflight",
    "fetch",
    "landed",
    "contact",
    "write",
    "events",
    "cable",
    "staleness",
    "outcome",
    "room",
    "admin",
    "check",
    "config",
    "demo",
];

#[test]
fn the_ground_floor_decides_and_does_nothing() {
    let mut words = vec![
        "crate::engine",
        "tokio",
        "hyper",
        "async ",
        ".await",
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net::Tcp",
        "std::thread",
        "std::env",
        "tracing::",
    ];
    let top: Vec<String> = TOP.iter().map(|module| format!("crate::{module}")).collect();
    words.extend(top.iter().map(String::as_str));
    assert_absent("src/policy", &words);
}

#[test]
fn the_middle_floor_knows_nothing_of_the_top() {
    let top: Vec<String> = TOP.iter().map(|module| format!("crate::{module}")).collect();
    assert_absent("src/engine", &top.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn every_file_is_in_the_map() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    for folder in ["src/policy", "src/engine"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(map.contains(&format!("    pub mod {name};")), "{name} is not in the map");
        }
    }
}

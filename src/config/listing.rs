//! The settings as text: those in force (`anteroom config`), and all there are (`config/anteroom.toml`).

use std::collections::BTreeMap;
use std::fmt::Write;

use super::mistakes::one_line;
use super::sources::Origin;
use super::table::{Draft, Preset, Setting, TABLE};

/// The settings in force and where each came from. It is TOML that can be read again: what is not set, and what may
/// not be shown, is a comment.
pub(super) fn in_force(draft: &Draft, origins: &BTreeMap<&'static str, Origin>) -> String {
    let mut out = String::from("# The settings in force and where each came from.\n");
    for_each_section(&mut out, |out, setting| {
        let key = setting.key();
        match ((setting.show)(draft), origins.get(setting.name)) {
            (Some(value), Some(origin)) => {
                let hidden = if setting.secret { "# " } else { "" };
                // A file may be called anything, but a comment ends with its line.
                let origin = one_line(&origin.to_string());
                put(out, &format!("{hidden}{key} = {value}  # {origin}"));
            }
            _ => put(out, &format!("# {key} is not set")),
        }
    });
    out
}

/// `config/anteroom.toml`: every setting with its default, as comments.
pub fn example() -> String {
    let mut out = String::from(
        "\
# Anteroom's settings. Every one is here with its default, commented out: as it stands, this file changes nothing.
#
# Strongest first: flags (`--upstream`, `--listen`, `--admin`), environment (`ANTEROOM_CACHE__TTL` is `ttl` in
# `[cache]`), this file, defaults. `anteroom config` shows what is in force and where it came from.
#
# Durations: 500ms, 15s, 10m, 1h. Sizes: 64KiB, 16MiB, 1GiB, or a number of bytes.
# Secrets: a string, { file = \"...\" } or { env = \"...\" }.
",
    );
    for_each_section(&mut out, |out, setting| {
        let (note, value) = match setting.preset {
            Preset::Default(value) => ("", value),
            Preset::Unset(value) => (" Not set; for example:", value),
            Preset::Required(value) => (" Required; for example:", value),
        };
        put(out, &format!("# {}.{note}", capitalised(setting.why)));
        put(out, &format!("#{} = {value}", setting.key()));
    });
    out
}

fn for_each_section(out: &mut String, one: impl Fn(&mut String, &Setting)) {
    for section in TABLE.chunk_by(|a, b| a.section() == b.section()) {
        put(out, &format!("\n[{}]", section[0].section()));
        for setting in section {
            one(out, setting);
        }
    }
}

fn put(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a string takes any text");
}

fn capitalised(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map(|first| first.to_uppercase().chain(rest).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Flags, SettingsFile, load};

    fn text(text: &str) -> SettingsFile {
        SettingsFile::Text(PathBuf::from("some.toml"), text.to_owned())
    }

    fn no_environment() -> [(&'static str, &'static str); 0] {
        []
    }

    #[test]
    fn the_example_file_is_made_from_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/anteroom.toml");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, example()).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(example().lines().all(|line| line.len() <= 120), "a line is too long to be read");
        assert!(
            file == example(),
            "config/anteroom.toml differs from the table; UPDATE=1 cargo test --lib config::listing writes it anew"
        );
    }

    #[test]
    fn the_example_file_as_it_stands_changes_nothing() {
        let flags = Flags { upstream: Some("http://127.0.0.1:3000".to_owned()), ..Flags::default() };
        let with = load(text(&example()), &flags, no_environment()).unwrap();
        let without = load(SettingsFile::None, &flags, no_environment()).unwrap();
        assert_eq!(with.config, without.config);
    }

    #[test]
    fn every_line_of_the_example_file_can_be_uncommented() {
        let mut uncommented = Vec::new();
        let lines = example().lines().fold(String::new(), |text, line| {
            let setting =
                line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()));
            // Eight examples name files that are not there, and two are of no use without them.
            let of_use = |line: &&str| {
                !["/run/secrets", "/etc/anteroom/", "ttl_with_events = ", "redis = "]
                    .iter()
                    .any(|unfit| line.contains(unfit))
            };
            let line = match setting.filter(of_use) {
                Some(line) => {
                    uncommented.push(line.to_owned());
                    line
                }
                None => line,
            };
            text + line + "\n"
        });
        assert_eq!(uncommented.len() + 10, TABLE.len(), "{uncommented:?}");
        let config = load(text(&lines), &Flags::default(), no_environment()).unwrap().config;
        assert_eq!(config.upstream.base.authority, "app.omnivibe.com.br");
    }

    #[test]
    fn the_listing_says_where_each_value_came_from() {
        let flags = Flags { listen: Some("127.0.0.1:0".to_owned()), ..Flags::default() };
        let file = "[cache]\nttl = \"90s\"\n[upstream]\nurl = \"https://chat.example.com/api\"\n";
        let environment = [("ANTEROOM_LOG__LEVEL", "debug"), ("ANTEROOM_ADMIN__TOKEN", "open sesame")];
        let loaded = load(text(file), &flags, environment).unwrap();
        let listing = loaded.listing();
        for line in [
            "[listen]\naddress = \"127.0.0.1:0\"  # --listen\n",
            "# token = \"***\"  # ANTEROOM_ADMIN__TOKEN\n",
            "url = \"https://chat.example.com/api\"  # some.toml:4\n",
            "# ca_file is not set\n",
            "ttl = \"90s\"  # some.toml:2\n# ttl_with_events is not set\n",
            "\nstale_while_revalidate = \"15s\"  # default\n",
            "level = \"debug\"  # ANTEROOM_LOG__LEVEL\nhits = 0.0  # default\n",
        ] {
            assert!(listing.contains(line), "no {line:?} in\n{listing}");
        }
        assert!(!listing.contains("sesame"), "{listing}");
    }

    #[test]
    fn the_listing_can_be_read_again() {
        let path = PathBuf::from("odd\nname = 3.toml");
        let file = "upstream.url = 'http://[::1]:3000/a'\nlog.level = 'info,anteroom=debug'\nlog.hits = 0.25\n\
                    cache.memory = 1000000\ncache.max_body = '1KiB'\ncache.fetch_memory = '65KiB'\n";
        let first = load(SettingsFile::Text(path, file.to_owned()), &Flags::default(), no_environment()).unwrap();
        let again = load(text(first.listing()), &Flags::default(), no_environment()).unwrap();
        assert_eq!(again.config, first.config);
        assert!(first.listing().contains("memory = \"1000000B\""));
    }
}

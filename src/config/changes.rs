//! What differs between two readings of the settings, in words for the log.

use super::fixed::FIXED;
use super::table::{Draft, Setting, TABLE};
use crate::policy::secret::MASK;

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings in force from now on, such as `cache.ttl 20s -> 7s`.
    pub in_force: Vec<String>,
    /// Settings that are read only at the start, and differ from then.
    pub needing_restart: Vec<String>,
}

/// What `new` changes: against `started` what is fixed at the start, against `current` all else.
pub(super) fn changes(started: &Draft, current: &Draft, new: &Draft) -> Changes {
    let mut changes = Changes::default();
    for setting in TABLE {
        let stays = is_fixed(setting, started, new);
        let told = if stays { &mut changes.needing_restart } else { &mut changes.in_force };
        // What was read the last time need not have come into force then.
        let old = if stays || is_fixed(setting, started, current) { started } else { current };
        if !(setting.same)(old, new) {
            told.push(format!("{} {} -> {}", setting.name, value(setting, old), value(setting, new)));
        }
    }
    changes
}

/// Whether a setting stays as it was when the program started, whatever was read since.
pub(super) fn is_fixed(setting: &Setting, started: &Draft, read: &Draft) -> bool {
    // Other files are read at once, but a listener that began plain stays so.
    let switches_tls = started.tls_certificate.is_some() != read.tls_certificate.is_some();
    FIXED.contains(&setting.name) || switches_tls && setting.section() == "listen.tls"
}

fn value(setting: &Setting, draft: &Draft) -> String {
    match (setting.show)(draft) {
        None => "(not set)".to_owned(),
        Some(_) if setting.secret => MASK.to_owned(),
        Some(shown) => shown.trim_matches('"').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixed::FIXED;
    use super::super::table::find;
    use crate::config::{Flags, Loaded, SettingsFile, load};

    fn read(settings: &str) -> Loaded {
        let flags = Flags { upstream: Some("http://127.0.0.1:3000".into()), ..Flags::default() };
        let none = std::iter::empty::<(String, String)>();
        load(SettingsFile::Text("test.toml".into(), settings.into()), &flags, none).unwrap()
    }

    #[test]
    fn what_changes_is_named_with_both_values_and_secrets_are_masked() {
        let old = read("cache.ttl = '20s'\nadmin.token = 'open sesame'\npayload.trim.messages_per_conversation = 50");
        let new =
            read("cache.ttl = '7s'\nadmin.token = 'other words'\nlog.hits = 0.5\ncache.ttl_without_events = '5s'");
        let changes = old.changes_to(&old, &new);
        let expected = [
            "admin.token *** -> ***",
            "cache.ttl 20s -> 7s",
            "cache.ttl_without_events (not set) -> 5s",
            "payload.trim.messages_per_conversation 50 -> (not set)",
            "log.hits 0.0 -> 0.5",
        ];
        assert_eq!(changes.in_force, expected);
        assert!(changes.needing_restart.is_empty());
        assert_eq!(old.changes_to(&old, &old), super::Changes::default());
    }

    #[test]
    fn what_is_fixed_is_a_setting() {
        for name in FIXED {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_said_until_there_was_one() {
        let started = read("");
        let new = read("listen.address = '127.0.0.1:7'\ncache.memory = '300MiB'");
        for current in [&started, &new] {
            let changes = started.changes_to(current, &new);
            assert!(changes.in_force.is_empty());
            let expected = ["listen.address 0.0.0.0:8080 -> 127.0.0.1:7", "cache.memory 256MiB -> 300MiB"];
            assert_eq!(changes.needing_restart, expected);
        }
        assert_eq!(started.changes_to(&new, &started), super::Changes::default(), "it is as it was started");
    }

    #[test]
    fn tls_is_switched_on_or_off_by_a_restart_alone_and_other_files_are_read_at_once() {
        let with = |certificate: Option<&str>| {
            let path = |name: &str| certificate.map(|folder| format!("{folder}/{name}.pem").into());
            super::Draft { tls_certificate: path("certificate"), tls_key: path("key"), ..super::Draft::default() }
        };
        let (plain, one, other) = (with(None), with(Some("/one")), with(Some("/other")));
        let told = |old: &_, new: &_| {
            let super::Changes { in_force, needing_restart } = super::changes(old, old, new);
            (in_force.len(), needing_restart.len())
        };
        assert_eq!((told(&plain, &one), told(&one, &plain), told(&one, &other)), ((0, 2), (0, 2), (2, 0)));
        // What had to wait for a restart and was taken back has changed nothing.
        assert_eq!(super::changes(&plain, &one, &plain), super::Changes::default());
        assert_eq!(super::changes(&one, &plain, &one), super::Changes::default());
        let again = super::changes(&one, &plain, &other);
        assert_eq!(again.in_force[0], "listen.tls.certificate /one/certificate.pem -> /other/certificate.pem");
    }
}

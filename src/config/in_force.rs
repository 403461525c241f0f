//! The settings in force, one by one, for whoever shows them.

use std::collections::BTreeMap;

use super::changes::is_fixed;
use super::mistakes::one_line;
use super::sources::Origin;
use super::table::{Draft, Setting, TABLE};
use crate::policy::secret::MASK;

/// A setting in force. Secrets are masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Its name, such as `cache.ttl`.
    pub name: &'static str,
    /// Its value as it is written in a file of settings; none if it is not set.
    pub value: Option<String>,
    /// Where it came from, such as `default`, `ANTEROOM_CACHE__TTL` or `anteroom.toml:4`.
    pub origin: Option<String>,
    /// What it will be after a restart, if the settings were read again and it can only change then.
    pub after_restart: Option<String>,
}

/// Settings as they were read, and from where.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub(super) draft: &'a Draft,
    pub(super) origins: &'a BTreeMap<&'static str, Origin>,
}

/// What is in force of settings that were read again; `started` is what the program began with.
pub(super) fn in_force(started: Read<'_>, read: Read<'_>) -> Vec<InForce> {
    let one = |setting: &Setting| {
        let stays = is_fixed(setting, started.draft, read.draft) && !(setting.same)(started.draft, read.draft);
        let of = if stays { started } else { read };
        InForce {
            name: setting.name,
            value: value(setting, of.draft),
            // A file may be called anything.
            origin: of.origins.get(setting.name).map(|origin| one_line(&origin.to_string())),
            after_restart: stays.then(|| value(setting, read.draft).unwrap_or_else(|| "not set".to_owned())),
        }
    };
    TABLE.iter().map(one).collect()
}

/// As `anteroom config` shows it, but for paths of URLs: what is before the API may be known to few.
fn value(setting: &Setting, draft: &Draft) -> Option<String> {
    if setting.name == "upstream.url" {
        let urls = draft.upstream.iter().flatten();
        let told = urls.map(|url| {
            let path = if url.prefix.is_empty() { String::new() } else { format!("/{MASK}") };
            quoted(&format!("{}://{}{path}", url.scheme, url.authority))
        });
        let told: Vec<_> = told.collect();
        return Some(if let [url] = &told[..] { url.clone() } else { format!("[{}]", told.join(", ")) });
    }
    if setting.name == "tracing.endpoint" {
        let told = draft.tracing_endpoint.as_deref()?;
        let host = told.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        return Some(quoted(&if host.len() < told.len() { format!("{host}/{MASK}") } else { host }));
    }
    (setting.show)(draft)
}

/// As a file of settings has it: a URL holds nothing that has to be escaped there.
fn quoted(url: &str) -> String {
    format!("\"{url}\"")
}

#[cfg(test)]
mod tests {
    use crate::config::{Flags, InForce, Loaded, SettingsFile, load};

    fn read(settings: &str) -> Loaded {
        let flags = Flags { listen: Some("127.0.0.1:0".into()), ..Flags::default() };
        let settings = format!("upstream.url = 'http://127.0.0.1:3000/hidden'\n{settings}");
        load(SettingsFile::Text("test.toml".into(), settings), &flags, [("ANTEROOM_LOG__LEVEL", "debug")]).unwrap()
    }

    fn find(settings: &[InForce], name: &str) -> InForce {
        settings.iter().find(|setting| setting.name == name).unwrap().clone()
    }

    #[test]
    fn every_setting_is_there_with_its_origin_and_no_secret_is() {
        let loaded = read("admin.token = 'open sesame'\nwebhook.secrets = ['abracadabra']\ncache.ttl = '7s'");
        let settings = loaded.in_force(&loaded);
        let told = |name: &str| {
            let InForce { value, origin, .. } = find(&settings, name);
            (value.unwrap_or_default(), origin.unwrap_or_default())
        };
        assert_eq!(told("cache.ttl"), ("\"7s\"".into(), "test.toml:4".into()));
        assert_eq!(told("log.level"), ("\"debug\"".into(), "ANTEROOM_LOG__LEVEL".into()));
        assert_eq!(told("listen.address"), ("\"127.0.0.1:0\"".into(), "--listen".into()));
        assert_eq!(told("admin.token"), ("\"***\"".into(), "test.toml:2".into()));
        assert_eq!(told("upstream.url").0, "\"http://127.0.0.1:3000/***\"");
        assert_eq!(told("upstream.ca_file"), (String::new(), String::new()));
        assert!(settings.len() > 70);
        let all = format!("{settings:?}");
        assert!(!all.contains("sesame") && !all.contains("abracadabra") && !all.contains("hidden"), "{all}");
    }

    #[test]
    fn what_only_a_restart_changes_stays_and_says_so() {
        let (started, again) = (read("cache.ttl = '7s'"), read("cache.ttl = '9s'\ncache.memory = '64MiB'"));
        let settings = again.in_force(&started);
        assert_eq!(find(&settings, "cache.ttl").value.as_deref(), Some("\"9s\""));
        let memory = find(&settings, "cache.memory");
        assert_eq!((memory.value.as_deref(), memory.origin.as_deref()), (Some("\"256MiB\""), Some("default")));
        assert_eq!(memory.after_restart.as_deref(), Some("\"64MiB\""));
    }
}

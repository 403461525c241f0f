//! All sources together.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

mod together;

type Pairs = &'static [(&'static str, &'static str)];

fn text(text: &str) -> SettingsFile {
    SettingsFile::Text(PathBuf::from("some.toml"), text.to_owned())
}

fn upstream() -> Flags {
    Flags { upstream: Some("http://127.0.0.1:3000".to_owned()), ..Flags::default() }
}

fn from(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let loaded = load(text(file), &upstream(), environment.iter().copied());
    loaded.map(|loaded| loaded.config).map_err(|error| error.to_string())
}

#[test]
fn an_upstream_is_enough() {
    let nothing: [(&str, &str); 0] = [];
    let config = load(SettingsFile::None, &upstream(), nothing).unwrap().config;
    assert_eq!(config.server.listen[0].to_string(), "0.0.0.0:8080");
    assert_eq!(config.upstream.base.authority, "127.0.0.1:3000");
    assert_eq!(config.lifetimes.ttl, Duration::from_secs(15));
    assert_eq!(config.store.memory, 256 << 20);
    assert_eq!(config.admin.token, None);
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = "[listen]\naddress = '127.0.0.1:1'\n[cache]\nttl = '1s'\nsettle = '1s'\n";
    let environment = [("ANTEROOM_LISTEN__ADDRESS", "127.0.0.1:2"), ("ANTEROOM_CACHE__TTL", "2s")];
    let flags = Flags { listen: Some("127.0.0.1:3".to_owned()), ..upstream() };
    let config = load(text(file), &flags, environment).unwrap().config;
    assert_eq!(config.server.listen[0].port().unwrap().port(), 3);
    assert_eq!(config.lifetimes.ttl, Duration::from_secs(2));
    assert_eq!(config.settle.settle, Duration::from_secs(1));
    assert_eq!(config.settle.settle_unknown, Duration::from_secs(30));
}

#[test]
fn what_a_command_presets_is_weaker_than_whatever_is_set() {
    let presets = [("cache.ttl", "\"4s\""), ("cache.settle", "\"1s\""), ("log.only", "\"trouble\"")];
    let environment = [("ANTEROOM_CACHE__SETTLE", "2s")];
    let loaded = load_preset(&presets, text("[log]\nonly = 'all'\n"), &upstream(), environment).unwrap();
    assert_eq!(loaded.config.lifetimes.ttl, Duration::from_secs(4));
    assert_eq!(loaded.config.settle.settle, Duration::from_secs(2));
    assert_eq!(loaded.config.log.only, LogOnly::All);
    let ttl = loaded.listing().lines().find(|line| line.starts_with("ttl =")).unwrap();
    assert!(ttl.contains("\"4s\"") && ttl.ends_with("default of this command"), "{ttl}");
    // Nor is it in the way of what is set of another setting.
    let presets = [("cache.stale_while_revalidate", "\"2s\"")];
    let none = std::iter::empty::<(&str, &str)>();
    let loaded = load_preset(&presets, text("cache.ttl = 'origin'\n"), &upstream(), none).unwrap();
    assert!(loaded.config.origin.is_some());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = "\
[cache]
ttl = \"15x\"
negativ_ttl = \"1s\"
max_body = \"256MiB\"

[drain]
notice = 5

[log]
hits = 1.5
";
    let environment = [("ANTEROOM_CACHE__WAIT", "0s"), ("ANTEROOM_CACHE_TTL", "1s"), ("PATH", "/bin")];
    let flags = Flags { admin: Some("9180".to_owned()), ..Flags::default() };
    let error = load(text(file), &flags, environment).unwrap_err().to_string();
    let expected = "\
some.toml: 4 problems
  line 2: cache.ttl: \"15x\" is not a duration; write 500ms, 15s, 10m or 1h
  line 3: cache.negativ_ttl: there is no such setting; did you mean cache.negative_ttl?
  line 7: drain.notice: 5 is not a duration; write 500ms, 15s, 10m or 1h
  line 10: log.hits: 1.5 is not a share; write a number from 0.0 to 1.0, without quotes
environment: 2 problems
  ANTEROOM_CACHE_TTL: there is no such setting; did you mean ANTEROOM_CACHE__TTL?
  ANTEROOM_CACHE__WAIT: \"0s\" leaves no time at all; write 1ms or more
command line: 1 problem
  --admin: \"9180\" is not an IP address with a port; write 127.0.0.1:8080 or [::1]:8080
settings: 2 problems
  cache.max_body = \"256MiB\" (some.toml:4) and cache.fetch_memory = \"128MiB\" (default): the largest list could \
     never be collected; lower the first or raise the second
  upstream.url: is not set; give --upstream URL, set ANTEROOM_UPSTREAM__URL, or write url = \"https://...\" below \
     [upstream] in a file of settings";
    assert_eq!(error, expected);
}

#[test]
fn all_mistakes_in_the_payload_settings_are_told_at_once() {
    let file = "\
[payload]
validate = \"strict\"
[payload.trim]
messages_per_conversation = 0
statuses = [\"open\", \"closed\"]
drop = [\"contact.emial\", \"contact.name\", \"messages.sender.phone\", \"group\"]
sort_conversations = \"yes\"
statusses = []
";
    let environment = [("ANTEROOM_PAYLOAD__TRIM__DROPS", "[]"), ("ANTEROOM_PAYLOAD__VALIDATE", "enforced")];
    let expected = "\
some.toml: 6 problems
  line 2: payload.validate: \"strict\" is not known here; write \"off\" or \"report\" or \"enforce\"
  line 4: payload.trim.messages_per_conversation: 0 is not a number from 1 to 1000000; write one, without quotes
  line 5: payload.trim.statuses: \"closed\" is not a status; write one of open, resolved, pending, snoozed
  line 6: payload.trim.drop: \"contact.emial\" is not in the contract; did you mean \"contact.email\"? (add \"?\" to \
     drop an unknown key); and \"messages.sender.phone\" is not in the contract; did you mean \
     \"messages.sender.phone_number\"? (add \"?\" to drop an unknown key); and \"group\" is not in the contract; add \
     \"?\" to drop an unknown key
  line 7: payload.trim.sort_conversations: \"yes\" is neither true nor false; write one of them, without quotes
  line 8: payload.trim.statusses: there is no such setting; did you mean payload.trim.statuses?
environment: 2 problems
  ANTEROOM_PAYLOAD__TRIM__DROPS: there is no such setting; did you mean ANTEROOM_PAYLOAD__TRIM__DROP?
  ANTEROOM_PAYLOAD__VALIDATE: \"enforced\" is not known here; write \"off\" or \"report\" or \"enforce\"";
    assert_eq!(from(file, &environment).unwrap_err(), expected);
    let together = "payload.trim.statuses = ['open']\npayload.trim.drop = ['status']";
    let error = from(together, &[]).unwrap_err();
    assert!(error.contains("conversations are chosen by the status that would be dropped"), "{error}");
}

#[test]
fn unknown_names() {
    let advice = [
        ("ttl = '1s'", "ttl: there is no such setting; did you mean cache.ttl?"),
        ("cahe.ttl = '1s'", "cahe.ttl: there is no such setting; did you mean cache.ttl?"),
        (
            "[cache]\nNegative-TTL = '1s'",
            "cache.Negative-TTL: there is no such setting; did you mean cache.negative_ttl?",
        ),
        (
            "[cache]\nfetch_timeout = '1s'",
            "cache.fetch_timeout: there is no such setting; did you mean upstream.fetch_timeout?",
        ),
        ("admin.tokn = { file = 'x' }", "admin.tokn: there is no such setting; did you mean admin.token?"),
        ("[cache]\nlog = 1", "cache.log: there is no such setting; config/anteroom.toml lists all there are"),
        ("[zebra]", "zebra: there is no such setting; config/anteroom.toml lists all there are"),
        ("[zebra]\nstripes = 1", "zebra.stripes: there is no such setting; config/anteroom.toml lists all there are"),
        ("\"cache.ttl\" = '1s'", "cache.ttl: quotes make one name of it; leave them out"),
        ("cache = 3", "cache: is a section, not a setting; write [cache] and its settings below it"),
        ("[[cache]]", "cache: is a section, not a setting; write [cache] and its settings below it"),
        ("\"a\\u001b[31m\" = 3", "a\\u{1b}[31m: there is no such setting; config/anteroom.toml lists all there are"),
    ];
    for (file, expected) in advice {
        let error = from(file, &[]).unwrap_err();
        let (_, what) = error.split_once(": 1 problem\n  line ").expect("one problem with its line");
        assert_eq!(what.split_once(": ").unwrap().1, expected, "{file}");
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let file = "# one\r\n\r\n[cache] # three\r\nwait = '''\r\n1s\r\n2s'''\r\nttl = '?' # seven\r\nlog.x = 1\r\n";
    let error = from(file, &[]).unwrap_err();
    let lines: Vec<_> = error.lines().skip(1).filter_map(|line| line.trim().split(':').next()).collect();
    assert_eq!(lines, ["line 4", "line 7", "line 8"], "{error}");
}

#[test]
fn a_file_that_is_not_toml() {
    let nothing: [(&str, &str); 0] = [];
    let file = "[cache]\nttl = 15s\nwait = '1s'\nsettle = \nlog = {\n";
    let error = load(text(file), &Flags::default(), nothing).unwrap_err().to_string();
    assert!(error.contains("some.toml: "), "{error}");
    assert!(error.contains("\n  line 2: not TOML: ") && error.contains("\n  line 4: not TOML: "), "{error}");
    // The upstream may stand in the broken part.
    assert!(!error.contains("upstream.url"), "{error}");
    let twice = from("cache.ttl = '1s'\ncache.ttl = '2s'", &[]).unwrap_err();
    assert_eq!(twice, "some.toml: 1 problem\n  line 2: not TOML: duplicate key");
    let large = from("cache.max_waiters = 99999999999999999999", &[]).unwrap_err();
    assert!(large.ends_with("line 1: cache.max_waiters: holds a number that is too large"), "{large}");
}

#[test]
fn variables_are_toml_or_plain_text() {
    let config = from(
        "",
        &[
            ("ANTEROOM_CACHE__SERVE_OUTDATED_ON_ERROR", "true"),
            ("ANTEROOM_CACHE__MAX_WAITERS", "7"),
            ("ANTEROOM_CACHE__MEMORY", "\"1GiB\""),
            ("ANTEROOM_CACHE__TTL", "1m"),
            ("ANTEROOM_LOG__HITS", "0.5"),
            ("ANTEROOM_ADMIN__TOKEN", "0042"),
        ],
    )
    .unwrap();
    assert!(config.serve_outdated_on_error);
    assert_eq!(config.flights.max_waiters, 7);
    assert_eq!(config.store.memory, 1 << 30);
    assert_eq!(config.lifetimes.ttl, Duration::from_secs(60));
    assert!((config.log.hits - 0.5).abs() < f64::EPSILON);
    assert!(config.admin.token.unwrap().verify(b"0042"));
}

#[test]
fn secrets_that_look_like_something_else() {
    for secret in ["42", "1e5", "true", "nan", "1979-05-27", "\"half", "[x", "a # b"] {
        let environment = [("ANTEROOM_ADMIN__TOKEN", secret)];
        let token = load(SettingsFile::None, &upstream(), environment).unwrap().config.admin.token;
        assert!(token.unwrap().verify(secret.as_bytes()), "{secret}");
    }
    let error = from("", &[("ANTEROOM_ADMIN__TOKEN", "{ file = /run/x }")]).unwrap_err();
    assert!(error.contains("ANTEROOM_ADMIN__TOKEN: begins like an inline table but is not TOML"), "{error}");
}

#[test]
fn what_kubernetes_sets_is_no_mistake() {
    let services: Pairs = &[
        ("ANTEROOM_SERVICE_HOST", "10.0.0.1"),
        ("ANTEROOM_SERVICE_PORT_HTTP", "8080"),
        ("ANTEROOM_PORT", "tcp://10.0.0.1:8080"),
        ("ANTEROOM_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("ANTEROOM_ADMIN_PORT_9180_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(from("", services).is_ok());
    let error = from("", &[("ANTEROOM_PORT", "8080")]).unwrap_err();
    assert!(error.contains("ANTEROOM_PORT: there is no such setting"), "{error}");
}

#[test]
fn secrets_from_files_and_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let file = format!("admin.token = {{ file = '{}' }}", path.display());
    let missing = from(&file, &[]).unwrap_err();
    assert!(missing.contains("admin.token: the file ") && missing.contains("put the secret into it"), "{missing}");
    for (content, token) in [("sesame\n", "sesame"), ("sesame\r\n", "sesame"), ("sesame \n\n", "sesame \n")] {
        fs::write(&path, content).unwrap();
        assert!(from(&file, &[]).unwrap().admin.token.unwrap().verify(token.as_bytes()), "{content:?}");
    }
    fs::write(&path, "\n").unwrap();
    assert!(from(&file, &[]).unwrap_err().contains("is empty; put the secret into it"));

    let by_variable = "admin.token = { env = 'ANTEROOM_SECRET' }";
    let config = from(by_variable, &[("ANTEROOM_SECRET", "sesame")]).unwrap();
    assert!(config.admin.token.unwrap().verify(b"sesame"));
    assert!(from(by_variable, &[]).unwrap_err().contains("admin.token: the variable ANTEROOM_SECRET is not set"));
    let error = from("admin.token = { env = 'A', file = 'b' }", &[]).unwrap_err();
    assert!(error.contains("admin.token: is not the place of a secret"), "{error}");
}

#[test]
fn secrets_are_never_printed() {
    let environment = [("ANTEROOM_ADMIN__TOKEN", "sesame"), ("ANTEROOM_UPSTREAM__URL", "http://a:sesame@b")];
    let error = load(SettingsFile::None, &upstream(), environment).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("sesame"), "{error}");
    let loaded = load(SettingsFile::None, &upstream(), [("ANTEROOM_ADMIN__TOKEN", "sesame")]).unwrap();
    assert!(!format!("{loaded:?}").contains("sesame"));
}

/// A token, a password, a field of a request and a URL with a password, in every place where a value or a name can be.
#[test]
fn a_secret_in_the_wrong_place_is_in_no_message() {
    let secrets =
        ["sk_live_4f53cda18c2baa0c", "tr0ub4dor&3", "Authorization: Bearer opens", "https://joe:sesame@b", "hunter2"];
    for secret in secrets {
        let parts: Vec<&str> =
            secret.split(|letter: char| !letter.is_alphanumeric()).filter(|part| part.len() > 3).collect();
        let silent = |told: &str, place: &str| {
            assert!(!told.contains(secret), "{place}\n{told}");
            let part =
                parts.iter().find(|part| !["live", "https", "Authorization"].contains(part) && told.contains(**part));
            assert_eq!(part, None, "{place}\n{told}");
        };
        for setting in table::TABLE {
            let (section, key) = (setting.section(), setting.key());
            for value in [
                format!("'{secret}'"),
                format!("['{secret}']"),
                format!("[3, '{secret}']"),
                format!("{{ env = '{secret}' }}"),
                format!("{{ file = '{secret}' }}"),
                format!("{{ '{secret}' = 3 }}"),
                format!("'{secret}"),
                secret.to_owned(),
            ] {
                let file = format!("[{section}]\n{key} = {value}\n");
                silent(&from(&file, &[]).err().unwrap_or_default(), &file);
            }
            let variable = setting.variable();
            silent(&from("", &[(&variable, secret)]).err().unwrap_or_default(), &variable);
        }
        for file in [
            format!("'{secret}' = 3"),
            format!("[cache]\n'{secret}' = 3"),
            format!("['{secret}']\nttl = '1s'"),
            format!("[cache.'{secret}']\nttl = '1s'"),
            format!("cache = '{secret}'"),
            format!("{secret} = 3"),
            format!("[{secret}]"),
            secret.to_owned(),
            format!("'{secret}' = 3\n'{secret}' = 3"),
        ] {
            silent(&from(&file, &[]).unwrap_err(), &file);
        }
        for flags in [
            Flags { upstream: Some(secret.to_owned()), ..Flags::default() },
            Flags { listen: Some(secret.to_owned()), ..upstream() },
            Flags { admin: Some(secret.to_owned()), ..upstream() },
        ] {
            let nothing: [(&str, &str); 0] = [];
            let told = load(SettingsFile::None, &flags, nothing).map(|_| ());
            silent(&told.map_err(|error| error.to_string()).err().unwrap_or_default(), "flag");
        }
    }
}

#[test]
fn contradictions() {
    let clashes: [(&str, &str); 6] = [
        ("listen.address = '127.0.0.1:9180'", "listen.address"),
        ("listen.address = '0.0.0.0:9180'", "listen.address"),
        ("listen.address = '[::]:9180'", "listen.address"),
        ("cache.memory = '8MiB'", "cache.max_body"),
        ("cache.fetch_memory = '8MiB'", "cache.max_body"),
        ("cache.stale_if_error = '14s'", "cache.stale_if_error"),
    ];
    for (file, first) in clashes {
        let error = from(file, &[]).unwrap_err();
        assert!(error.starts_with(&format!("settings: 1 problem\n  {first} = ")), "{file}\n{error}");
        assert!(error.contains(" (some.toml:1)") && error.contains(" (default)"), "{file}\n{error}");
    }
    // With what was not set: nothing has a default.
    for (file, first) in [
        ("cache.ttl_with_events = '5m'", "cache.ttl_with_events"),
        (
            "cache.stale_if_error = '10m'\ncache.ttl_with_events = '11m'\nwebhook.secrets = ['s']",
            "cache.stale_if_error",
        ),
        ("cache.stale_if_error = '10m'\ncache.ttl_without_events = '11m'", "cache.stale_if_error"),
        (
            "cache.ttl_with_events = '5s'\ncache.ttl_without_events = '6s'\nwebhook.unsigned_token = 't'",
            "cache.ttl_without_events",
        ),
    ] {
        let error = from(file, &[]).unwrap_err();
        assert!(error.starts_with(&format!("settings: 1 problem\n  {first} = ")), "{file}\n{error}");
    }
    let together = [
        "cache.ttl_with_events = '5m'\ncache.ttl_without_events = '5s'\nwebhook.secrets = ['s']",
        "cache.ttl_with_events = '5m'\nwebhook.unsigned_token = 't'",
        "listen.address = '127.0.0.2:9180'",
        "listen.address = '[::1]:9180'",
        "listen.address = '127.0.0.1:0'\nadmin.address = '127.0.0.1:0'",
        "cache.stale_if_error = '0s'",
        "cache.memory = '16MiB'\ncache.fetch_memory = '16MiB'",
    ];
    for file in together {
        assert!(from(file, &[]).is_ok(), "{file}");
    }
    // What could not be read contradicts nothing.
    let error = from("cache.fetch_memory = '1GB'\ncache.max_body = '200MiB'", &[]).unwrap_err();
    assert!(error.starts_with("some.toml: 1 problem\n") && !error.contains("settings:"), "{error}");
}

#[test]
fn which_file_is_read() {
    let nothing: [(&str, &str); 0] = [];
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first.toml"), folder.path().join("second.toml"));
    let usual = || sources::find_file(SettingsFile::Usual, &[&first, &second]).unwrap();
    assert_eq!(usual(), None);
    fs::write(&second, "b").unwrap();
    assert_eq!(usual(), Some((second.clone(), "b".to_owned())));
    fs::write(&first, "a").unwrap();
    assert_eq!(usual(), Some((first.clone(), "a".to_owned())));

    let absent = folder.path().join("absent.toml");
    let error = load(SettingsFile::Given(absent.clone()), &Flags::default(), nothing).unwrap_err().to_string();
    let start = format!("{}: 1 problem\n  cannot be read (", absent.display());
    assert!(error.starts_with(&start) && error.ends_with("); see that it is there and may be read"), "{error}");
    fs::write(&first, [0xff]).unwrap();
    assert!(sources::find_file(SettingsFile::Usual, &[&first]).is_err());
}

#[test]
fn the_table_is_sound() {
    assert!(!table::TABLE.is_empty());
    for (index, setting) in table::TABLE.iter().enumerate() {
        let name = setting.name;
        assert!(!setting.section().is_empty(), "{name} has no section, so its variable would have no `__`");
        assert!(!table::is_section(name), "{name} is a setting and a section");
        assert!(table::TABLE[..index].iter().all(|other| other.name != name), "{name} is there twice");
        assert!(!setting.why.is_empty() && !setting.why.contains('\n') && !setting.why.ends_with('.'), "{name}");
    }
    for Clash { first, second, .. } in CLASHES {
        assert!(table::find(first).is_some() && table::find(second).is_some(), "{first}, {second}");
    }
}

#[cfg(unix)]
#[test]
fn values_that_are_not_text() {
    use std::os::unix::ffi::OsStringExt;
    let strange = || OsString::from_vec(vec![0xff]);
    let environment = [(OsString::from("ANTEROOM_CACHE__TTL"), strange()), (strange(), strange())];
    let error = load(SettingsFile::None, &upstream(), environment).unwrap_err().to_string();
    assert_eq!(error, "environment: 1 problem\n  ANTEROOM_CACHE__TTL: is not UTF-8");
}

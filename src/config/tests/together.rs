//! What settings mean together, and beside the files and the proxy that they are about.

use super::*;
use crate::config::table::PREFIX;

#[test]
fn stale_if_error_gives_way_to_a_longer_ttl_unless_somebody_set_it() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    for (file, stale_if_error, told) in [
        ("", minutes(10), "\"10m\"  # default\n"),
        ("cache.ttl = '10m'", minutes(10), "\"10m\"  # default\n"),
        ("cache.ttl = '15m'", minutes(15), "\"15m\"  # default, raised to cache.ttl\n"),
        (
            "cache.ttl_with_events = '1h'\ncache.ttl = '20m'\nwebhook.secrets = ['s']",
            minutes(60),
            "\"1h\"  # default, raised to cache.ttl_with_events\n",
        ),
        ("cache.ttl_without_events = '11m'", minutes(11), "\"11m\"  # default, raised to cache.ttl_without_events\n"),
        ("cache.ttl = '15m'\ncache.stale_if_error = '0s'", Duration::ZERO, "\"0s\"  # some.toml:2\n"),
    ] {
        let loaded = load(text(file), &upstream(), [("A", "b")]).unwrap();
        assert_eq!(loaded.config.lifetimes.stale_if_error, stale_if_error, "{file}");
        let line = format!("stale_if_error = {told}");
        assert!(loaded.listing().contains(&line), "{line} in {}", loaded.listing());
    }
}

#[test]
fn an_upstream_that_is_this_proxy_is_refused() {
    for (url, listen) in [
        ("http://127.0.0.1:8080", "0.0.0.0:8080"),
        ("http://localhost:8080/chat", "0.0.0.0:8080"),
        ("http://[::1]:8080", "[::]:8080"),
        ("http://10.0.0.7", "10.0.0.7:80"),
        ("http://127.0.0.1:9180", "127.0.0.1:0"),
    ] {
        let flags = Flags { upstream: Some(url.to_owned()), listen: Some(listen.to_owned()), admin: None };
        let error = load(SettingsFile::None, &flags, [("A", "b")]).unwrap_err().to_string();
        assert!(error.contains("upstream.url = ") && error.contains("write where the API is"), "{url}: {error}");
    }
    for (url, listen) in [
        ("http://127.0.0.1:3000", "0.0.0.0:8080"),
        ("http://10.0.0.7:8080", "0.0.0.0:8080"),
        ("http://chat:8080", "[::]:8080"),
    ] {
        let flags = Flags { upstream: Some(url.to_owned()), listen: Some(listen.to_owned()), admin: None };
        assert!(load(SettingsFile::None, &flags, [("A", "b")]).is_ok(), "{url}");
    }
}

#[test]
fn certificates_that_cannot_be_used_are_a_mistake_in_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let file = format!("cache.ttl = 'soon'\nupstream.ca_file = '{}'", path.display());
    for (content, what) in [
        (None, "cannot be read"),
        (Some("nothing of the kind"), "holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "is not PEM"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "holds a certificate that cannot be used",
        ),
    ] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = from(&file, &[]).unwrap_err();
        // In the same list as everything else.
        assert!(error.starts_with("some.toml: 2 problems\n  line 1: cache.ttl: "), "{error}");
        let line = format!("\n  line 2: upstream.ca_file: {} {what}", path.display());
        assert!(error.contains(&line), "{error}");
    }
}

#[test]
fn relative_paths_go_by_the_folder_of_the_file_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), "sesame\n").unwrap();
    fs::write(folder.path().join("secret"), "hush\n").unwrap();
    fs::write(folder.path().join("ca.pem"), "").unwrap();
    let settings = folder.path().join("some.toml");
    fs::write(
        &settings,
        "admin.token = { file = 'token' }\nwebhook.secrets = [{ file = './secret' }]\nupstream.ca_file = 'ca.pem'\n",
    )
    .unwrap();
    let error = load(SettingsFile::Given(settings.clone()), &upstream(), [("A", "b")]).unwrap_err().to_string();
    // Found, and the secrets too; only there is no certificate in it.
    let found = format!("upstream.ca_file: {} holds no certificate", folder.path().join("ca.pem").display());
    assert!(error.contains(": 1 problem\n") && error.contains(&found), "{error}");
    // A variable is nobody's file: the working directory counts.
    let variables = [("ANTEROOM_ADMIN__TOKEN", "{ file = 'token' }"), ("ANTEROOM_UPSTREAM__CA_FILE", "ca.pem")];
    let error = load(SettingsFile::Given(settings), &upstream(), variables).unwrap_err().to_string();
    assert!(error.contains("ANTEROOM_UPSTREAM__CA_FILE: ca.pem cannot be read"), "{error}");
    assert!(error.contains("ANTEROOM_ADMIN__TOKEN: the file token cannot be read"), "{error}");
}

#[test]
fn whoever_asks_a_running_proxy_needs_its_address_alone() {
    let access = |file: SettingsFile, variables: Pairs| admin_access(file, variables.iter().copied());
    let address = |file: &str, variables| access(text(file), variables).address.map(|address| address.to_string());
    assert_eq!(address("", &[]).unwrap(), "127.0.0.1:9180");
    assert_eq!(address("admin.address = '10.0.0.1:1'", &[]).unwrap(), "10.0.0.1:1");
    let by_variable: Pairs = &[("ANTEROOM_ADMIN__ADDRESS", "http://10.0.0.1:2/")];
    assert_eq!(address("admin.address = '10.0.0.1:1'", by_variable).unwrap(), "10.0.0.1:2");
    // Mistakes elsewhere are the proxy's own business.
    let elsewhere = "cache.ttl = 'soon'\nadmin.token = { file = '/nowhere' }\nadmin.address = '10.0.0.1:1'";
    assert_eq!(address(elsewhere, &[]).unwrap(), "10.0.0.1:1");
    assert!(access(text(elsewhere), &[]).token.is_none());
    assert!(access(text("admin.token = 'sesame'"), &[]).token.unwrap().verify(b"sesame"));
    for unclear in ["admin.address = 'here'", "[admin\naddress = '10.0.0.1:1'"] {
        assert!(address(unclear, &[]).is_err(), "{unclear}");
        assert_eq!(address(unclear, by_variable).unwrap(), "10.0.0.1:2");
    }
}

/// Whoever has such a variable exported can still run every command.
#[test]
fn the_variables_of_the_compose_file_are_settings() {
    let compose = include_str!("../../../compose.yaml");
    let named = compose.split("ANTEROOM_").skip(1).map(|rest| {
        let end = rest.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(rest.len());
        format!("{PREFIX}{}", &rest[..end])
    });
    let named: Vec<_> = named.collect();
    assert!(named.len() > 5, "{named:?}");
    for name in named {
        assert!(table::TABLE.iter().any(|setting| setting.variable() == name), "{name} is no setting");
    }
}

#[test]
fn what_replicas_need_goes_together() {
    let redis = "replicas.redis = \"redis://127.0.0.1\"\n";
    let secret = "replicas.secret = \"0123456789abcdef0123456789abcdef\"\n";
    let replicas = |more: &str| load(text(more), &upstream(), [("A", "b")]);
    assert!(replicas("").unwrap().config.replicas.is_none());
    assert!(replicas(secret).unwrap().config.replicas.is_none(), "nothing is shared without a Redis");
    let config = replicas(&format!("{redis}{secret}")).unwrap().config;
    assert_eq!(config.replicas.unwrap().lease, Duration::from_millis(500));
    assert!(replicas(&format!("{redis}{secret}replicas.lease = \"0s\"")).is_ok());
    for (more, told) in [
        ("", "replicas.secret: is not set"),
        ("replicas.secret = \"short\"", "write 32 or more"),
        (&format!("{secret}replicas.lease = \"20ms\""), "write 50ms to 10s"),
        (&format!("{secret}replicas.lease = \"11s\""), "write 50ms to 10s"),
        (&format!("{secret}replicas.lease = \"300ms\""), "less than half of the second"),
        (&format!("{secret}replicas.tell_within = \"150ms\""), "raise the first"),
        (&format!("{secret}replicas.password_file = \"/nowhere/at/all\""), "cannot be read"),
    ] {
        let mistakes = replicas(&format!("{redis}{more}")).unwrap_err().to_string();
        assert!(mistakes.contains(told), "{mistakes}");
        assert!(mistakes.contains("1 problem"), "{mistakes}");
    }
}

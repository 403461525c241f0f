//! Every form: what it takes, what it says to the rest.

use proptest::prelude::*;

use super::*;

/// Reads a value as TOML writes it, and shows what was read.
fn reread<T>(form: &Form<T>, toml: &str) -> Result<String, String> {
    let table: toml::Table = format!("value = {toml}").parse().expect("the test writes TOML");
    (form.read)(&table["value"]).map(|value| (form.show)(&value))
}

/// Each good value and how it is written back; each bad one and the message.
fn check<T>(form: &Form<T>, good: &[(&str, &str)], bad: &[(&str, &str)]) {
    for (toml, shown) in good {
        assert_eq!(reread(form, toml).as_deref(), Ok(*shown), "{toml}");
        assert_eq!(reread(form, shown).as_deref(), Ok(*shown), "{toml} written back");
    }
    for (toml, message) in bad {
        assert_eq!(reread(form, toml).expect_err(toml), *message, "{toml}");
    }
}

#[test]
fn durations() {
    let write = |value: &str| format!("{value} is not a duration; write 500ms, 15s, 10m or 1h");
    let bad = [r#""""#, r#""15""#, r#""15x""#, r#""1.5s""#, r#""-1s""#, r#""15 s""#, r#""s""#, r#""origin""#, "15"];
    let bad: Vec<_> = bad.map(|value| (value, write(value))).into();
    check(
        &DURATION,
        &[
            (r#""500ms""#, r#""500ms""#),
            (r#""15s""#, r#""15s""#),
            (r#""60s""#, r#""1m""#),
            (r#""90s""#, r#""90s""#),
            (r#""1000ms""#, r#""1s""#),
            (r#""0ms""#, r#""0s""#),
            (r#""8760h""#, r#""8760h""#),
        ],
        &bad.iter().map(|(value, message)| (*value, message.as_str())).collect::<Vec<_>>(),
    );
    let too_long = r#""99999999999999999999h" is more than a year; write 8760h or less"#;
    assert_eq!(reread(&DURATION, r#""99999999999999999999h""#).unwrap_err(), too_long);
    let nothing = r#""0s" leaves no time at all; write 1ms or more"#;
    check(&TIME_LIMIT, &[(r#""1ms""#, r#""1ms""#)], &[(r#""0s""#, nothing)]);
}

#[test]
fn sizes() {
    check(
        &SIZE,
        &[
            (r#""16MiB""#, r#""16MiB""#),
            (r#""1024KiB""#, r#""1MiB""#),
            ("1000", r#""1000B""#),
            ("65536", r#""64KiB""#),
            (r#""1000B""#, r#""1000B""#),
        ],
        &[
            (r#""16MB""#, r#""16MB" is not a size; write 64KiB, 16MiB, 1GiB or a number of bytes"#),
            (r#""1000""#, r#""1000" is not a size; write 64KiB, 16MiB, 1GiB or a number of bytes"#),
            ("-1", "-1 is not a size; write 64KiB, 16MiB, 1GiB or a number of bytes"),
            ("1.5", "1.5 is not a size; write 64KiB, 16MiB, 1GiB or a number of bytes"),
            ("0", "0 leaves no room at all; write 1B or more"),
            (r#""0GiB""#, r#""0GiB" leaves no room at all; write 1B or more"#),
            (r#""1048577GiB""#, r#""1048577GiB" is more than a pebibyte; write 1048576GiB or less"#),
        ],
    );
}

/// A list whose length is not known begins with so much.
#[test]
fn memory_in_which_no_list_could_begin() {
    let little =
        |value: &str| format!("{value} is too little for a list of unknown length to begin; write 64KiB or more");
    let (one, most) = (little("1"), little(r#""63KiB""#));
    check(&MEMORY, &[(r#""64KiB""#, r#""64KiB""#)], &[("1", &one), (r#""63KiB""#, &most)]);
}

#[test]
fn numbers_and_switches() {
    check(
        &COUNT,
        &[("32", "32")],
        &[
            ("0", "0 is not a number from 1 to 1000000; write one, without quotes"),
            (r#""32""#, r#""32" is not a number from 1 to 1000000; write one, without quotes"#),
        ],
    );
    check(
        &SHARE,
        &[("0.0", "0.0"), ("1", "1.0"), ("0.25", "0.25"), ("-0.0", "0.0")],
        &[
            ("1.1", "1.1 is not a share; write a number from 0.0 to 1.0, without quotes"),
            ("nan", "nan is not a share; write a number from 0.0 to 1.0, without quotes"),
            ("2", "2 is not a share; write a number from 0.0 to 1.0, without quotes"),
        ],
    );
    let yes = r#""yes" is neither true nor false; write one of them, without quotes"#;
    check(&SWITCH, &[("true", "true"), ("false", "false")], &[(r#""yes""#, yes)]);
}

#[test]
fn words() {
    check(&COMPRESS, &[(r#""off""#, r#""off""#), (r#""zstd""#, r#""zstd""#)], &[]);
    check(&QUERY, &[(r#""key""#, r#""key""#), (r#""ignore""#, r#""ignore""#)], &[]);
    check(&CREDENTIALS, &[(r#""bypass""#, r#""bypass""#), (r#""ignore""#, r#""ignore""#)], &[]);
    let unknown = r#""text" is not known here; write "auto" or "pretty" or "json""#;
    check(&LOG_FORMAT, &[(r#""json""#, r#""json""#)], &[(r#""text""#, unknown)]);
}

#[test]
fn addresses_and_paths() {
    let write = "is not an IP address with a port; write 127.0.0.1:8080 or [::1]:8080";
    let bad = [r#""localhost:80""#, r#"":8080""#, r#""1.2.3.4""#, r#""1.2.3.4:65536""#, "8080"];
    let bad: Vec<_> = bad.map(|value| (value, format!("{value} {write}"))).into();
    check(
        &ADDRESS,
        &[
            (r#""0.0.0.0:0""#, r#""0.0.0.0:0""#),
            (r#""[::1]:80""#, r#""[::1]:80""#),
            (r#""http://127.0.0.1:80""#, r#""127.0.0.1:80""#),
            (r#""http://127.0.0.1:80/""#, r#""127.0.0.1:80""#),
        ],
        &bad.iter().map(|(value, message)| (*value, message.as_str())).collect::<Vec<_>>(),
    );
    let empty = r#""" is not the path of a file; write "/etc/anteroom/ca.pem""#;
    check(&PATH, &[(r#""/a b/c.pem""#, r#""/a b/c.pem""#)], &[(r#""""#, empty)]);
}

#[test]
fn paths_of_webhooks() {
    let bad =
        [r#""""#, r#""/""#, r#""in""#, r#""/in/""#, r#""//in""#, r#""/in/../x""#, r#""/in?a""#, r#""/%69n""#, "7"];
    let api = [r#""/public/api/v1/x""#, r#""/public""#, r#""/api/v1""#, r#""/api""#, r#""/cable""#, r#""/rails/x""#];
    let bad = bad.map(|value| (value, format!("{value} is not a path; write \"/_anteroom/webhooks\"")));
    let another = "is a path of the API; write another, such as \"/_anteroom/webhooks\"";
    let api = api.map(|value| (value, format!("{value} {another}")));
    check(
        &URL_PATH,
        &[(r#""/in""#, r#""/in""#), (r#""/_a.b/c-~d""#, r#""/_a.b/c-~d""#), (r#""/publicly""#, r#""/publicly""#)],
        &bad.iter().chain(&api).map(|(value, message)| (*value, message.as_str())).collect::<Vec<_>>(),
    );
}

#[test]
fn log_filters() {
    let write = "is not a log level; write error, warn, info, debug or trace, or info,anteroom=debug";
    let bad = [r#""inof""#, r#""""#, r#""info,""#, r#""info,anteroom=loud""#, "true"];
    let bad: Vec<_> = bad.map(|value| (value, format!("{value} {write}"))).into();
    check(
        &LOG_FILTER,
        &[(r#""info""#, r#""info""#), (r#""warn,anteroom=debug""#, r#""warn,anteroom=debug""#)],
        &bad.iter().map(|(value, message)| (*value, message.as_str())).collect::<Vec<_>>(),
    );
}

#[test]
fn base_urls() {
    const WRITE: &str = "write http:// or https://, a host, and a path only if the API lives below one";
    let bad = [
        ("3000", "3000 is not a URL"),
        (r#""""#, r#""" is not a URL"#),
        (r#""chat.example.com""#, r#""chat.example.com" is not a whole URL"#),
        (r#""/chat""#, r#""/chat" is not a whole URL"#),
        (r#""ftp://a.example""#, r#""ftp://a.example" is neither http nor https"#),
        (r#""https://""#, r#""https://" is not a URL"#),
        (r#""https://:80""#, r#""https://:80" has no proper host and port"#),
        (r#""https://a:0""#, r#""https://a:0" has no proper host and port"#),
        (r#""https://a:""#, r#""https://a:" has no proper host and port"#),
        (r#""https://a/b//c""#, r#""https://a/b//c" has an empty or dotted step in its path"#),
        (r#""https://a/../c""#, r#""https://a/../c" has an empty or dotted step in its path"#),
        (r#""https://a/?x=secret""#, "has a query ('?'), which would not be sent"),
        (r#""https://a/#secret""#, "has a fragment ('#'), which would not be sent"),
        (r#""https://joe:secret@a/""#, "has a user name ('@'), which would not be sent"),
    ];
    let bad = bad.map(|(value, what)| (value, format!("{what}; {WRITE}")));
    check(
        &BASE_URLS,
        &[
            (r#""https://chat.example.com""#, r#""https://chat.example.com""#),
            (r#""https://chat.example.com/""#, r#""https://chat.example.com""#),
            (r#""HTTPS://chat.example.com:443/a/b""#, r#""https://chat.example.com/a/b""#),
            (r#""http://[::1]:80""#, r#""http://[::1]""#),
            (r#""http://127.0.0.1:3000""#, r#""http://127.0.0.1:3000""#),
        ],
        &bad.iter().map(|(value, message)| (*value, message.as_str())).collect::<Vec<_>>(),
    );
    let slash = r#""https://a/b/" ends in a slash; leave the slash out"#;
    check(&BASE_URLS, &[], &[(r#""https://a/b/""#, slash)]);
}

#[test]
fn several_urls_are_doors_of_one_installation() {
    const SAME: &str = "all URLs must have the same scheme and path: they are doors of one installation";
    check(
        &BASE_URLS,
        &[
            (r#"["https://a", "https://b:444"]"#, r#"["https://a", "https://b:444"]"#),
            (r#"["http://a/chat"]"#, r#""http://a/chat""#),
        ],
        &[
            (r#"["https://a", "http://b"]"#, SAME),
            (r#"["http://a/chat", "http://b"]"#, SAME),
            (r#"["http://a", "http://a:80"]"#, r#""http://a:80" is there twice"#),
            ("[]", "[] is no URL; write http:// or https://, a host, and a path only if the API lives below one"),
        ],
    );
}

/// Clients' own paths begin so; what follows may be a contact's identifier, so it is not repeated.
#[test]
fn base_urls_that_end_in_a_path_of_the_api_or_the_dashboard() {
    for (url, found, fix) in [
        ("https://a/public/api/v1", "/public/api", "https://a"),
        ("https://a/public/api/v1/", "/public/api", "https://a"),
        (
            "https://a:444/chat/public/api/v1/inboxes/i/contacts/secret/conversations",
            "/public/api",
            "https://a:444/chat",
        ),
        ("https://a/app/accounts/1/dashboard", "/app/accounts", "https://a"),
        ("https://a/app/login", "/app/login", "https://a"),
        ("https://a/api/v1/accounts/1", "/api/v1", "https://a"),
        ("https://a/cable", "/cable", "https://a"),
    ] {
        let error = reread(&BASE_URLS, &format!("'{url}'")).unwrap_err();
        let told = format!(
            "ends in {found}, which is a path of the API or its dashboard and no place below which it lives; write \"{fix}\""
        );
        assert_eq!(error, told, "{url}");
    }
    for prefix in ["/app", "/api", "/public", "/publicly/api", "/chat/app"] {
        let url = format!("\"https://a{prefix}\"");
        assert_eq!(reread(&BASE_URLS, &url).as_deref(), Ok(&*url));
    }
}

#[test]
fn every_mistake_in_a_value_is_told() {
    let error = reread(&BASE_URLS, "'ftp://joe:secret@a:0//b?x=secret#secret'").unwrap_err();
    for told in [
        "a user name",
        "a query",
        "a fragment",
        "is neither http nor https",
        "has no proper host and port",
        "an empty or dotted step",
    ] {
        assert!(error.contains(told), "{told} in {error}");
    }
    assert!(!error.contains("secret"), "{error}");
    let error = reread(&BASE_URLS, "'https://a/api/v1?x=secret'").unwrap_err();
    assert!(error.contains("a query") && error.ends_with("write \"https://a\""), "{error}");
    let error = reread(&CODINGS, r#"["zstd", "lz4", "zstd", 7]"#).unwrap_err();
    let told = "\"lz4\" is not a coding, and \"zstd\" is there twice, and 7 is not a coding; write some of";
    assert!(error.starts_with(told), "{error}");
    let error = reread(&SECRETS, r#"["", "good", 7]"#).unwrap_err();
    assert!(
        error.contains("number 1 is an empty secret") && error.contains("; and number 3 is not a secret"),
        "{error}"
    );
}

#[test]
fn secrets_are_in_no_message() {
    for toml in ["12345678", "[12345678]", "{ text = 12345678 }"] {
        let message = reread(&SECRET, toml).unwrap_err();
        assert!(!message.contains("12345678"), "{message}");
    }
    assert_eq!(reread(&SECRET, r#""opens sesame""#).as_deref(), Ok(r#""***""#));
    assert!(reread(&SECRET, r#""""#).unwrap_err().starts_with("is an empty secret"));
    assert!(reread(&SECRET, r#""***""#).unwrap_err().starts_with("*** is the mask of a secret"));
}

proptest! {
    #[test]
    fn any_duration_is_read_as_it_was_written(millis in 0..=LONGEST_MS) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(read_duration(&Value::from(duration_text(duration))), Ok(duration));
    }

    #[test]
    fn any_size_is_read_as_it_was_written(bytes in 1..=LARGEST) {
        prop_assert_eq!(read_size(&Value::from(size_text(bytes))), Ok(bytes));
    }

    #[test]
    fn whole_units_stay_whole(number in 1_u64..1000, unit in 0_usize..4) {
        let bytes = number << (10 * unit);
        prop_assert_eq!(size_text(bytes), format!("{number}{}", SIZE_UNITS[unit].0));
    }

    #[test]
    fn no_text_is_too_strange(text in ".*") {
        for toml in [Value::from(&*text), Value::from(format!("http://{text}"))] {
            let (_, _) = (read_duration(&toml), read_size(&toml));
            let (_, _) = (read_log_filter(&toml), read_address(&toml));
            if let Ok(url) = read_base_urls(&toml) {
                let shown: toml::Table = format!("url = {}", base_urls_text(&url)).parse().unwrap();
                prop_assert_eq!(read_base_urls(&shown["url"]), Ok(url));
            }
        }
    }
}

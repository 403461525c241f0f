//! The values of `replicas`: how each is read from TOML and written back. Plain functions, no I/O.

use std::path::PathBuf;

use toml::Value;

use super::shown::{shown, shown_text};
use super::values::{Form, SECRET, quoted, read_word, word};
use crate::engine::replicas::settings::{CutOff, Door, Mode, RedisAddress};
use crate::policy::secret::{MASK, Secret};

/// Bytes that a secret has at least.
const SECRET_LENGTH: usize = 32;
/// The port of Redis.
const PORT: u16 = 6379;
const EXAMPLE: &str =
    "write redis://HOST:PORT, rediss://USER@HOST:PORT/DATABASE (by TLS) or unix:///run/redis/redis.sock";

/// Where Redis is.
pub(super) const REDIS: Form<RedisAddress> = Form::open(read_redis, |address| quoted(&redis_text(address)));
/// `replicas.secret`.
pub(super) const REPLICAS_SECRET: Form<Secret> =
    Form { read: read_replicas_secret, show: |_| quoted(MASK), secret: true, path: false };
/// `replicas.prefix`.
pub(super) const PREFIX_OF_KEYS: Form<String> = Form::open(read_prefix, |value| quoted(value));
/// `replicas.mode`.
pub(super) const REPLICAS_MODE: Form<Mode> = Form::open(|value| read_word(value, &MODES), |value| word(value, &MODES));
/// `replicas.cut_off`.
pub(super) const CUT_OFF: Form<CutOff> =
    Form::open(|value| read_word(value, &CUT_OFFS), |value| word(value, &CUT_OFFS));

const MODES: [(&str, Mode); 2] = [("strict", Mode::Strict), ("async", Mode::Async)];
const CUT_OFFS: [(&str, CutOff); 2] = [("pass", CutOff::Pass), ("refuse", CutOff::Refuse)];

fn read_replicas_secret(value: &Value) -> Result<Secret, String> {
    let secret = (SECRET.read)(value)?;
    if secret.key().len() < SECRET_LENGTH {
        let length = secret.key().len();
        return Err(format!("has {length} bytes; write {SECRET_LENGTH} or more at random"));
    }
    Ok(secret)
}

fn read_prefix(value: &Value) -> Result<String, String> {
    let is_prefix = |text: &&str| {
        !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    let prefix = value.as_str().filter(is_prefix);
    prefix.map(str::to_owned).ok_or_else(|| {
        format!("{} is no prefix of keys; write up to 64 letters, digits, or some of - _ . :", shown(value))
    })
}

/// A URL is never repeated if it could hold a password.
fn read_redis(value: &Value) -> Result<RedisAddress, String> {
    let text = value.as_str().ok_or_else(|| format!("{} is not the URL of a Redis; {EXAMPLE}", shown(value)))?;
    if let Some(path) = text.strip_prefix("unix://") {
        let (path, database) = match path.rsplit_once("?db=") {
            Some((path, database)) => (path, read_database(database)?),
            None => (path, 0),
        };
        if !path.starts_with('/') {
            return Err(format!("{} names no socket by its whole path; {EXAMPLE}", shown(value)));
        }
        return Ok(RedisAddress { door: Door::Unix(PathBuf::from(path)), user: None, database });
    }
    let (rest, by_tls) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return Err(format!("{} is not the URL of a Redis; {EXAMPLE}", shown(value))),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains(':') || user.is_empty()) {
        return Err("holds a password; write it into a file, and its name into replicas.password_file".to_owned());
    }
    let (place, database) = match rest.split_once('/') {
        Some((place, "")) => (place, 0),
        Some((place, database)) => (place, read_database(database)?),
        None => (rest, 0),
    };
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port ends with its bracket.
        Some((host, port)) if !place.ends_with(']') => (host, port.parse().ok()),
        _ => (place, Some(PORT)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = |host: &str| {
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    match port.filter(|port| *port > 0 && is_host(host)) {
        Some(port) => {
            let door = if by_tls { Door::Tls } else { Door::Tcp }(host.to_owned(), port);
            Ok(RedisAddress { door, user: user.map(str::to_owned), database })
        }
        None => Err(format!("{} names no host and port; {EXAMPLE}", shown_text(place))),
    }
}

fn read_database(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{} is not the number of a database; {EXAMPLE}", shown_text(text)))
}

fn redis_text(RedisAddress { door, user, database }: &RedisAddress) -> String {
    match door {
        Door::Unix(path) if *database == 0 => format!("unix://{}", path.display()),
        Door::Unix(path) => format!("unix://{}?db={database}", path.display()),
        Door::Tcp(host, port) | Door::Tls(host, port) => {
            let scheme = if matches!(door, Door::Tls(..)) { "rediss" } else { "redis" };
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let user = user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
            let database = if *database == 0 { String::new() } else { format!("/{database}") };
            format!("{scheme}://{user}{host}:{port}{database}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        for (text, host, port, database) in [
            ("redis://127.0.0.1:6379", "127.0.0.1", 6379, 0),
            ("redis://cache.internal:7000/3", "cache.internal", 7000, 3),
            ("redis://anteroom@cache:6379", "cache", 6379, 0),
            ("redis://[::1]:6380", "::1", 6380, 0),
        ] {
            let address = read_redis(&Value::from(text)).unwrap();
            assert_eq!((&address.door, address.database), (&Door::Tcp(host.to_owned(), port), database), "{text}");
            assert_eq!(redis_text(&address), text);
        }
        let by_tls = read_redis(&Value::from("rediss://joe@cache:6380/1")).unwrap();
        assert_eq!(by_tls.door, Door::Tls("cache".to_owned(), 6380));
        assert_eq!(redis_text(&by_tls), "rediss://joe@cache:6380/1");
        for (text, written) in [("redis://h", "redis://h:6379"), ("redis://[::1]/", "redis://[::1]:6379")] {
            assert_eq!(redis_text(&read_redis(&Value::from(text)).unwrap()), written);
        }
        let socket = "unix:///run/redis/redis.sock?db=2";
        assert_eq!(redis_text(&read_redis(&Value::from(socket)).unwrap()), socket);
    }

    #[test]
    fn no_mistake_repeats_a_password() {
        for text in [
            "redis://:hunter2@h:6379",
            "redis://joe:hunter2@h",
            "rediss:/hunter2",
            "redis://h:hunter2",
            "redis://h:6379/hunter2",
            "redis://",
            "redis://h:0",
            "unix://hunter2",
            "http://h:6379",
        ] {
            let mistake = read_redis(&Value::from(text)).unwrap_err();
            assert!(!mistake.contains("hunter2") && mistake.contains("write"), "{mistake}");
        }
    }

    #[test]
    fn a_secret_that_could_be_guessed_and_odd_prefixes_are_mistakes() {
        assert!(read_replicas_secret(&Value::from("x".repeat(31))).is_err());
        assert!(read_replicas_secret(&Value::from("x".repeat(32))).is_ok());
        for odd in ["", "a b", "{a}", &"x".repeat(65)] {
            assert!(read_prefix(&Value::from(odd)).is_err(), "{odd:?}");
        }
        assert_eq!(read_prefix(&Value::from("shop-1")), Ok("shop-1".to_owned()));
    }
}

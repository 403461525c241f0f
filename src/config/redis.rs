//! The values of `replicas`: how each is read from TOML and written back. Plain functions, no I/O.

use std::path::PathBuf;

use toml::Value;

use super::shown::{shown, shown_text};
use super::values::{Form, SECRET, quoted, read_word, word};
use crate::engine::replicas::settings::{CutOff, Door, Mode, RedisAddress, Way};
use crate::policy::secret::{MASK, Secret};

/// Bytes that a secret has at least.
const SECRET_LENGTH: usize = 32;
/// The ports of Redis and of Sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Sentinels, or nodes of a cluster, of which at least one has to answer.
const MOST_DOORS: usize = 16;
const EXAMPLE: &str = "write redis://HOST:PORT, rediss://USER@HOST:PORT/DATABASE (by TLS), unix:///run/redis/redis.sock, \
                       redis+sentinel://HOST:PORT,HOST:PORT/NAME or redis+cluster://HOST:PORT,HOST:PORT";

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
    let none = || format!("{} is not the URL of a Redis; {EXAMPLE}", shown(value));
    let (scheme, rest) = value.as_str().and_then(|text| text.split_once("://")).ok_or_else(none)?;
    if scheme == "unix" {
        return read_socket(rest)
            .ok_or_else(|| format!("{} names no socket by its whole path; {EXAMPLE}", shown(value)))?;
    }
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains(':') || user.is_empty()) {
        return Err("holds a password; write it into a file, and its name into replicas.password_file".to_owned());
    }
    let (places, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (kind, by_tls) = match scheme.strip_prefix("rediss") {
        Some(kind) => (kind, true),
        None => (scheme.strip_prefix("redis").ok_or_else(none)?, false),
    };
    let port = if kind == "+sentinel" { SENTINEL_PORT } else { PORT };
    let doors = places.split(',').map(|place| read_door(place, by_tls, port)).collect::<Result<Vec<_>, _>>()?;
    if doors.len() > MOST_DOORS {
        return Err(format!("names {} places; write {MOST_DOORS} at most", doors.len()));
    }
    let (way, database) = match (kind, &doors[..]) {
        ("", [door]) => (Way::Server(door.clone()), path),
        ("", _) => return Err(format!("names more than one server, and is neither Sentinel nor cluster; {EXAMPLE}")),
        ("+sentinel", _) => {
            let (name, database) = path.split_once('/').unwrap_or((path, ""));
            if !is_name(name) {
                return Err(format!("{} is no name that Sentinels know a primary by; {EXAMPLE}", shown_text(name)));
            }
            (Way::Sentinels(doors, name.to_owned()), database)
        }
        ("+cluster", _) if path.is_empty() => (Way::Cluster(doors), path),
        ("+cluster", _) => return Err(format!("names a database, and a cluster has one alone; {EXAMPLE}")),
        _ => return Err(none()),
    };
    let database = if database.is_empty() { 0 } else { read_database(database)? };
    Ok(RedisAddress { way, user: user.map(str::to_owned), database })
}

/// None if it is no whole path.
fn read_socket(rest: &str) -> Option<Result<RedisAddress, String>> {
    let (path, database) = rest.rsplit_once("?db=").unwrap_or((rest, "0"));
    let way = path.starts_with('/').then(|| Way::Server(Door::Unix(PathBuf::from(path))))?;
    Some(read_database(database).map(|database| RedisAddress { way, user: None, database }))
}

fn read_door(place: &str, by_tls: bool, usual: u16) -> Result<Door, String> {
    let (host, port) = match place.rsplit_once(':') {
        // An IPv6 address without a port ends with its bracket.
        Some((host, port)) if !place.ends_with(']') => (host, port.parse().ok()),
        _ => (place, Some(usual)),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.filter(|port| *port > 0 && is_name(host)) {
        Some(port) => Ok(if by_tls { Door::Tls } else { Door::Tcp }(host.to_owned(), port)),
        None => Err(format!("{} names no host and port; {EXAMPLE}", shown_text(place))),
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

fn read_database(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{} is not the number of a database; {EXAMPLE}", shown_text(text)))
}

fn redis_text(RedisAddress { way, user, database }: &RedisAddress) -> String {
    let secure = if way.is_tls() { "s" } else { "" };
    let user = user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
    let numbered = if *database == 0 { String::new() } else { format!("/{database}") };
    match way {
        Way::Server(Door::Unix(path)) if *database == 0 => format!("unix://{}", path.display()),
        Way::Server(Door::Unix(path)) => format!("unix://{}?db={database}", path.display()),
        Way::Server(door) => format!("redis{secure}://{user}{}{numbered}", door_text(door)),
        Way::Sentinels(doors, name) => format!("redis{secure}+sentinel://{user}{}/{name}{numbered}", doors_text(doors)),
        Way::Cluster(doors) => format!("redis{secure}+cluster://{user}{}", doors_text(doors)),
    }
}

fn doors_text(doors: &[Door]) -> String {
    doors.iter().map(door_text).collect::<Vec<_>>().join(",")
}

fn door_text(door: &Door) -> String {
    match door {
        Door::Unix(path) => path.display().to_string(),
        Door::Tcp(host, port) | Door::Tls(host, port) if host.contains(':') => format!("[{host}]:{port}"),
        Door::Tcp(host, port) | Door::Tls(host, port) => format!("{host}:{port}"),
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
            let door = Way::Server(Door::Tcp(host.to_owned(), port));
            assert_eq!((&address.way, address.database), (&door, database), "{text}");
            assert_eq!(redis_text(&address), text);
        }
        let by_tls = read_redis(&Value::from("rediss://joe@cache:6380/1")).unwrap();
        assert_eq!(by_tls.way, Way::Server(Door::Tls("cache".to_owned(), 6380)));
        assert_eq!(redis_text(&by_tls), "rediss://joe@cache:6380/1");
        for (text, written) in [("redis://h", "redis://h:6379"), ("redis://[::1]/", "redis://[::1]:6379")] {
            assert_eq!(redis_text(&read_redis(&Value::from(text)).unwrap()), written);
        }
        let socket = "unix:///run/redis/redis.sock?db=2";
        assert_eq!(redis_text(&read_redis(&Value::from(socket)).unwrap()), socket);
    }

    #[test]
    fn sentinels_and_clusters_are_read_and_written_back() {
        let read = |text: &str| read_redis(&Value::from(text));
        let sentinels = read("rediss+sentinel://joe@s1,s2:26380,[::1]/shop.main/2").unwrap();
        let door = |host: &str, port| Door::Tls(host.to_owned(), port);
        let doors = vec![door("s1", 26379), door("s2", 26380), door("::1", 26379)];
        assert_eq!(sentinels.way, Way::Sentinels(doors, "shop.main".to_owned()));
        assert_eq!((sentinels.user.as_deref(), sentinels.database), (Some("joe"), 2));
        assert_eq!(redis_text(&sentinels), "rediss+sentinel://joe@s1:26379,s2:26380,[::1]:26379/shop.main/2");
        let cluster = read("redis+cluster://n1:7000,n2").unwrap();
        assert_eq!(cluster.way, Way::Cluster(vec![Door::Tcp("n1".to_owned(), 7000), Door::Tcp("n2".to_owned(), 6379)]));
        assert_eq!(redis_text(&cluster), "redis+cluster://n1:7000,n2:6379");
        let many = format!("redis+cluster://{}", ["n"; 17].join(","));
        for (text, part) in [
            ("redis+sentinel://s1", "no name"),
            ("redis+sentinel://s1/", "no name"),
            ("redis+sentinel://s1/shop/x", "database"),
            ("redis+sentinel://s1,,s2/shop", "no host"),
            ("redis+cluster://n1/1", "database"),
            ("redis+cluster://", "no host"),
            ("redis://n1,n2", "neither Sentinel nor cluster"),
            ("redis+more://n1", "not the URL"),
            (many.as_str(), "16 at most"),
        ] {
            let mistake = read(text).unwrap_err();
            assert!(mistake.contains(part), "{text}: {mistake}");
        }
    }

    #[test]
    fn no_mistake_repeats_a_password() {
        for text in [
            "redis://:hunter2@h:6379",
            "redis://joe:hunter2@h",
            "rediss:/hunter2",
            "redis://h:hunter2",
            "redis://h:6379/hunter2",
            "redis+sentinel://:hunter2@s1/shop",
            "redis+cluster://joe:hunter2@n1,n2",
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

//! The forms a value may have: how each is read from TOML and how it is written back. Plain functions, no I/O.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Value;
use toml::de::DeValue;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::base_url::{base_urls_text, read_base_urls};
use super::endpoint::read_endpoint;
use super::routes;
use super::settings::{LogClient, LogFormat, LogOnly};
use super::shown::{shown, shown_text};
use super::words::{
    AUTO_WORDS, COMPRESS_WORDS, CREDENTIALS_WORDS, LOG_CLIENT_WORDS, LOG_FORMAT_WORDS, LOG_ONLY_WORDS, OBEDIENCE_WORDS,
    PROTOCOL_WORDS, QUERY_WORDS, VALIDATE_WORDS,
};
use crate::engine::memory::FIRST;
use crate::engine::upstream::settings::BaseUrl;
use crate::policy::http::client::{HostRule, ProtocolRule, is_host};
use crate::policy::http::encoding::Coding;
use crate::policy::http::freshness::Ttl;
use crate::policy::http::kept_body::Compress;
use crate::policy::http::key::QueryRule;
use crate::policy::http::route::CredentialsRule;
use crate::policy::payload::{Trim, TrimMistake, Validate};
use crate::policy::resource::ReadKind;
use crate::policy::secret::{MASK, Secret};

/// How values of one kind are read and written. `show` writes TOML that `read` takes back, except for secrets.
pub(super) struct Form<T> {
    pub(super) read: fn(&Value) -> Result<T, String>,
    pub(super) show: fn(&T) -> String,
    /// May also be given as `{ file = ... }` or `{ env = ... }`, and is never printed.
    pub(super) secret: bool,
    /// Is the path of a file: in a file of settings it goes by that file's folder.
    pub(super) path: bool,
}

impl<T> Form<T> {
    pub(super) const fn open(read: fn(&Value) -> Result<T, String>, show: fn(&T) -> String) -> Self {
        Self { read, show, secret: false, path: false }
    }
}

/// A duration; zero means "not at all".
pub(super) const DURATION: Form<Duration> = Form::open(read_duration, |value| quoted(&duration_text(*value)));
/// `cache.ttl`: a duration, or whoever says.
pub(super) const TTL: Form<Ttl> = Form::open(read_ttl, |value| match value {
    Ttl::Fixed(ttl) => (DURATION.show)(ttl),
    Ttl::Origin => quoted(ORIGIN),
});
/// `cache.client_directives`: whether they are obeyed.
pub(super) const OBEDIENCE: Form<bool> =
    Form::open(|value| read_word(value, &OBEDIENCE_WORDS), |value| word(value, &OBEDIENCE_WORDS));
/// A duration that may not be zero: a wait that must end, yet not before it began.
pub(super) const TIME_LIMIT: Form<Duration> = Form::open(read_time_limit, |value| quoted(&duration_text(*value)));
/// Bytes in which a list of unknown length can at least begin.
pub(super) const MEMORY: Form<u64> = Form::open(read_memory, |value| quoted(&size_text(*value)));
/// Bytes, more than none.
pub(super) const SIZE: Form<u64> = Form::open(read_size, |value| quoted(&size_text(*value)));
/// A number of things, more than none.
pub(super) const COUNT: Form<usize> = Form::open(read_count, ToString::to_string);
/// A part of a whole, 0 to 1.
pub(super) const SHARE: Form<f64> = Form::open(read_share, |value| Value::Float(*value).to_string());
/// Yes or no.
pub(super) const SWITCH: Form<bool> = Form::open(read_switch, ToString::to_string);
/// What is on where it can be.
pub(super) const AUTO: Form<bool> = Form::open(|value| read_word(value, &AUTO_WORDS), |value| word(value, &AUTO_WORDS));
/// Where to listen.
pub(super) const ADDRESS: Form<SocketAddr> = Form::open(read_address, |value| quoted(&value.to_string()));
/// Where the upstream is.
pub(super) const BASE_URLS: Form<Vec<BaseUrl>> = Form::open(read_base_urls, |urls| base_urls_text(urls));
/// The path of a file.
pub(super) const PATH: Form<PathBuf> =
    Form { read: read_path, show: |value| quoted(&value.display().to_string()), secret: false, path: true };
/// Networks, or single addresses.
pub(super) const NETWORKS: Form<Vec<IpNet>> = Form::open(read_networks, |networks| {
    Value::from(networks.iter().map(ToString::to_string).collect::<Vec<_>>()).to_string()
});
/// `upstream.forwarded_proto`.
pub(super) const PROTOCOL_RULE: Form<ProtocolRule> =
    Form::open(|value| read_word(value, &PROTOCOL_WORDS), |value| word(value, &PROTOCOL_WORDS));
/// `upstream.host`.
pub(super) const HOST_RULE: Form<HostRule> = Form::open(read_host_rule, |rule| {
    quoted(match rule {
        HostRule::Upstream => "upstream",
        HostRule::Client => "client",
        HostRule::Name(name) => name.as_str(),
    })
});
/// A collector of spans.
pub(super) const ENDPOINT: Form<String> = Form::open(read_endpoint, |value| quoted(value));
/// Which log lines are written.
pub(super) const LOG_FILTER: Form<String> = Form::open(read_log_filter, |value| quoted(value));
/// `cache.query`.
pub(super) const QUERY: Form<QueryRule> =
    Form::open(|value| read_word(value, &QUERY_WORDS), |value| word(value, &QUERY_WORDS));
/// `cache.compress`.
pub(super) const COMPRESS: Form<Compress> =
    Form::open(|value| read_word(value, &COMPRESS_WORDS), |value| word(value, &COMPRESS_WORDS));
/// `cache.routes`.
pub(super) const ROUTES: Form<Vec<ReadKind>> = Form::open(routes::read_routes, |reads| routes::text(reads));
/// `cache.credentials`.
pub(super) const CREDENTIALS: Form<CredentialsRule> =
    Form::open(|value| read_word(value, &CREDENTIALS_WORDS), |value| word(value, &CREDENTIALS_WORDS));
/// `log.format`.
pub(super) const LOG_FORMAT: Form<LogFormat> =
    Form::open(|value| read_word(value, &LOG_FORMAT_WORDS), |value| word(value, &LOG_FORMAT_WORDS));
/// `log.only`.
pub(super) const LOG_ONLY: Form<LogOnly> =
    Form::open(|value| read_word(value, &LOG_ONLY_WORDS), |value| word(value, &LOG_ONLY_WORDS));
/// `log.client`.
pub(super) const LOG_CLIENT: Form<LogClient> =
    Form::open(|value| read_word(value, &LOG_CLIENT_WORDS), |value| word(value, &LOG_CLIENT_WORDS));
/// `payload.validate`.
pub(super) const VALIDATE: Form<Validate> =
    Form::open(|value| read_word(value, &VALIDATE_WORDS), |value| word(value, &VALIDATE_WORDS));
/// `payload.trim.statuses`.
pub(super) const STATUSES: Form<Vec<String>> =
    Form::open(|value| read_texts(value, |text| Trim::compile(None, &[text], &[], false)), |value| texts(value));
/// `payload.trim.drop`.
pub(super) const DROP: Form<Vec<String>> =
    Form::open(|value| read_texts(value, |text| Trim::compile(None, &[], &[text], false)), |value| texts(value));
/// `encoding.offer`.
pub(super) const CODINGS: Form<Vec<Coding>> = Form::open(read_codings, |codings| {
    Value::from(codings.iter().map(|coding| coding.name()).collect::<Vec<_>>()).to_string()
});
/// `encoding.zstd_level`.
pub(super) const ZSTD_LEVEL: Form<i32> = Form::open(|value| read_level(value, 1, 19), ToString::to_string);
/// `encoding.br_level`.
pub(super) const BR_LEVEL: Form<i32> = Form::open(|value| read_level(value, 0, 11), ToString::to_string);
/// `encoding.gzip_level`.
pub(super) const GZIP_LEVEL: Form<i32> = Form::open(|value| read_level(value, 1, 9), ToString::to_string);
/// A secret, already fetched from its file or variable.
pub(super) const SECRET: Form<Secret> = Form { read: read_secret, show: |_| quoted(MASK), secret: true, path: false };
/// Several secrets.
pub(super) const SECRETS: Form<Vec<Secret>> = Form {
    read: read_secrets,
    show: |secrets| Value::from(secrets.iter().map(|_| MASK).collect::<Vec<_>>()).to_string(),
    secret: true,
    path: false,
};
/// A path on the public listener.
pub(super) const URL_PATH: Form<String> = Form::open(read_url_path, |value| quoted(value));

/// Whoever made an answer says how long it is fresh.
const ORIGIN: &str = "origin";

/// A value without its place in the text. `None`: a number in it is too large.
pub(super) fn plain(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(datetime) => Value::Datetime(*datetime),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| plain(value.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(entries) => {
            let mut table = toml::Table::new();
            for (key, value) in entries {
                table.insert(key.get_ref().to_string(), plain(value.get_ref())?);
            }
            Value::Table(table)
        }
    })
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

pub(super) fn read_word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(word, _)| quoted(word)).collect();
        format!("{} is not known here; write {}", shown(value), known.join(" or "))
    })
}

pub(super) fn word<T: PartialEq>(value: &T, words: &[(&str, T)]) -> String {
    let found = words.iter().find(|(_, meaning)| meaning == value);
    quoted(found.expect("every variant has a word").0)
}

/// A list of texts, each of which the trim must take. All that it does not take are told of.
fn read_texts(value: &Value, take: fn(String) -> Result<Trim, Vec<TrimMistake>>) -> Result<Vec<String>, String> {
    let list = value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    let list: Vec<String> =
        list.ok_or_else(|| format!("{} is not a list of strings; write [\"...\", \"...\"]", shown(value)))?;
    // What is not shown is told of as its mask would be.
    let told =
        |text: &String| take(text.clone()).err().map(|why| take(shown_text(text).to_owned()).err().unwrap_or(why));
    let mistakes = list.iter().filter_map(told).flatten();
    let problems: Vec<String> = mistakes.map(|mistake| mistake.problem).collect();
    if problems.is_empty() { Ok(list) } else { Err(problems.join("; and ")) }
}

fn texts(list: &[String]) -> String {
    Value::from(list.to_vec()).to_string()
}

fn read_codings(value: &Value) -> Result<Vec<Coding>, String> {
    const WRITE: &str = "write some of [\"zstd\", \"br\", \"gzip\"], each once";
    let list = value.as_array().ok_or_else(|| format!("{} is not a list of codings; {WRITE}", shown(value)))?;
    let (mut codings, mut problems) = (Vec::new(), Vec::new());
    for name in list {
        match Coding::ALL.into_iter().find(|coding| name.as_str() == Some(coding.name())) {
            None => problems.push(format!("{} is not a coding", shown(name))),
            Some(coding) if codings.contains(&coding) => problems.push(format!("{} is there twice", shown(name))),
            Some(coding) => codings.push(coding),
        }
    }
    if problems.is_empty() { Ok(codings) } else { Err(format!("{}; {WRITE}", problems.join(", and "))) }
}

fn read_level(value: &Value, least: i32, most: i32) -> Result<i32, String> {
    let level = value.as_integer().and_then(|level| i32::try_from(level).ok());
    level
        .filter(|level| (least..=most).contains(level))
        .ok_or_else(|| format!("{} is not a level; write a number from {least} to {most}", shown(value)))
}

/// Units from small to large, and how many of the smallest each one is.
type Units = [(&'static str, u64)];
const TIME_UNITS: &Units = &[("ms", 1), ("s", 1000), ("m", 60 * 1000), ("h", 60 * 60 * 1000)];
const SIZE_UNITS: &Units = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A year. Longer ones are slips of the pen, and instants plus such durations overflow.
const LONGEST_MS: u64 = 365 * 24 * 60 * 60 * 1000;
/// A pebibyte: sums of a few such sizes still fit.
const LARGEST: u64 = 1 << 50;

/// Digits and a unit, as a number of the smallest unit. `None`: not of that form; saturates above `u64`.
fn measure(text: &str, units: &Units) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    // Only digits are left: what does not parse is empty or too large.
    (digits > 0).then(|| number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(*scale))
}

/// The shortest way to write an amount: the largest unit that leaves a whole number.
fn measured(amount: u64, units: &Units, zero: &str) -> String {
    let fits = |(_, scale): &&(&str, u64)| amount.is_multiple_of(*scale);
    match units.iter().rev().find(fits) {
        Some((unit, scale)) if amount > 0 => format!("{}{unit}", amount / scale),
        _ => zero.to_owned(),
    }
}

pub(super) fn duration_text(value: Duration) -> String {
    measured(u64::try_from(value.as_millis()).unwrap_or(u64::MAX), TIME_UNITS, "0s")
}

pub(super) fn size_text(bytes: u64) -> String {
    measured(bytes, SIZE_UNITS, "0B")
}

fn read_duration(value: &Value) -> Result<Duration, String> {
    let millis = value.as_str().and_then(|text| measure(text, TIME_UNITS));
    match millis.ok_or_else(|| format!("{} is not a duration; write 500ms, 15s, 10m or 1h", shown(value)))? {
        millis if millis > LONGEST_MS => Err(format!("{} is more than a year; write 8760h or less", shown(value))),
        millis => Ok(Duration::from_millis(millis)),
    }
}

fn read_ttl(value: &Value) -> Result<Ttl, String> {
    if value.as_str() == Some(ORIGIN) {
        return Ok(Ttl::Origin);
    }
    let is_word = value.as_str().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let told = |what: String| if is_word { format!("{what}; or {}", quoted(ORIGIN)) } else { what };
    read_duration(value).map(Ttl::Fixed).map_err(told)
}

fn read_time_limit(value: &Value) -> Result<Duration, String> {
    match read_duration(value)? {
        Duration::ZERO => Err(format!("{} leaves no time at all; write 1ms or more", shown(value))),
        duration => Ok(duration),
    }
}

fn read_size(value: &Value) -> Result<u64, String> {
    let bytes = match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok(),
        Value::String(text) => measure(text, SIZE_UNITS),
        _ => None,
    };
    match bytes
        .ok_or_else(|| format!("{} is not a size; write 64KiB, 16MiB, 1GiB or a number of bytes", shown(value)))?
    {
        0 => Err(format!("{} leaves no room at all; write 1B or more", shown(value))),
        bytes if bytes > LARGEST => Err(format!("{} is more than a pebibyte; write 1048576GiB or less", shown(value))),
        bytes => Ok(bytes),
    }
}

fn read_memory(value: &Value) -> Result<u64, String> {
    match read_size(value)? {
        bytes if bytes < FIRST as u64 => {
            let least = size_text(FIRST as u64);
            Err(format!("{value} is too little for a list of unknown length to begin; write {least} or more"))
        }
        bytes => Ok(bytes),
    }
}

fn read_count(value: &Value) -> Result<usize, String> {
    let count = value.as_integer().filter(|count| (1..=1_000_000).contains(count));
    count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| format!("{} is not a number from 1 to 1000000; write one, without quotes", shown(value)))
}

fn read_share(value: &Value) -> Result<f64, String> {
    let share = match value {
        Value::Float(share) => Some(*share),
        Value::Integer(0) => Some(0.0),
        Value::Integer(1) => Some(1.0),
        _ => None,
    };
    share
        .filter(|share| (0.0..=1.0).contains(share))
        // Plus zero, or "-0.0" would be shown as it was written.
        .map(|share| share + 0.0)
        .ok_or_else(|| format!("{} is not a share; write a number from 0.0 to 1.0, without quotes", shown(value)))
}

fn read_switch(value: &Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("{} is neither true nor false; write one of them, without quotes", shown(value)))
}

fn read_address(value: &Value) -> Result<SocketAddr, String> {
    // As a URL, too: so it is printed at the start, and so other commands ask for it.
    let bare = |text: &str| text.strip_prefix("http://").map_or(text, |text| text.trim_end_matches('/')).parse().ok();
    let address = value.as_str().and_then(bare);
    address
        .ok_or_else(|| format!("{} is not an IP address with a port; write 127.0.0.1:8080 or [::1]:8080", shown(value)))
}

fn read_path(value: &Value) -> Result<PathBuf, String> {
    match value.as_str() {
        Some(text) if !text.is_empty() && !text.contains('\0') => Ok(PathBuf::from(text)),
        _ => Err(format!("{} is not the path of a file; write \"/etc/anteroom/ca.pem\"", shown(value))),
    }
}

fn read_log_filter(value: &Value) -> Result<String, String> {
    let wrong = || {
        format!("{} is not a log level; write error, warn, info, debug or trace, or info,anteroom=debug", shown(value))
    };
    let text = value.as_str().ok_or_else(wrong)?;
    // The filter's own parser takes any bare word for the name of a module, so `inof` would pass and silence the rest.
    // It also panics on some text that is not ASCII.
    let plain = |piece: &str| piece.contains('=') || (!piece.is_empty() && piece.parse::<LevelFilter>().is_ok());
    if text.is_ascii() && text.split(',').all(plain) && EnvFilter::try_new(text).is_ok() {
        Ok(text.to_owned())
    } else {
        Err(wrong())
    }
}

/// The value itself is never part of the message.
fn read_secret(value: &Value) -> Result<Secret, String> {
    match value.as_str() {
        Some(MASK) => {
            Err(format!("{MASK} is the mask of a secret; write the secret, or where it is: {{ file = \"...\" }}"))
        }
        Some(text) => {
            Secret::new(text).ok_or_else(|| "is an empty secret; write one, or leave the setting out".to_owned())
        }
        None => Err("is not a secret; write a string in quotes, { file = \"...\" } or { env = \"...\" }".to_owned()),
    }
}

fn read_secrets(value: &Value) -> Result<Vec<Secret>, String> {
    let list = value.as_array().ok_or_else(|| "is not a list of secrets; write [{ file = \"...\" }]".to_owned())?;
    let read: Vec<_> = list.iter().map(read_secret).collect();
    each_or_all_mistakes(read)
}

/// All of a list, or every mistake in it by its number, counted from one.
pub(super) fn each_or_all_mistakes<T>(read: Vec<Result<T, String>>) -> Result<Vec<T>, String> {
    let told = |(index, result): (usize, &Result<T, String>)| {
        result.as_ref().err().map(|mistake| format!("number {} {mistake}", index + 1))
    };
    let mistakes: Vec<_> = read.iter().enumerate().filter_map(told).collect();
    if mistakes.is_empty() { read.into_iter().collect() } else { Err(mistakes.join("; and ")) }
}

/// Networks, each with its length; an address alone is the network of one.
fn read_networks(value: &Value) -> Result<Vec<IpNet>, String> {
    const EXAMPLE: &str = "write networks such as [\"10.0.0.0/8\", \"fd00::/8\", \"127.0.0.1\"]";
    let list = value.as_array().ok_or_else(|| format!("{} is not a list; {EXAMPLE}", shown(value)))?;
    let read = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let network = text.parse::<IpNet>().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
        network.map(|network| network.trunc()).ok_or_else(|| format!("{} is not a network; {EXAMPLE}", shown(value)))
    };
    list.iter().map(read).collect()
}

fn read_host_rule(value: &Value) -> Result<HostRule, String> {
    match value.as_str() {
        Some("upstream") => Ok(HostRule::Upstream),
        Some("client") => Ok(HostRule::Client),
        Some(name) if is_host(name) => {
            Ok(HostRule::Name(name.parse().map_err(|_| format!("{} is not a host", shown(value)))?))
        }
        _ => Err(format!(
            "{} is not a host; write \"upstream\", \"client\", or a name such as \"chat.example.com\"",
            shown(value)
        )),
    }
}

/// A path that no route of the API has, in the one spelling that is compared.
fn read_url_path(value: &Value) -> Result<String, String> {
    let path = value.as_str().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let steps = path.strip_prefix('/').unwrap_or_default().split('/');
    if !path.starts_with('/')
        || !path.bytes().all(plain)
        || steps.into_iter().any(|step| matches!(step, "" | "." | ".."))
    {
        return Err(format!("{} is not a path; write \"/_anteroom/webhooks\"", shown(value)));
    }
    if ["/public/", "/api/", "/cable/", "/rails/"].iter().any(|api| format!("{path}/").starts_with(api)) {
        return Err(format!("{} is a path of the API; write another, such as \"/_anteroom/webhooks\"", shown(value)));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests;

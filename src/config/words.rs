//! The words that settings take, and what each means.

use super::settings::{LogClient, LogFormat, LogOnly};
use crate::policy::http::client::{Protocol, ProtocolRule};
use crate::policy::http::kept_body::Compress;
use crate::policy::http::key::QueryRule;
use crate::policy::http::route::CredentialsRule;
use crate::policy::payload::Validate;

pub(super) static AUTO_WORDS: [(&str, bool); 2] = [("auto", true), ("off", false)];
pub(super) static OBEDIENCE_WORDS: [(&str, bool); 2] = [("ignore", false), ("obey", true)];
pub(super) static QUERY_WORDS: [(&str, QueryRule); 2] = [("key", QueryRule::Key), ("ignore", QueryRule::Ignore)];
pub(super) static COMPRESS_WORDS: [(&str, Compress); 2] = [("off", Compress::Off), ("zstd", Compress::Zstd)];
pub(super) static CREDENTIALS_WORDS: [(&str, CredentialsRule); 2] =
    [("bypass", CredentialsRule::Bypass), ("ignore", CredentialsRule::Ignore)];
pub(super) static VALIDATE_WORDS: [(&str, Validate); 3] =
    [("off", Validate::Off), ("report", Validate::Report), ("enforce", Validate::Enforce)];
pub(super) static PROTOCOL_WORDS: [(&str, ProtocolRule); 3] = [
    ("client", ProtocolRule::Client),
    ("http", ProtocolRule::Fixed(Protocol::Http)),
    ("https", ProtocolRule::Fixed(Protocol::Https)),
];
pub(super) static LOG_FORMAT_WORDS: [(&str, LogFormat); 3] =
    [("auto", LogFormat::Auto), ("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
pub(super) static LOG_ONLY_WORDS: [(&str, LogOnly); 2] = [("all", LogOnly::All), ("trouble", LogOnly::Trouble)];
pub(super) static LOG_CLIENT_WORDS: [(&str, LogClient); 3] =
    [("hash", LogClient::Hash), ("whole", LogClient::Whole), ("off", LogClient::Off)];

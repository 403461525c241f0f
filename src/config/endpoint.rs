//! `tracing.endpoint`: text to a URL that spans can be sent to.

use http::Uri;
use http::uri::Scheme;
use toml::Value;

use super::shown::shown;
use crate::engine::spans::traces_url;
use crate::policy::http::target::is_reachable;

/// Whether this program can send any.
const IS_BUILT_IN: bool = cfg!(feature = "otlp");

/// A URL with http and a host, and a path if it likes.
pub(super) fn read_endpoint(value: &Value) -> Result<String, String> {
    let what = "write http://, the host of a collector, and its port for OTLP over HTTP, most often 4318";
    let text = value.as_str().ok_or_else(|| format!("{} is not a URL; {what}", shown(value)))?;
    // The value may hold a password: it is no part of a message.
    let url: Uri = text.parse().map_err(|_| format!("is not a URL; {what}"))?;
    let is_plain = url.scheme() == Some(&Scheme::HTTP);
    let is_bare = url.authority().is_some_and(is_reachable);
    let is_whole = url.query().is_none() && !text.contains('#') && traces_url(text).parse::<Uri>().is_ok();
    if !is_plain || !is_bare || !is_whole {
        return Err(format!("is no URL of a collector beside this program; {what}"));
    }
    if !IS_BUILT_IN {
        return Err("this program was built without tracing; build it with --features otlp".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url_and_a_wrong_one_is_not_repeated() {
        for text in ["http://127.0.0.1:4318", "http://collector", "http://[::1]:4318/otlp"] {
            assert_eq!(read_endpoint(&Value::from(text)).is_ok(), IS_BUILT_IN, "{text}");
        }
        for text in [
            "",
            "collector:4318",
            "https://collector",
            "http://user:hush@collector",
            "http://collector/?hush",
            "http://collector:4318/#hush",
            "http://collector:0",
            "http://collector:99999",
            "http://collector:",
            "http://:4318",
            "hush hush",
        ] {
            let told = read_endpoint(&Value::from(text)).expect_err(text);
            assert!(told.contains("4318") && !told.contains("hush"), "{told}");
        }
        assert!(read_endpoint(&Value::from(7)).is_err());
    }
}

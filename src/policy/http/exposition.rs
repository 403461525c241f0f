//! In which format whoever reads the metrics gets them.

use http::{HeaderMap, header};

use super::encoding::weight;

/// The format of the metrics as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Its `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What `Accept` asks for (RFC 9110 section 12.5.1): OpenMetrics only if it is named, with a version that is made
    /// here, and not for less than plain text.
    pub fn asked_for(asked: &HeaderMap) -> Self {
        let (mut plain, mut open) = (0, 0);
        let fields = asked.get_all(header::ACCEPT).iter().filter_map(|field| field.to_str().ok());
        for element in fields.flat_map(|field| field.split(',')) {
            let mut parts = element.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<&str> = parts.collect();
            let wanted = parameters.iter().find_map(|parameter| weight(parameter)).unwrap_or(1000);
            let has_version = |known: &str| {
                let mut versions = parameters.iter().filter_map(|parameter| parameter.strip_prefix("version="));
                versions.all(|version| version.trim_matches('"') == known)
            };
            if kind.eq_ignore_ascii_case("text/plain") {
                plain = plain.max(wanted);
            } else if kind.eq_ignore_ascii_case("application/openmetrics-text") && has_version("1.0.0") {
                open = open.max(wanted);
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_for_who_asks_for_them() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (of_prometheus, Exposition::OpenMetrics),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("Application/OpenMetrics-Text; version=\"1.0.0\"; charset=utf-8", Exposition::OpenMetrics),
            ("text/plain, application/openmetrics-text", Exposition::OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.9", Exposition::Prometheus),
            ("application/openmetrics-text;version=0.0.1", Exposition::Prometheus),
            ("application/openmetrics-text;q=0", Exposition::Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Exposition::Prometheus),
            ("*/*", Exposition::Prometheus),
            ("", Exposition::Prometheus),
        ] {
            let mut asked = HeaderMap::new();
            asked.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(Exposition::asked_for(&asked), expected, "{accept}");
        }
        assert_eq!(Exposition::asked_for(&HeaderMap::new()), Exposition::Prometheus);
    }
}

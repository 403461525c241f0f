//! A list's place that holds something else: what it most likely is, so that whoever runs the proxy need not guess.

use http::{HeaderMap, StatusCode, Uri, header};

/// What came instead of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoList {
    /// A redirect to https of the same host.
    ForcedTls,
    /// A page, or a redirect to one, where somebody is to sign in.
    LoginPage,
    /// Any other redirect.
    Redirect,
    /// A page for people.
    Page,
    /// Something that is no list, such as another API's JSON.
    OtherBody,
}

impl NoList {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ForcedTls, Self::LoginPage, Self::Redirect, Self::Page, Self::OtherBody];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ForcedTls => "forced_tls",
            Self::LoginPage => "login_page",
            Self::Redirect => "redirect",
            Self::Page => "page",
            Self::OtherBody => "other_body",
        }
    }

    /// What is most likely wrong, and what to do about it.
    pub fn likely_cause(self) -> &'static str {
        match self {
            Self::ForcedTls => {
                "the upstream redirects to https of the same host: it takes requests for unencrypted ones; write \
                 upstream.url with https, or let it know that clients use https"
            }
            Self::LoginPage => {
                "somebody is to sign in first: a gateway before the API asks for that, or upstream.url is wrong"
            }
            Self::Redirect => "the API is somewhere else: write the host or path it redirects to into upstream.url",
            Self::Page => {
                "a page for people: upstream.url lacks the path below which the API lives, or is another server's"
            }
            Self::OtherBody => "no list: upstream.url is another API's, or lacks the path below which this one lives",
        }
    }

    /// What a head alone tells; `asked` is what the upstream was asked for. An error of the upstream's own is none of
    /// these, nor is a 404 that is no page: that is the API's word for a contact it does not have.
    pub fn of_head(status: StatusCode, fields: &HeaderMap, asked: &Uri) -> Option<Self> {
        let text =
            |name| fields.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).unwrap_or_default();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            return Some(Self::of_redirect(text(header::LOCATION), asked));
        }
        let is_page = text(header::CONTENT_TYPE).trim_start().to_ascii_lowercase().starts_with("text/html");
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if is_page => Some(Self::LoginPage),
            StatusCode::OK | StatusCode::NOT_FOUND if is_page => Some(Self::Page),
            _ => None,
        }
    }

    fn of_redirect(location: &str, asked: &Uri) -> Self {
        let lower = location.to_ascii_lowercase();
        let to: Option<Uri> = location.parse().ok();
        let same_host = to.as_ref().and_then(Uri::host).is_some_and(|host| Some(host) == asked.host());
        if lower.starts_with("https://") && same_host && to.is_some_and(|to| to.path() == asked.path()) {
            return Self::ForcedTls;
        }
        let signs_in = ["login", "sign_in", "signin", "sign-in", "/auth", "oauth", "sso"];
        if signs_in.iter().any(|word| lower.contains(word)) { Self::LoginPage } else { Self::Redirect }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, field: (&'static str, &str)) -> Option<NoList> {
        let mut fields = HeaderMap::new();
        fields.insert(field.0, field.1.parse().unwrap());
        let asked: Uri = "http://chat.example.com/public/list?x".parse().unwrap();
        NoList::of_head(StatusCode::from_u16(status).unwrap(), &fields, &asked)
    }

    #[test]
    fn the_likely_cause_is_told_by_the_head() {
        for (status, field, expected) in [
            (301, ("location", "https://chat.example.com/public/list?x"), Some(NoList::ForcedTls)),
            (308, ("location", "https://chat.example.com/public/list"), Some(NoList::ForcedTls)),
            (301, ("location", "https://other.example.com/public/list"), Some(NoList::Redirect)),
            (301, ("location", "https://chat.example.com/new/public/list"), Some(NoList::Redirect)),
            (302, ("location", "/app/login"), Some(NoList::LoginPage)),
            (302, ("location", "https://sso.example.com/"), Some(NoList::LoginPage)),
            (302, ("location", "/elsewhere"), Some(NoList::Redirect)),
            (302, ("x", "y"), Some(NoList::Redirect)),
            (304, ("etag", "\"a\""), None),
            (200, ("content-type", "text/html; charset=utf-8"), Some(NoList::Page)),
            (200, ("content-type", "application/json"), None),
            (403, ("content-type", "text/html"), Some(NoList::LoginPage)),
            (404, ("content-type", "text/html"), Some(NoList::Page)),
            (404, ("content-type", "application/json"), None),
            (503, ("content-type", "text/html"), None),
        ] {
            assert_eq!(of(status, field), expected, "{status} {field:?}");
        }
    }
}

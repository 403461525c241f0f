//! The form in which one client gets a stored answer: whole, a part, or not at all since it has it (RFC 9111 sections 3.3 and
//! 4.3.2; RFC 9110 section 14).

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::dates::Told;
use super::part::{Extent, Wanted};
use super::validate::{has_already, is_strong_date};
use crate::policy::http::stored_head::OF_THE_CONTENT;

/// Digests of the content as it is sent (RFC 9530 section 2, and `Content-MD5` before it): of a part it is another. That of the
/// whole (`Repr-Digest`, `Digest`) holds of a part, too.
const DIGESTS: [HeaderName; 2] = [HeaderName::from_static("content-digest"), HeaderName::from_static("content-md5")];

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it.
    Whole,
    /// 304.
    NotModified,
    /// 206: from this byte to this one.
    Part(u64, u64),
    /// 416: no byte of it was asked for.
    NoPart,
}

/// What is stored, as far as its form depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub fields: &'a HeaderMap,
    /// Bytes of the whole body, of which a part may be stored.
    pub length: u64,
    /// Which part of it is stored, if not all.
    pub part: Option<Extent>,
    /// When its head came, since 1970.
    pub received: Duration,
}

impl Stored<'_> {
    /// The form for a request. Conditions are judged before the part (RFC 9110 section 13.2.2).
    pub fn form(&self, method: &Method, asked: &HeaderMap) -> Form {
        let Self { status, fields, length, received, .. } = *self;
        if has_already(status, fields, received, asked) {
            return Form::NotModified;
        }
        // Only of a GET is a part asked for (section 14.2), and only of a 200 is there one.
        let is_of_success = matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let may_be_part = *method == Method::GET && is_of_success && asked.contains_key(header::RANGE);
        match if may_be_part && self.is_the_one_meant(asked) { Wanted::of(asked, length) } else { Wanted::Whole } {
            Wanted::Whole => Form::Whole,
            Wanted::Part(first, last) => Form::Part(first, last),
            Wanted::NoPart => Form::NoPart,
        }
    }

    /// Whether a part of this answer is asked for, and not of another that the client has the rest of (section 13.1.5): the
    /// validator is strong, and the same.
    pub fn is_the_one_meant(&self, asked: &HeaderMap) -> bool {
        let Some(meant) = asked.get(header::IF_RANGE) else { return true };
        if meant.as_bytes().starts_with(b"W/") || meant.as_bytes().starts_with(b"\"") {
            return !meant.as_bytes().starts_with(b"W/") && self.fields.get(header::ETAG) == Some(meant);
        }
        let [meant, changed] = [(asked, header::IF_RANGE), (self.fields, header::LAST_MODIFIED)]
            .map(|(fields, name)| Told::by(fields, &name).time());
        meant.is_some() && meant == changed && is_strong_date(self.fields)
    }

    /// Status and fields of a form, without a length.
    pub fn head(&self, form: Form) -> (StatusCode, HeaderMap) {
        let mut fields = self.fields.clone();
        let range = |text: String| HeaderValue::try_from(text).expect("digits are a header value");
        match form {
            Form::Whole => (self.status, fields),
            Form::NotModified => {
                remove_all(&mut fields, OF_THE_CONTENT.iter().chain(&DIGESTS));
                (StatusCode::NOT_MODIFIED, fields)
            }
            Form::Part(first, last) => {
                if self.part.is_none_or(|part| (part.first, part.last) != (first, last)) {
                    remove_all(&mut fields, &DIGESTS);
                }
                fields.insert(header::CONTENT_RANGE, range(format!("bytes {first}-{last}/{}", self.length)));
                (StatusCode::PARTIAL_CONTENT, fields)
            }
            Form::NoPart => {
                remove_all(&mut fields, OF_THE_CONTENT.iter().chain(&DIGESTS));
                fields.insert(header::CONTENT_RANGE, range(format!("bytes */{}", self.length)));
                (StatusCode::RANGE_NOT_SATISFIABLE, fields)
            }
        }
    }
}

fn remove_all<'a>(fields: &mut HeaderMap, names: impl IntoIterator<Item = &'a HeaderName>) {
    for name in names {
        fields.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::fields::map;

    const CHANGED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 09:49:37 GMT";

    fn form(
        status: u16,
        stored: &[(&'static str, &'static str)],
        method: &Method,
        asked: &[(&'static str, &'static str)],
    ) -> Form {
        let (status, fields) = (StatusCode::from_u16(status).unwrap(), map(stored));
        Stored { status, fields: &fields, length: 10, part: None, received: Duration::ZERO }.form(method, &map(asked))
    }

    /// RFC 9110 sections 14.1.2, 14.2 and 15.5.17.
    #[test]
    fn a_part_is_what_was_asked_for() {
        for (range, expected) in
            [("bytes=0-4", Form::Part(0, 4)), ("bytes=10-", Form::NoPart), ("bytes=0-1,4-5", Form::Whole)]
        {
            assert_eq!(form(200, &[], &Method::GET, &[("range", range)]), expected, "{range}");
            assert_eq!(form(200, &[], &Method::HEAD, &[("range", range)]), Form::Whole, "14.2: for GET alone");
            assert_eq!(form(404, &[], &Method::GET, &[("range", range)]), Form::Whole);
        }
    }

    /// RFC 9110 sections 13.1.5 and 13.2.2.
    #[test]
    fn a_part_of_another_answer_is_not_sent() {
        let dated = [("last-modified", CHANGED), ("date", LATER), ("etag", "\"a\"")];
        for (stored, meant, expected) in [
            (&dated[..], "\"a\"", Form::Part(0, 1)),
            (&dated, "W/\"a\"", Form::Whole),
            (&dated, "\"b\"", Form::Whole),
            (&dated, CHANGED, Form::Part(0, 1)),
            (&dated, LATER, Form::Whole),
            (&dated, "nonsense", Form::Whole),
            (&[("last-modified", CHANGED), ("date", CHANGED)], CHANGED, Form::Whole),
            (&[("etag", "W/\"a\"")], "W/\"a\"", Form::Whole),
            (&[], "\"a\"", Form::Whole),
            (&[], "nonsense", Form::Whole),
        ] {
            let asked = [("range", "bytes=0-1"), ("if-range", meant)];
            assert_eq!(form(200, stored, &Method::GET, &asked), expected, "{stored:?} {meant}");
        }
        let asked = [("range", "bytes=0-1"), ("if-none-match", "\"a\"")];
        assert_eq!(form(200, &dated, &Method::GET, &asked), Form::NotModified, "conditions come first");
    }

    /// RFC 9110 sections 15.3.7, 15.4.5 and 15.5.17.
    #[test]
    fn each_form_has_its_fields() {
        let fields = map(&[
            ("etag", "\"a\""),
            ("content-type", "text/plain"),
            ("content-encoding", "gzip"),
            ("x", "y"),
            ("content-digest", "d"),
            ("repr-digest", "r"),
        ]);
        let stored =
            Stored { status: StatusCode::OK, fields: &fields, length: 10, part: None, received: Duration::ZERO };
        let bare = [("etag", "\"a\""), ("x", "y"), ("repr-digest", "r")];
        for (form, status, expected) in [
            (Form::Whole, 200, fields.clone()),
            (Form::NotModified, 304, map(&bare)),
            (Form::NoPart, 416, map(&[&bare[..], &[("content-range", "bytes */10")]].concat())),
        ] {
            assert_eq!(stored.head(form), (StatusCode::from_u16(status).unwrap(), expected));
        }
        let (status, part) = stored.head(Form::Part(2, 4));
        assert_eq!((status.as_u16(), part.len()), (206, 6), "a digest is of all that was sent (RFC 9530 section 2)");
        assert_eq!(part["content-range"], "bytes 2-4/10");
        let stored = Stored { part: Some(Extent { first: 2, last: 4, of: 10 }), ..stored };
        let [same, less] =
            [Form::Part(2, 4), Form::Part(3, 4)].map(|form| stored.head(form).1.contains_key("content-digest"));
        assert!(same && !less, "a part as it came has its own");
    }
}

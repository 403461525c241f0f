//! An answer as bytes: what replicas give each other through Redis, in the layout that the first byte names. Whatever cannot
//! be read is nothing.

use bytes::{Buf, BufMut, Bytes};
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::kept_body::KeptBody;
use super::representation::Prepared;

/// The layout; another release may have another one, whose values are misses for this one.
const LAYOUT: u8 = 1;
/// Flags: it names no contact; it has fields for readers from another origin; it has a validator of its own for the upstream;
/// its body is in zstd.
const NAMELESS: u8 = 1;
const CORS: u8 = 2;
const VALIDATOR: u8 = 4;
const PACKED: u8 = 8;

/// What decides whether an answer may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Numbers of the places in the ledger of what it was made from.
    pub places: Vec<u32>,
    /// When its fetch began, at the latest, by the clock of Redis, in milliseconds.
    pub began: u64,
    /// Which of the clocks of Redis that is.
    pub clock: u64,
    /// How old the upstream said it was then, in seconds.
    pub initial_age: u32,
    /// The age at which it expires since what it was made from may have gone on changing, in milliseconds; zero if it does not.
    pub expires: u32,
    /// It names no contact.
    pub nameless: bool,
}

/// An answer as bytes; none if a part of it is longer than can be written.
pub fn write(answer: &Prepared, facts: &Facts) -> Option<Vec<u8>> {
    let (body, cors, validator) = (&answer.body, answer.cors(), answer.own_upstream_etag());
    let flag = |flag: u8, is: bool| if is { flag } else { 0 };
    let flags = flag(NAMELESS, facts.nameless)
        | flag(CORS, cors.is_some())
        | flag(VALIDATOR, validator.is_some())
        | flag(PACKED, body.coding().is_some());
    let mut out = Vec::with_capacity(body.kept().len() + 1024);
    out.extend([LAYOUT, flags]);
    out.put_u64(facts.began);
    out.put_u64(facts.clock);
    out.put_u32(facts.initial_age);
    out.put_u32(facts.expires);
    out.put_u16(answer.status.as_u16());
    out.put_u16(u16::try_from(facts.places.len()).ok()?);
    facts.places.iter().for_each(|place| out.put_u32(*place));
    write_fields(&mut out, &answer.fields())?;
    if let Some(cors) = cors {
        write_fields(&mut out, cors)?;
    }
    if let Some(validator) = validator {
        write_text(&mut out, validator)?;
    }
    out.put_u64(body.length() as u64);
    body.kept().all().iter().for_each(|piece| out.extend_from_slice(piece));
    Some(out)
}

/// Read back: the body is a part of these bytes.
pub fn read(mut bytes: Bytes) -> Option<(Prepared, Facts)> {
    if bytes.try_get_u8().ok()? != LAYOUT {
        return None;
    }
    let flags = bytes.try_get_u8().ok()?;
    let (began, clock) = (bytes.try_get_u64().ok()?, bytes.try_get_u64().ok()?);
    let (initial_age, expires) = (bytes.try_get_u32().ok()?, bytes.try_get_u32().ok()?);
    let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
    let count = bytes.try_get_u16().ok()?;
    let places = (0..count).map(|_| bytes.try_get_u32().ok()).collect::<Option<Vec<u32>>>()?;
    let fields = read_fields(&mut bytes)?;
    let cors = if flags & CORS == 0 { None } else { Some(read_fields(&mut bytes)?) };
    let validator = if flags & VALIDATOR == 0 { None } else { Some(read_text(&mut bytes)?) };
    let length = usize::try_from(bytes.try_get_u64().ok()?).ok()?;
    let body = match flags & PACKED {
        0 if bytes.len() == length => KeptBody::from(bytes),
        0 => return None,
        _ => KeptBody::packed(bytes, length)?,
    };
    let answer = Prepared::again(status, &fields, cors.as_ref(), validator.as_deref(), body);
    Some((answer, Facts { places, began, clock, initial_age, expires, nameless: flags & NAMELESS != 0 }))
}

fn write_text(out: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    out.put_u16(u16::try_from(text.len()).ok()?);
    out.extend_from_slice(text);
    Some(())
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap) -> Option<()> {
    out.put_u16(u16::try_from(fields.len()).ok()?);
    for (name, value) in fields {
        write_text(out, name.as_str().as_bytes())?;
        write_text(out, value.as_bytes())?;
    }
    Some(())
}

fn read_text(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(bytes.try_get_u16().ok()?);
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

fn read_fields(bytes: &mut Bytes) -> Option<HeaderMap> {
    let count = bytes.try_get_u16().ok()?;
    let mut fields = HeaderMap::new();
    for _ in 0..count {
        let name = HeaderName::from_bytes(&read_text(bytes)?).ok()?;
        let value = HeaderValue::from_bytes(&read_text(bytes)?).ok()?;
        fields.try_append(name, value).ok()?;
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use http::Version;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::http::encoding::{Coding, EncodingSettings, encode};
    use crate::policy::http::representation::Received;

    fn answer(fields: &[(&'static str, &'static str)], body: KeptBody) -> Prepared {
        let head = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Prepared::new(Received {
            status: StatusCode::OK,
            head: head.collect(),
            body,
            version: Version::HTTP_11,
            date: HeaderValue::from_static("Tue, 01 Sep 2026 00:00:00 GMT"),
            for_one_origin: false,
            has_codings: true,
        })
    }

    fn facts() -> Facts {
        Facts { places: vec![7, 1 << 19], began: 5, clock: 1, initial_age: 2, expires: 3, nameless: true }
    }

    fn examples() -> Vec<Prepared> {
        let settings = EncodingSettings { offer: vec![], min_size: 0, zstd_level: 3, br_level: 5, gzip_level: 6 };
        let plain: Bytes = b"the same words again ".repeat(300).into();
        let packed =
            KeptBody::packed(Bytes::from(encode(&plain, Coding::Zstd, &settings).unwrap()), plain.len()).unwrap();
        let cors = [("access-control-allow-origin", "*"), ("etag", "\"x\""), ("link", "a"), ("link", "b")];
        let made_anew = answer(&cors, plain.clone().into()).made_anew(HeaderValue::from_static("W/\"y\""));
        vec![answer(&cors, plain.into()), answer(&[], packed), made_anew, answer(&cors, Bytes::new().into())]
    }

    #[test]
    fn what_is_written_is_read() {
        for before in examples() {
            let (after, read_facts) = read(write(&before, &facts()).unwrap().into()).expect("it is read");
            assert_eq!((read_facts, &after.body, after.status), (facts(), &before.body, StatusCode::OK));
            assert_eq!(after.upstream_etag(), before.upstream_etag());
            assert_eq!((after.fields(), after.cors()), (before.fields(), before.cors()));
        }
    }

    #[test]
    fn what_is_cut_short_or_longer_is_nothing() {
        for example in examples() {
            let whole = write(&example, &facts()).unwrap();
            // How much of a body in zstd there is, nothing says but the body itself.
            if example.body.coding().is_none() {
                for end in 0..whole.len() {
                    assert!(read(whole[..end].to_vec().into()).is_none(), "{end}");
                }
                assert!(read([&whole[..], b"x"].concat().into()).is_none());
            }
        }
        let mut other = write(&examples()[0], &facts()).unwrap();
        other[0] = LAYOUT + 1;
        assert!(read(other.into()).is_none(), "another layout");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), is_layout in any::<bool>(), at in 0..6_000_usize, to in any::<u8>()) {
            if let (Some(first), true) = (bytes.first_mut(), is_layout) {
                *first = LAYOUT;
            }
            let _ = read(bytes.into());
            let mut whole = write(&examples()[0], &facts()).unwrap();
            if let Some(byte) = whole.get_mut(at) {
                *byte = to;
            }
            let _ = read(whole.into());
        }
    }
}

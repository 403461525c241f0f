//! Content codings: which one a client gets (RFC 9110 section 12.5.3), and how a body is put into and out of one.

use std::io::{self, Read, Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

/// A body is taken out of its coding in pieces of at most so many bytes.
const PIECE: usize = 32 * 1024;

/// A content coding that this proxy makes and understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// The coding of that name, in whatever case; `x-gzip` is gzip (RFC 9110 section 8.4.1.3).
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.into_iter().find(|coding| coding.name().eq_ignore_ascii_case(name));
        known.or_else(|| name.eq_ignore_ascii_case("x-gzip").then_some(Self::Gzip))
    }
}

/// `encoding.*`: which codings lists are sent in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodingSettings {
    /// `encoding.offer`: those offered, the preferred first.
    pub offer: Vec<Coding>,
    /// `encoding.min_size`, in bytes: shorter bodies are sent as they are.
    pub min_size: u64,
    /// `encoding.zstd_level`.
    pub zstd_level: i32,
    /// `encoding.br_level`.
    pub br_level: u32,
    /// `encoding.gzip_level`.
    pub gzip_level: u32,
}

/// What a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The coding it gets, if it gets one.
    pub coding: Option<Coding>,
    /// It refuses a body without coding.
    pub refuses_identity: bool,
}

impl Accepted {
    /// Whether a body of so many bytes in a coding is better than the plain one.
    pub fn is_of_use(&self, coded: usize, plain: usize) -> bool {
        coded < plain || self.refuses_identity
    }
}

/// Which of the offered codings a client gets: the one it gives most weight, of equal ones the first that is offered;
/// none if it gives more weight to identity.
pub fn negotiate(asked: &HeaderMap, offer: &[Coding]) -> Accepted {
    negotiate_of(asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|field| field.to_str().ok()), offer)
}

/// The same by the values of `Accept-Encoding`.
pub fn negotiate_of<'a>(fields: impl IntoIterator<Item = &'a str>, offer: &[Coding]) -> Accepted {
    let mut weights: [Option<u16>; 3] = [None; 3];
    let (mut identity, mut any) = (None, None);
    for element in fields.into_iter().flat_map(|field| field.split(',')) {
        let mut parts = element.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let weight = parts.find_map(|part| weight(part.trim())).unwrap_or(1000);
        if name == "*" {
            any = Some(weight);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if let Some(coding) = Coding::named(name) {
            weights[coding as usize] = Some(weight);
        }
    }
    let weight_of = |coding: Coding| weights[coding as usize].or(any).unwrap_or(0);
    let best = offer.iter().copied().rev().max_by_key(|coding| weight_of(*coding));
    let refuses_identity = identity.or(any) == Some(0);
    // A client that names a coding and says nothing of identity would rather have the coding.
    let coding = best.filter(|best| weight_of(*best) > 0 && weight_of(*best) >= identity.unwrap_or(0));
    Accepted { coding, refuses_identity }
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2); a weight that cannot be read counts as none given.
pub(super) fn weight(parameter: &str) -> Option<u16> {
    let (name, value) = parameter.split_once('=')?;
    let value: f32 = name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse().ok())??;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    (0.0..=1.0).contains(&value).then_some((value * 1000.0).round() as u16)
}

/// A body in a coding. The time is in proportion to the body and the level: milliseconds per hundred kilobytes.
pub fn encode(body: &[u8], coding: Coding, settings: &EncodingSettings) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len() / 4);
    match coding {
        Coding::Zstd => zstd::stream::copy_encode(body, &mut out, settings.zstd_level)?,
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, settings.br_level, 22);
            encoder.write_all(body)?;
            encoder.flush()?;
            drop(encoder);
        }
        Coding::Gzip => {
            let level = flate2::Compression::new(settings.gzip_level);
            let mut encoder = flate2::write::GzEncoder::new(&mut out, level);
            encoder.write_all(body)?;
            encoder.finish()?;
        }
    }
    out.shrink_to_fit();
    Ok(out)
}

/// A body out of its coding, piece by piece; false if `take` takes no more of it.
pub fn decode(encoded: &[u8], coding: Coding, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut decoder: Box<dyn Read + '_> = match coding {
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(encoded)?;
            // No sender may need a larger window, else each receiver would have to find memory for it (RFC 9659).
            decoder.window_log_max(23)?;
            Box::new(decoder)
        }
        Coding::Brotli => Box::new(brotli::Decompressor::new(encoded, 4096)),
        Coding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(encoded)),
    };
    let mut piece = vec![0; PIECE];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(read) if take(&piece[..read]) => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A body is in several codings, or in one that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood;

/// The one coding a body is in, if there is one.
pub fn coding_of(head: &HeaderMap) -> Result<Option<Coding>, NotUnderstood> {
    let mut found = head.get_all(header::CONTENT_ENCODING).iter();
    let coding = match (found.next().map(HeaderValue::as_bytes), found.next()) {
        (None, _) => return Ok(None),
        (Some(field), None) => std::str::from_utf8(field).map_err(|_| NotUnderstood)?.trim(),
        (Some(_), Some(_)) => return Err(NotUnderstood),
    };
    if coding.eq_ignore_ascii_case("identity") {
        Ok(None)
    } else {
        Coding::named(coding).map(Some).ok_or(NotUnderstood)
    }
}

/// A body out of its coding; none if that cannot be done, or it is longer than that.
pub fn plain_at_most(head: &HeaderMap, body: Bytes, longest: usize) -> Option<Bytes> {
    let Some(coding) = coding_of(head).ok()? else { return Some(body) };
    let mut plain = Vec::new();
    let whole = decode(&body, coding, |piece| {
        plain.extend_from_slice(piece);
        plain.len() <= longest
    });
    whole.ok()?.then(|| plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (header::ACCEPT_ENCODING, HeaderValue::from_str(field).unwrap())).collect()
    }

    /// RFC 9110 section 12.5.3.
    #[test]
    fn a_client_gets_the_coding_it_likes_best() {
        use Coding::{Brotli, Gzip, Zstd};
        for (fields, coding, refuses_identity) in [
            (&[][..], None, false),
            (&[""], None, false),
            (&["gzip, deflate, br, zstd"], Some(Zstd), false),
            (&["gzip, deflate, br"], Some(Brotli), false),
            (&["GZIP"], Some(Gzip), false),
            (&["x-gzip"], Some(Gzip), false),
            (&["br;q=0.5, gzip"], Some(Gzip), false),
            (&["br;q=0.5", "gzip;q=0.8"], Some(Gzip), false),
            (&["br ; q=0.500 , gzip ;Q=0.4"], Some(Brotli), false),
            (&["gzip;q=0, *"], Some(Zstd), false),
            (&["zstd;q=0, br;q=0, *;q=0.1"], Some(Gzip), false),
            (&["*;q=0"], None, true),
            (&["*;q=0, identity"], None, false),
            (&["gzip;q=0"], None, false),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip), true),
            (&["identity;q=0"], None, true),
            (&["identity, gzip;q=0.5"], None, false),
            (&["identity;q=0.5, gzip"], Some(Gzip), false),
            (&["deflate, compress, dcb"], None, false),
            (&["gzip;q=2"], Some(Gzip), false),
            (&["gzip;q=x"], Some(Gzip), false),
        ] {
            let accepted = negotiate(&asking(fields), &[Zstd, Brotli, Gzip]);
            assert_eq!(accepted, Accepted { coding, refuses_identity }, "{fields:?}");
        }
        let accepted = negotiate(&asking(&["zstd, br, gzip"]), &[Gzip, Brotli]);
        assert_eq!(accepted.coding, Some(Gzip), "the first that is offered");
    }

    /// `None` if it is longer than `max`.
    fn decode(encoded: &[u8], coding: Coding, max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        let whole = super::decode(encoded, coding, |piece| {
            body.extend_from_slice(piece);
            body.len() <= max
        });
        Ok(whole?.then_some(body))
    }

    #[test]
    fn what_is_encoded_decodes_to_itself_within_a_bound() {
        let settings = EncodingSettings { offer: vec![], min_size: 0, zstd_level: 3, br_level: 5, gzip_level: 6 };
        let body = b"[{\"id\":1,\"messages\":[]}]".repeat(400);
        for coding in Coding::ALL {
            let encoded = encode(&body, coding, &settings).unwrap();
            assert!(encoded.len() < body.len() / 10, "{}: {}", coding.name(), encoded.len());
            assert_eq!(decode(&encoded, coding, body.len()).unwrap().as_ref(), Some(&body));
            assert_eq!(decode(&encoded, coding, body.len() - 1).unwrap(), None, "a bomb is not unpacked");
            assert!(decode(&encoded[..encoded.len() / 2], coding, 1 << 20).is_err(), "half of it is none");
            assert!(decode(b"not encoded", coding, 1 << 20).is_err());
        }
    }

    #[test]
    fn the_coding_of_a_body() {
        let head = |fields: &[&'static str]| -> HeaderMap {
            fields.iter().map(|field| (header::CONTENT_ENCODING, HeaderValue::from_static(field))).collect()
        };
        assert_eq!(coding_of(&head(&[])), Ok(None));
        assert_eq!(coding_of(&head(&["identity"])), Ok(None));
        assert_eq!(coding_of(&head(&["br"])), Ok(Some(Coding::Brotli)));
        assert_eq!(coding_of(&head(&["gzip, br"])), Err(NotUnderstood));
        assert_eq!(coding_of(&head(&["gzip", "br"])), Err(NotUnderstood));
        assert_eq!(coding_of(&head(&["deflate"])), Err(NotUnderstood));
    }
}

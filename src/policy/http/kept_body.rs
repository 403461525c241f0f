//! A body as it is kept: plain, or compressed as long as it is kept (`cache.compress`).

use std::io;

use bytes::Bytes;

use super::encoding::{Coding, decode};
use super::pieces::Pieces;

/// `cache.compress`: how lists are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// As they are sent to clients without a coding.
    Off,
    /// In zstd, at `encoding.zstd_level`.
    Zstd,
}

/// The body of an answer, whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeptBody {
    /// Without coding.
    Plain(Pieces),
    /// In zstd: sent so to whoever takes it, and unpacked for everybody else.
    Packed(Box<Packed>),
}

/// A body in zstd. In a box: most are plain, and an answer is as large as its largest form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packed {
    /// The body in zstd.
    coded: Pieces,
    /// How long it is without coding.
    length: usize,
}

impl From<Pieces> for KeptBody {
    fn from(body: Pieces) -> Self {
        Self::Plain(body)
    }
}

impl From<Bytes> for KeptBody {
    fn from(body: Bytes) -> Self {
        Self::Plain(body.into())
    }
}

impl KeptBody {
    /// A body that is as long as this without coding, in zstd; none if that saves less than an eighth.
    pub fn packed(coded: impl Into<Pieces>, length: usize) -> Option<Self> {
        let coded = coded.into();
        (coded.len() + length / 8 <= length).then(|| Self::Packed(Box::new(Packed { coded, length })))
    }

    /// How many bytes it has without coding.
    pub fn length(&self) -> usize {
        match self {
            Self::Plain(body) => body.len(),
            Self::Packed(packed) => packed.length,
        }
    }

    /// The bytes that are kept.
    pub fn kept(&self) -> &Pieces {
        match self {
            Self::Plain(body) => body,
            Self::Packed(packed) => &packed.coded,
        }
    }

    /// The same body, with its bytes where `to` puts them.
    #[must_use]
    pub fn moved(self, to: impl FnOnce(Pieces) -> Pieces) -> Self {
        match self {
            Self::Plain(body) => Self::Plain(to(body)),
            Self::Packed(packed) => Self::Packed(Box::new(Packed { coded: to(packed.coded), length: packed.length })),
        }
    }

    /// The coding in which it is kept, if it is in one.
    pub fn coding(&self) -> Option<Coding> {
        match self {
            Self::Plain(_) => None,
            Self::Packed(_) => Some(Coding::Zstd),
        }
    }

    /// Gives it without coding, piece by piece, for as long as `take` takes it.
    ///
    /// # Errors
    /// If what is kept is not zstd.
    pub fn unpack(&self, take: impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
        match self {
            Self::Plain(body) => Ok(body.all().into_iter().all(take)),
            Self::Packed(packed) => decode(&packed.coded.joined(), Coding::Zstd, take),
        }
    }

    /// All of it without coding, outside any budget of memory.
    ///
    /// # Errors
    /// If what is kept is not zstd.
    pub fn plain(&self) -> io::Result<Bytes> {
        if let Self::Plain(body) = self {
            return Ok(body.to_bytes());
        }
        let mut plain = Vec::with_capacity(self.length());
        self.unpack(|piece| {
            plain.extend_from_slice(piece);
            true
        })?;
        Ok(plain.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::http::encoding::{EncodingSettings, encode};

    #[test]
    fn a_packed_body_unpacks_to_itself_and_one_that_saves_nothing_is_not_packed() {
        let settings = EncodingSettings { offer: vec![], min_size: 0, zstd_level: 3, br_level: 5, gzip_level: 6 };
        let plain: Bytes = b"the same words again ".repeat(3000).into();
        let coded: Bytes = encode(&plain, Coding::Zstd, &settings).unwrap().into();
        let packed = KeptBody::packed(coded.clone(), plain.len()).expect("it is much shorter");
        assert_eq!(
            (packed.length(), packed.kept(), packed.coding()),
            (plain.len(), &coded.clone().into(), Some(Coding::Zstd))
        );
        assert_eq!(packed.plain().unwrap(), plain);
        let mut first = 0;
        let took_all = packed.unpack(|piece| {
            first += piece.len();
            false
        });
        assert!(!took_all.unwrap() && first < plain.len(), "what is not wanted is not unpacked");
        assert_eq!(KeptBody::packed(Bytes::from_static(&[0; 701]), 800), None);
        assert!(KeptBody::packed(Bytes::from_static(&[0; 700]), 800).is_some());
    }
}

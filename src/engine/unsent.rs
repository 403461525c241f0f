//! Kept bodies on their way to a client, without a copy.

use bytes::Bytes;

use super::requests::InFlight;
use crate::policy::http::pieces::Pieces;

/// What of a kept body is still to be sent.
pub struct Unsent {
    pieces: Pieces,
    /// The first of its pieces that was not given.
    next: usize,
    until: Option<InFlight>,
}

impl From<Pieces> for Unsent {
    fn from(pieces: Pieces) -> Self {
        Self { pieces, next: 0, until: None }
    }
}

impl Unsent {
    /// How many bytes that is.
    pub fn length(&self) -> u64 {
        self.pieces.all().iter().skip(self.next).map(|piece| piece.len() as u64).sum()
    }

    /// The same, with the request that is over when the last byte has been taken.
    #[must_use]
    pub fn until(self, request: InFlight) -> Self {
        Self { until: Some(request), ..self }
    }

    /// The next piece with a byte; the last one has the end of the request with it.
    pub fn take(&mut self) -> Option<Bytes> {
        let all = self.pieces.all();
        let place = (self.next..all.len()).find(|place| !all[*place].is_empty())?;
        self.next = place + 1;
        let is_last = self.length() == 0;
        let until = if is_last { self.until.take() } else { None };
        Some(Bytes::from_owner(Piece { pieces: self.pieces.clone(), place, _until: until }))
    }
}

/// One of the pieces, and perhaps the request that it ends.
struct Piece {
    pieces: Pieces,
    place: usize,
    _until: Option<InFlight>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.pieces.all()[self.place]
    }
}

/// Bytes with the request that they answer.
pub(super) fn held_with(bytes: Bytes, until: InFlight) -> Bytes {
    Bytes::from_owner(Held { bytes, _until: until })
}

struct Held {
    bytes: Bytes,
    _until: InFlight,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

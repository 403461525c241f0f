//! Bodies in memory, bounded by bytes in fact: each is counted from before its first byte is read until the last
//! reader has let go of it, whether it is being collected, stored, or evicted and still being sent.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is counted in pieces of this many bytes.
const PIECE: u64 = 1024;
/// The first piece of memory for a body of unknown length.
const FIRST: usize = 64 * 1024;

/// The memory for bodies.
#[derive(Clone, Debug)]
pub struct Memory {
    pieces: Arc<Semaphore>,
    all: usize,
}

/// No memory was free for more of a body of unknown length, or it is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Memory {
    /// So many bytes in all.
    pub fn new(bytes: u64) -> Self {
        let pieces = usize::try_from(bytes / PIECE).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { pieces: Arc::new(Semaphore::new(pieces)), all: pieces }
    }

    /// Room for a body. If its length is known, waits until there is room for all of it, so that of two bodies that
    /// wait for each other's memory none is half collected; the caller limits the wait.
    pub async fn room(&self, length: Option<u64>) -> Collecting {
        let capacity = length.map_or(FIRST, |length| usize::try_from(length).unwrap_or(usize::MAX));
        let held = self.pieces.clone().acquire_many_owned(pieces(capacity)).await.expect("never closed");
        Collecting { bytes: Vec::with_capacity(capacity), held }
    }

    /// Counts a body that was made from another, if there is room.
    pub fn adopt(&self, bytes: Bytes) -> Result<Bytes, Full> {
        let held = self.pieces.clone().try_acquire_many_owned(pieces(bytes.len())).map_err(|_| Full)?;
        Ok(Bytes::from_owner(Adopted { bytes, _held: held }))
    }

    /// Bytes that bodies hold.
    pub fn held(&self) -> u64 {
        self.all.saturating_sub(self.pieces.available_permits()) as u64 * PIECE
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.pieces.available_permits() as u64 * PIECE
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from((bytes as u64).div_ceil(PIECE)).unwrap_or(u32::MAX)
}

/// A body being collected.
#[derive(Debug)]
pub struct Collecting {
    bytes: Vec<u8>,
    held: OwnedSemaphorePermit,
}

impl Collecting {
    /// Adds to it. Grows without waiting: whoever holds memory does not wait for more.
    pub fn push(&mut self, data: &[u8], max: u64) -> Result<(), Full> {
        let needed = self.bytes.len() + data.len();
        if needed as u64 > max {
            return Err(Full);
        }
        if needed > self.bytes.capacity() {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            let doubled = needed.max(self.bytes.capacity().saturating_mul(2)).min(max);
            // Twice the room if there is any, else what is needed now.
            let capacity = [doubled, needed].into_iter().find(|capacity| self.hold(*capacity)).ok_or(Full)?;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// Counts so many bytes in all, if there is room.
    fn hold(&mut self, capacity: usize) -> bool {
        let more = pieces(capacity).saturating_sub(u32::try_from(self.held.num_permits()).unwrap_or(u32::MAX));
        let more = self.held.semaphore().clone().try_acquire_many_owned(more);
        more.map(|more| self.held.merge(more)).is_ok()
    }

    /// The body, counted until the last clone of it is gone.
    pub fn finish(mut self) -> Bytes {
        // A little slack is cheaper than moving the bytes; more is given back.
        if self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8 {
            self.bytes.shrink_to_fit();
        }
        let spare = self.held.num_permits().saturating_sub(pieces(self.bytes.capacity()) as usize);
        drop(self.held.split(spare));
        Bytes::from_owner(self)
    }
}

struct Adopted {
    bytes: Bytes,
    _held: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Adopted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Collecting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[tokio::test]
    async fn a_body_is_counted_until_its_last_reader_is_gone() {
        let memory = Memory::new(100 * KIB as u64);
        let mut collecting = memory.room(Some(10 * KIB as u64)).await;
        collecting.push(&[7; 10 * KIB], u64::MAX).unwrap();
        assert_eq!(memory.free(), 90 * KIB as u64);
        let body = collecting.finish();
        let reader = body.clone();
        drop(body);
        assert_eq!(memory.free(), 90 * KIB as u64);
        assert_eq!(reader.len(), 10 * KIB);
        drop(reader);
        assert_eq!(memory.free(), 100 * KIB as u64);
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_grows_while_there_is_room() {
        let memory = Memory::new(200 * KIB as u64);
        let mut collecting = memory.room(None).await;
        for _ in 0..130 {
            collecting.push(&[1; KIB], 1 << 20).unwrap();
        }
        assert_eq!(collecting.push(&vec![1; 100 * KIB], 1 << 20), Err(Full));
        let body = collecting.finish();
        assert_eq!(body.len(), 130 * KIB);
        assert_eq!(memory.free(), 70 * KIB as u64, "what was not needed is given back");
    }

    #[tokio::test]
    async fn no_body_is_longer_than_allowed() {
        let memory = Memory::new(200 * KIB as u64);
        let mut collecting = memory.room(None).await;
        assert_eq!(collecting.push(&[1; 2 * KIB], KIB as u64), Err(Full));
        assert_eq!(collecting.push(&[1; KIB], KIB as u64), Ok(()));
    }
}

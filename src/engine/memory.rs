//! Bodies in memory, bounded by bytes in fact: each is counted from before its first byte is read until the last
//! reader has let go of it, whether it is being collected, stored, or evicted and still being sent.

use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::allocator::{PAGE, cost, cut};
use crate::policy::http::pieces::{LetGo, Pieces};

/// Memory is counted in pieces of this many bytes.
const PIECE: u64 = 1024;
/// The first piece of memory for a body of unknown length.
pub const FIRST: usize = 64 * 1024;
/// From this many bytes on a body gets pages of its own.
const LONG: usize = 1024 * 1024;

/// The memory for bodies.
#[derive(Clone)]
pub struct Memory {
    pieces: Arc<Semaphore>,
    all: usize,
    let_go: LetGo,
}

/// No memory was free for more of a body of unknown length, or it is longer than allowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Memory {
    /// So many bytes in all.
    pub fn new(bytes: u64) -> Self {
        let pieces = usize::try_from(bytes / PIECE).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let (all, free) = (pieces, Arc::new(Semaphore::new(pieces)));
        let counted = free.clone();
        let let_go = Arc::new(move |bytes| counted.add_permits(self::pieces(bytes) as usize));
        Self { pieces: free, all, let_go }
    }

    /// Room for a body of at most `max` bytes. If its length is known, waits until there is room for all of it, so
    /// that of two bodies that wait for each other's memory none is half collected; the caller limits the wait.
    pub async fn room(&self, length: Option<u64>, max: u64) -> Collecting {
        let usize = |length| usize::try_from(length).unwrap_or(usize::MAX);
        let capacity = length.map_or(FIRST, usize);
        let held = self.pieces.clone().acquire_many_owned(pieces(capacity)).await.expect("never closed");
        Collecting::new(capacity, usize(max), held)
    }

    /// Room for a body of unknown length, at most `max` bytes, if there is any at once: whoever holds memory does not
    /// wait for more.
    pub fn room_now(&self, max: u64) -> Result<Collecting, Full> {
        self.room_at_once(FIRST, max)
    }

    /// The same, with room for so many bytes to begin with.
    pub fn room_at_once(&self, first: usize, max: u64) -> Result<Collecting, Full> {
        let held = self.pieces.clone().try_acquire_many_owned(pieces(first)).map_err(|_| Full)?;
        Ok(Collecting::new(first, usize::try_from(max).unwrap_or(usize::MAX), held))
    }

    /// Counts a body that was made from another, if there is room.
    pub fn adopt(&self, bytes: Bytes) -> Result<Bytes, Full> {
        let held = self.pieces.clone().try_acquire_many_owned(pieces(bytes.len())).map_err(|_| Full)?;
        Ok(Bytes::from_owner(Counted { bytes, _held: held }))
    }

    /// A copy of a body, in pieces that fit the allocator, if there is room. It is counted like every body.
    pub fn keep(&self, body: &[u8]) -> Result<Pieces, Full> {
        if body.len() >= LONG {
            let mut collecting = self.room_at_once(body.len(), body.len() as u64)?;
            collecting.push(body)?;
            return Ok(collecting.finish().into());
        }
        self.pieces.try_acquire_many(pieces(body.len())).map_err(|_| Full)?.forget();
        Ok(Pieces::cut(body, cut(body.len()), self.let_go.clone()))
    }

    /// The same of a body that is counted already; that one itself if it has pages of its own, or there is no room beside it.
    pub fn kept(&self, body: Bytes) -> Pieces {
        if body.len() >= LONG {
            return body.into();
        }
        self.keep(&body).unwrap_or_else(|Full| body.into())
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

/// What a kept body takes of the allocator, or in pages of its own.
pub fn taken(body: &Pieces) -> usize {
    match body.is_cut_at() {
        None => taken_whole(body.len()),
        Some(_) => body.all().iter().map(|piece| cost(piece.len())).sum(),
    }
}

/// What so many bytes take in one piece.
pub fn taken_whole(bytes: usize) -> usize {
    if bytes >= LONG { bytes.next_multiple_of(PAGE) } else { cost(bytes) }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from((bytes as u64).div_ceil(PIECE)).unwrap_or(u32::MAX)
}

/// A body being collected.
#[derive(Debug)]
pub struct Collecting {
    storage: Storage,
    /// How many bytes are counted.
    capacity: usize,
    max: usize,
    held: OwnedSemaphorePermit,
}

/// Where the bytes are.
#[derive(Debug)]
enum Storage {
    /// Short: where the allocator likes.
    Short(Vec<u8>),
    /// Long: pages of their own, which go back to the system when they are let go of. An allocator keeps them, and the
    /// gaps between them are memory that nobody counts. Only pages that were written to take memory.
    Long(Pages),
}

impl Collecting {
    fn new(capacity: usize, max: usize, held: OwnedSemaphorePermit) -> Self {
        let mut this = Self { storage: Storage::Short(Vec::new()), capacity, max, held };
        this.make_room();
        this
    }

    /// Adds to it. Grows without waiting: whoever holds memory does not wait for more.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Full> {
        let read = self.as_ref().len();
        let needed = read + data.len();
        if needed > self.max {
            return Err(Full);
        }
        if needed > self.capacity {
            // Twice as much, or as much as it needs if there is no more.
            let doubled = (self.capacity * 2).clamp(needed, self.max);
            let (capacity, more) =
                [doubled, needed].into_iter().find_map(|to| Some((to, self.more(to)?))).ok_or(Full)?;
            self.held.merge(more);
            self.capacity = capacity;
            self.make_room();
        }
        match &mut self.storage {
            Storage::Short(bytes) => bytes.extend_from_slice(data),
            Storage::Long(Pages { pages, length }) => {
                pages[read..needed].copy_from_slice(data);
                *length = needed;
            }
        }
        Ok(())
    }

    /// What must be counted besides for so many bytes, if it is free.
    fn more(&self, capacity: usize) -> Option<OwnedSemaphorePermit> {
        let more = pieces(capacity).saturating_sub(u32::try_from(self.held.num_permits()).unwrap_or(u32::MAX));
        self.held.semaphore().clone().try_acquire_many_owned(more).ok()
    }

    /// Room for as much as is counted; once it is long, for as much as there may ever be.
    fn make_room(&mut self) {
        let Storage::Short(bytes) = &mut self.storage else { return };
        if self.capacity >= LONG
            && let Ok(mut pages) = MmapMut::map_anon(self.max.max(self.capacity))
        {
            pages[..bytes.len()].copy_from_slice(bytes);
            self.storage = Storage::Long(Pages { pages, length: bytes.len() });
        } else {
            bytes.reserve_exact(self.capacity - bytes.len());
        }
    }

    /// The body, counted until the last clone of it is gone.
    pub fn finish(mut self) -> Bytes {
        let spare = self.held.num_permits().saturating_sub(pieces(self.as_ref().len()) as usize);
        drop(self.held.split(spare));
        let Self { storage, held, .. } = self;
        match storage {
            // Slack is given back; the bytes stay where they are if that is within the allocator's size.
            Storage::Short(bytes) => Bytes::from_owner(Counted { bytes: bytes.into_boxed_slice(), _held: held }),
            Storage::Long(bytes) => Bytes::from_owner(Counted { bytes, _held: held }),
        }
    }
}

/// Bytes that are counted as long as they are there.
struct Counted<B> {
    bytes: B,
    _held: OwnedSemaphorePermit,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Counted<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Pages of its own, so many bytes of them written.
#[derive(Debug)]
struct Pages {
    pages: MmapMut,
    length: usize,
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.pages[..self.length]
    }
}

impl AsRef<[u8]> for Collecting {
    fn as_ref(&self) -> &[u8] {
        match &self.storage {
            Storage::Short(bytes) => bytes,
            Storage::Long(pages) => pages.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn what_a_body_takes_is_known_however_it_is_kept() {
        let memory = Memory::new(16 << 20);
        assert_eq!(taken(&memory.keep(&[0; 12_000]).unwrap()), cost(10_240) + cost(1_760));
        assert_eq!(taken(&Bytes::from(vec![0; 12_000]).into()), cost(12_000));
        assert_eq!(taken(&memory.keep(&vec![0; LONG + 1]).unwrap()), LONG + 4096);
        assert_eq!(taken(&Pieces::default()), 0);
    }

    #[tokio::test]
    async fn a_kept_copy_is_counted_like_every_body() {
        let memory = Memory::new(100 * KIB as u64);
        for bytes in [0, 1, KIB, 40 * KIB] {
            let body: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            let kept = memory.keep(&body).unwrap();
            assert_eq!((memory.held(), &*kept.joined()), (bytes.next_multiple_of(KIB) as u64, &*body));
            let reader = kept.clone();
            drop(kept);
            assert_eq!(memory.held(), bytes.next_multiple_of(KIB) as u64);
            drop(reader);
            assert_eq!(memory.held(), 0);
        }
        let mut collecting = memory.room(Some(60 * KIB as u64), u64::MAX).await;
        collecting.push(&vec![7; 60 * KIB]).unwrap();
        let body = collecting.finish();
        assert_eq!(memory.keep(&body), Err(Full));
        let kept = memory.kept(body);
        assert_eq!((kept.is_cut_at(), memory.held()), (None, 60 * KIB as u64), "there is no room for a copy");
        drop(kept);
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test]
    async fn a_body_is_counted_until_its_last_reader_is_gone() {
        let memory = Memory::new(100 * KIB as u64);
        let mut collecting = memory.room(Some(10 * KIB as u64), u64::MAX).await;
        collecting.push(&[7; 10 * KIB]).unwrap();
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
        let mut collecting = memory.room(None, 1 << 20).await;
        for _ in 0..130 {
            collecting.push(&[1; KIB]).unwrap();
        }
        assert_eq!(collecting.push(&vec![1; 100 * KIB]), Err(Full));
        let body = collecting.finish();
        assert_eq!(body.len(), 130 * KIB);
        assert_eq!(memory.free(), 70 * KIB as u64, "what was not needed is given back");
    }

    #[tokio::test]
    async fn no_body_is_longer_than_allowed() {
        let memory = Memory::new(200 * KIB as u64);
        let mut collecting = memory.room(None, KIB as u64).await;
        assert_eq!(collecting.push(&[1; 2 * KIB]), Err(Full));
        assert_eq!(collecting.push(&[1; KIB]), Ok(()));
    }

    #[tokio::test]
    async fn a_long_body_has_pages_of_its_own_and_keeps_its_bytes() {
        let (memory, long) = (Memory::new(100 << 20), 3 << 20);
        let expected: Vec<u8> = (0..=250).cycle().take(long).collect();
        for length in [None, Some(long as u64)] {
            let mut collecting = memory.room(length, 16 << 20).await;
            for part in expected.chunks(1000 * KIB) {
                collecting.push(part).unwrap();
            }
            let body = collecting.finish();
            assert!(body == expected);
            assert_eq!(memory.free(), (100 << 20) - long as u64);
            drop(body);
            assert_eq!(memory.free(), 100 << 20);
        }
    }
}

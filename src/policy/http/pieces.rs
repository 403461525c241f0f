//! Bytes that are kept: as they came, or cut in two. An allocator rounds what it gives up to one of its sizes, and two pieces
//! may fit these where one does not.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

/// Bytes in at most two pieces, which are never changed. A clone is the same bytes.
#[derive(Clone, Default)]
pub struct Pieces(Option<Arc<Kept>>);

/// Told how many bytes were let go of.
pub type LetGo = Arc<dyn Fn(usize) + Send + Sync>;

enum Kept {
    Whole(Bytes),
    Cut(Cut),
}

// With what `Arc` adds it takes 64 bytes of the allocator.
const _: () = assert!(size_of::<Kept>() + 2 * size_of::<usize>() <= 64);

struct Cut {
    first: Box<[u8]>,
    rest: Box<[u8]>,
    let_go: LetGo,
}

impl Drop for Cut {
    fn drop(&mut self) {
        (self.let_go)(self.first.len() + self.rest.len());
    }
}

impl Pieces {
    /// No more than two.
    pub const MOST: usize = 2;

    /// A copy of these bytes in memory of its own, cut at a place. `let_go` is told when the last clone is gone.
    pub fn cut(bytes: &[u8], at: usize, let_go: LetGo) -> Self {
        let (first, rest) = bytes.split_at(at);
        Self(Some(Arc::new(Kept::Cut(Cut { first: first.into(), rest: rest.into(), let_go }))))
    }

    /// The pieces, in their order; of those that are not there nothing.
    pub fn all(&self) -> [&[u8]; Self::MOST] {
        match self.0.as_deref() {
            None => [&[], &[]],
            Some(Kept::Whole(bytes)) => [bytes, &[]],
            Some(Kept::Cut(cut)) => [&cut.first, &cut.rest],
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.all().iter().map(|piece| piece.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they are cut; none if they are as they came.
    pub fn is_cut_at(&self) -> Option<usize> {
        match self.0.as_deref()? {
            Kept::Whole(_) => None,
            Kept::Cut(cut) => Some(cut.first.len()),
        }
    }

    /// All of them in one piece: a copy if there are two.
    pub fn joined(&self) -> Cow<'_, [u8]> {
        match self.all() {
            [first, []] => first.into(),
            pieces => pieces.concat().into(),
        }
    }

    /// The same as bytes of their own: copied if they were cut.
    pub fn to_bytes(&self) -> Bytes {
        match self.0.as_deref() {
            Some(Kept::Whole(bytes)) => bytes.clone(),
            _ => self.all().concat().into(),
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then(|| Arc::new(Kept::Whole(bytes))))
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// Where they are cut makes no difference.
impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        let is_same = matches!((&self.0, &other.0), (Some(ours), Some(theirs)) if Arc::ptr_eq(ours, theirs));
        is_same || self.len() == other.len() && self.joined() == other.joined()
    }
}

impl Eq for Pieces {}

impl Hash for Pieces {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.joined().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn where_bytes_are_cut_makes_no_difference() {
        let hasher = std::hash::RandomState::new();
        let whole = Pieces::from(Bytes::from_static(b"abcdef"));
        for at in 0..=6 {
            let cut = Pieces::cut(b"abcdef", at, Arc::new(|_| {}));
            assert_eq!(cut, whole);
            assert_eq!(hasher.hash_one(&cut), hasher.hash_one(&whole));
            assert_eq!((cut.len(), cut.is_cut_at(), whole.is_cut_at()), (6, Some(at), None));
            assert_eq!((cut.to_bytes(), &*cut.joined()), (Bytes::from_static(b"abcdef"), &b"abcdef"[..]));
            assert_ne!(cut, Pieces::from(Bytes::from_static(b"abcdeg")));
        }
        assert!(Pieces::default().is_empty() && Pieces::from(Bytes::new()) == Pieces::default());
    }

    #[test]
    fn bytes_are_let_go_of_with_the_last_clone() {
        let gone = Arc::new(AtomicUsize::new(0));
        let count = gone.clone();
        let pieces = Pieces::cut(
            b"abcdef",
            4,
            Arc::new(move |bytes| {
                count.fetch_add(bytes, Ordering::Relaxed);
            }),
        );
        let other = pieces.clone();
        drop(pieces);
        assert_eq!(gone.load(Ordering::Relaxed), 0);
        drop(other);
        assert_eq!(gone.load(Ordering::Relaxed), 6);
    }
}

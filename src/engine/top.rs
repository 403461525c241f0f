//! Who asks most: counted only while somebody watches, so that a request pays for it with one look at a number.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::policy::heavy::Heavy;

/// How many are counted for each who watches: about 300 KB.
const CONTACTS: usize = 4096;
const INBOXES: usize = 512;
/// How many may watch at once: the private listener takes eight connections, and those that ask for health come first.
const WATCHING: usize = 3;

/// One request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The hash of the inbox.
    pub inbox: u64,
    /// The hash of the contact.
    pub contact: u64,
    /// Bytes of the answer.
    pub bytes: u64,
    /// It was not from memory.
    pub is_miss: bool,
}

/// What was seen while somebody watched.
#[derive(Debug)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Those among them that could not be counted further, since others were just being counted.
    pub skipped: u64,
    /// By inbox.
    pub inboxes: Heavy<u64>,
    /// By contact.
    pub contacts: Heavy<u64>,
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Top {
    watching: AtomicUsize,
    skipped: AtomicU64,
    seen: Mutex<Vec<(u64, Seen)>>,
    next: AtomicU64,
}

/// Somebody who watches: what comes is counted until this goes.
pub struct Watch {
    top: Arc<Top>,
    id: u64,
    /// What had been skipped before.
    skipped: u64,
}

impl Top {
    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Relaxed) > 0
    }

    /// Watches from now on; none if enough do.
    pub fn watch(self: &Arc<Self>) -> Option<Watch> {
        let mut seen = self.lock();
        if seen.len() >= WATCHING {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (inboxes, contacts) = (Heavy::new(INBOXES), Heavy::new(CONTACTS));
        seen.push((id, Seen { requests: 0, skipped: 0, inboxes, contacts }));
        self.watching.store(seen.len(), Ordering::Relaxed);
        Some(Watch { top: self.clone(), id, skipped: self.skipped.load(Ordering::Relaxed) })
    }

    /// A request has ended. Nobody waits for being counted.
    pub fn count(&self, asked: Asked) {
        let mut seen = match self.seen.try_lock() {
            Ok(seen) => seen,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.skipped.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        for (_, seen) in &mut *seen {
            seen.requests += 1;
            seen.inboxes.count(asked.inbox, asked.bytes, asked.is_miss);
            seen.contacts.count(asked.contact, asked.bytes, asked.is_miss);
        }
    }

    /// Held for a moment; a panic while it is held leaves the tables whole enough for figures.
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Seen)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, id: u64) -> Option<Seen> {
        let mut seen = self.lock();
        let at = seen.iter().position(|(other, _)| *other == id)?;
        let (_, taken) = seen.swap_remove(at);
        self.watching.store(seen.len(), Ordering::Relaxed);
        Some(taken)
    }
}

impl Watch {
    /// What has been seen; nothing more is counted for this.
    pub fn end(self) -> Option<Seen> {
        let skipped = self.top.skipped.load(Ordering::Relaxed) - self.skipped;
        let seen = self.top.take(self.id)?;
        Some(Seen { requests: seen.requests + skipped, skipped, ..seen })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.top.take(self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(contact: u64) -> Asked {
        Asked { inbox: contact / 10, contact, bytes: 100, is_miss: contact == 11 }
    }

    #[test]
    fn each_sees_what_came_while_it_watched() {
        let top = Arc::new(Top::default());
        assert!(!top.is_watched());
        top.count(asked(11));
        let first = top.watch().unwrap();
        assert!(top.is_watched());
        top.count(asked(11));
        let second = top.watch().unwrap();
        top.count(asked(12));
        top.count(asked(11));
        let (first, second) = (first.end().unwrap(), second.end().unwrap());
        assert_eq!((first.requests, second.requests, first.skipped), (3, 2, 0));
        let contacts = first.contacts.first(9, |counted| counted.requests);
        assert_eq!(
            contacts.iter().map(|(who, counted)| (*who, counted.requests, counted.misses)).collect::<Vec<_>>(),
            [(11, 2, 2), (12, 1, 0)]
        );
        assert_eq!((second.inboxes.len(), second.inboxes.first(1, |counted| counted.bytes)[0].1.bytes), (1, 200));
        assert!(!top.is_watched(), "nobody pays for nobody");
    }

    #[test]
    fn who_leaves_is_forgotten_and_only_a_few_may_watch() {
        let top = Arc::new(Top::default());
        let watches: Vec<Watch> = (0..WATCHING).map(|_| top.watch().unwrap()).collect();
        assert!(top.watch().is_none());
        drop(watches);
        assert!(!top.is_watched() && top.watch().is_some());
    }

    #[test]
    fn nobody_waits_for_being_counted() {
        let top = Arc::new(Top::default());
        let watch = top.watch().unwrap();
        let held = top.lock();
        top.count(asked(1));
        drop(held);
        let seen = watch.end().unwrap();
        assert_eq!((seen.requests, seen.skipped, seen.contacts.is_empty()), (1, 1, true));
    }
}

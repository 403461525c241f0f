//! A bounded memory of what was used last. Of the size of what is in it and little more: a cache for many readers at once
//! takes some 230 bytes for each thing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

/// Parts with a lock of their own.
const PARTS: usize = 16;

/// Things by the hash of their names; what was not used for the longest time makes room.
pub struct Recent<V> {
    parts: Box<[Mutex<Part<V>>]>,
}

struct Part<V> {
    things: LruCache<u64, V>,
    /// Something has made room.
    has_forgotten: bool,
}

impl<V> Recent<V> {
    /// With room for so many.
    pub fn new(most: usize) -> Self {
        let part = || Part { things: LruCache::new(most.div_ceil(PARTS)), has_forgotten: false };
        Self { parts: (0..PARTS).map(|_| Mutex::new(part())).collect() }
    }

    /// What is known by this name, as far as it is `wanted`.
    pub fn get<T>(&self, name: u64, wanted: impl FnOnce(&V) -> T) -> Option<T> {
        self.part(name).things.get(&name).map(wanted)
    }

    /// This is known from now on.
    pub fn insert(&self, name: u64, value: V) {
        self.part(name).insert(name, value);
    }

    /// Puts something in the place of what is known, unless `change` gives nothing; nobody else changes it meanwhile. It is
    /// told what is known, and whether something of this part was ever forgotten: perhaps this, before it was known again.
    pub fn change(&self, name: u64, change: impl FnOnce(Option<&V>, bool) -> Option<V>) {
        let mut part = self.part(name);
        let Part { things, has_forgotten } = &mut *part;
        if let Some(value) = change(things.get(&name), *has_forgotten) {
            part.insert(name, value);
        }
    }

    /// Held briefly; a panic while it is held leaves it whole.
    fn part(&self, name: u64) -> MutexGuard<'_, Part<V>> {
        let part = &self.parts[usize::try_from(name % PARTS as u64).expect("a few")];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Part<V> {
    fn insert(&mut self, name: u64, value: V) {
        let before = self.things.len();
        let is_new = self.things.insert(name, value).is_none();
        self.has_forgotten |= is_new && self.things.len() == before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let recent = Recent::new(3 * PARTS);
        // All in one part.
        let of = |number: u64| number * PARTS as u64;
        let is_forgetful = |name| {
            let mut told = None;
            recent.change(name, |known, is_forgetful| {
                told = Some((known.is_some(), is_forgetful));
                None
            });
            told
        };
        for number in 0..3 {
            recent.insert(of(number), number);
            recent.insert(of(number), number);
        }
        assert_eq!(recent.get(of(0), |number| *number), Some(0));
        assert_eq!(is_forgetful(of(7)), Some((false, false)));
        recent.insert(of(3), 3);
        let told = [(true, true), (false, true), (false, true)].map(Some);
        assert_eq!([0, 1, 7].map(|number| is_forgetful(of(number))), told);
        assert_eq!(is_forgetful(of(7) + 1), Some((false, false)), "nothing was forgotten there");
        let known = |number| recent.get(of(number), |number| *number);
        assert_eq!([0, 1, 2, 3].map(known), [Some(0), None, Some(2), Some(3)]);
        recent.change(of(2), |known, _| known.map(|number| number + 10));
        recent.change(of(3), |_, _| None);
        assert_eq!([2, 3].map(known), [Some(12), Some(3)]);
    }
}

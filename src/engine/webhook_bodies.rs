//! Bodies that anybody may send: read within a memory of their own. If it is full, whoever began first makes room.
//!
//! What is meant honestly is here at once; what takes long is slow or means harm. So a crowd of senders that never end
//! keeps nobody out: each newcomer takes the place of the one that has been at it for the longest.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::memory::{Collecting, Full, Memory};

/// The memory for such bodies, and who holds some of it.
pub struct WebhookBodies {
    memory: Memory,
    /// The longest that a body may be.
    max: u64,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    count: u64,
    /// In the order in which their first bytes came.
    bodies: BTreeMap<u64, Collecting>,
}

/// One body being read. Dropped, it leaves nothing behind.
pub struct WebhookBody<'s> {
    among: &'s WebhookBodies,
    /// None before the first byte: who has sent nothing holds nothing.
    place: Option<u64>,
}

impl WebhookBodies {
    /// So many bytes for all together, and at most `max` for each.
    pub fn new(bytes: u64, max: u64) -> Self {
        Self { memory: Memory::new(bytes), max, inside: Mutex::default() }
    }

    /// A body that is about to come.
    pub fn enter(&self) -> WebhookBody<'_> {
        WebhookBody { among: self, place: None }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WebhookBody<'_> {
    /// Adds to it. `Full`: it is longer than allowed, or had to make room.
    pub fn push(&mut self, data: &[u8]) -> Result<(), Full> {
        let Inside { count, bodies } = &mut *self.among.inside();
        if let Some(place) = self.place {
            loop {
                let body = bodies.get_mut(&place).ok_or(Full)?;
                if (body.as_ref().len() + data.len()) as u64 > self.among.max {
                    return Err(Full);
                }
                if body.push(data).is_ok() {
                    return Ok(());
                }
                // Perhaps it is this one itself.
                bodies.pop_first();
            }
        }
        if data.len() as u64 > self.among.max {
            return Err(Full);
        }
        let mut body = loop {
            match self.among.memory.room_at_once(data.len(), self.among.max) {
                Ok(body) => break body,
                // What is left may be held by bodies that were read and are being looked at.
                Err(Full) => drop(bodies.pop_first().ok_or(Full)?),
            }
        };
        body.push(data)?;
        *count += 1;
        bodies.insert(*count, body);
        self.place = Some(*count);
        Ok(())
    }

    /// The body, counted until the last clone of it is gone. `Full`: it had to make room.
    pub fn finish(self) -> Result<Bytes, Full> {
        let Some(place) = self.place else { return Ok(Bytes::new()) };
        let body = self.among.inside().bodies.remove(&place);
        body.map(Collecting::finish).ok_or(Full)
    }
}

impl Drop for WebhookBody<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.among.inside().bodies.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn a_body_is_counted_while_it_is_there_and_no_longer() {
        let webhook_bodies = WebhookBodies::new(16 << 10, 4 << 10);
        let mut one = webhook_bodies.enter();
        assert_eq!(webhook_bodies.memory.held(), 0, "who has sent nothing holds nothing");
        one.push(b"half").unwrap();
        assert_eq!(webhook_bodies.memory.held(), 1 << 10);
        let mut other = webhook_bodies.enter();
        other.push(&[1; 2 * KIB]).unwrap();
        drop(other);
        assert_eq!(webhook_bodies.memory.held(), 1 << 10, "who leaves takes all with him");
        one.push(b" and half").unwrap();
        let body = one.finish().unwrap();
        assert_eq!(body, &b"half and half"[..]);
        drop(body);
        assert_eq!(webhook_bodies.memory.held(), 0);
        assert_eq!(webhook_bodies.enter().finish().unwrap(), Bytes::new());
    }

    #[test]
    fn none_is_longer_than_allowed_and_its_length_drives_nobody_out() {
        let webhook_bodies = WebhookBodies::new(4 << 10, 4 << 10);
        let mut first = webhook_bodies.enter();
        first.push(&[1; KIB]).unwrap();
        assert_eq!(webhook_bodies.enter().push(&[1; 4 * KIB + 1]), Err(Full));
        let mut long = webhook_bodies.enter();
        long.push(&[1; KIB]).unwrap();
        assert_eq!(long.push(&[1; 3 * KIB + 1]), Err(Full));
        assert_eq!(first.finish().unwrap().len(), KIB);
    }

    #[test]
    fn whoever_began_first_makes_room_for_those_who_come_and_for_those_who_grow() {
        let webhook_bodies = WebhookBodies::new(8 << 10, 4 << 10);
        let mut slow: Vec<WebhookBody<'_>> = (0..8).map(|_| webhook_bodies.enter()).collect();
        for one in &mut slow {
            one.push(b"{").unwrap();
        }
        assert_eq!(webhook_bodies.memory.free(), 0);
        let mut new = webhook_bodies.enter();
        new.push(&[2; 2 * KIB]).unwrap();
        new.push(&[2; 2 * KIB]).unwrap();
        let body = new.finish().unwrap();
        assert!(body == [2; 4 * KIB][..]);
        for (at, mut one) in slow.drain(..).enumerate() {
            assert_eq!(one.push(b"}").is_ok(), at >= 4, "{at}");
            assert_eq!(one.finish().is_ok(), at >= 4, "{at}");
        }
        drop(body);
        assert_eq!(webhook_bodies.memory.held(), 0);
    }

    #[test]
    fn one_that_fills_everything_by_itself_ends_itself() {
        let webhook_bodies = WebhookBodies::new(2 << 10, 4 << 10);
        let mut one = webhook_bodies.enter();
        one.push(&[1; 2 * KIB]).unwrap();
        assert_eq!(one.push(&[1; KIB]), Err(Full));
        assert_eq!(webhook_bodies.memory.held(), 0);
        // Bodies that were read already cannot make room.
        let mut whole = webhook_bodies.enter();
        whole.push(&[1; 2 * KIB]).unwrap();
        let whole = whole.finish().unwrap();
        assert_eq!(webhook_bodies.enter().push(b"{"), Err(Full));
        drop(whole);
        assert_eq!(webhook_bodies.enter().push(b"{"), Ok(()));
    }
}

//! The places of what an answer is made from, as it keeps them: most have few, and no memory besides.

use std::ops::Deref;

use super::allocator::size_class;
use crate::policy::coherence::ledger::Place;

/// A list of one conversation has seven.
const FEW: usize = 7;

/// Places, never changed.
#[derive(Clone, Debug)]
pub struct Places(Kept);

#[derive(Clone, Debug)]
enum Kept {
    /// So many of these.
    Few(u8, [Place; FEW]),
    Many(Box<[Place]>),
}

const _: () = assert!(size_of::<Places>() <= 32);

impl Places {
    /// Bytes of the allocator besides itself.
    pub fn weight(&self) -> usize {
        match &self.0 {
            Kept::Few(..) => 0,
            Kept::Many(places) => size_class(size_of_val(&**places)),
        }
    }
}

impl From<Box<[Place]>> for Places {
    fn from(places: Box<[Place]>) -> Self {
        let few = places.first().and_then(|first| Some(([*first; FEW], u8::try_from(places.len()).ok()?)));
        Self(match few {
            Some((mut few, count)) if places.len() <= FEW => {
                few[..places.len()].copy_from_slice(&places);
                Kept::Few(count, few)
            }
            _ => Kept::Many(places),
        })
    }
}

impl Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        match &self.0 {
            Kept::Few(count, places) => &places[..usize::from(*count)],
            Kept::Many(places) => places,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::coherence::ledger::{Ledger, Scope};

    #[test]
    fn places_are_the_same_few_or_many() {
        let ledger = Ledger::new(1 << 10, [1, 2]);
        for count in 0..20 {
            let places: Vec<Place> = (0..count).map(|contact| ledger.place(&Scope::Contact(contact))).collect();
            let kept = Places::from(Box::from(&*places));
            assert_eq!(*kept, *places);
            assert_eq!(kept.weight() > 0, places.len() > FEW);
        }
    }
}

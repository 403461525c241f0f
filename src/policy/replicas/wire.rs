//! What replicas tell each other: batches of changes as bytes. Whatever cannot be read means that everything has changed,
//! which costs fetches and is never wrong.

/// The longest batch, in bytes.
pub const LONGEST_BATCH: usize = 64 * 1024;
/// Places of one item at most: 8 KiB.
const PLACES_OF_ITEM: usize = 2000;
/// The form of a batch.
const VERSION: u8 = 1;
/// Kind, flags, how long it is unsettled, how many places.
const HEAD: usize = 1 + 1 + 4 + 2;

const PLACES: u8 = 1;
const EVERYTHING: u8 = 2;
const HEARD: u8 = 3;
const MOVES: u8 = 4;
const MOVED: u8 = 5;
/// What was made from it is gone, not only out of date.
const GONE: u8 = 1;
/// It was told in a log that was lost.
const AGAIN: u8 = 2;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// What is made from these places is out of date.
    Places {
        /// Numbers of places of the ledger, whose keys all replicas share.
        places: Vec<u32>,
        /// For how many milliseconds it may go on changing.
        settle: u32,
        /// Whether it was purged.
        gone: bool,
    },
    /// Everything is out of date.
    Everything {
        /// Whether it was purged.
        gone: bool,
    },
    /// A webhook has come that tells of messages.
    Heard,
    /// A write is about to change whose sources are: until its end a change of one of these may be one of all.
    Moves {
        /// Where it is written whose they are, and what is made from whom it concerns.
        places: Vec<u32>,
        /// For how many milliseconds at most.
        at_most: u32,
        /// Whether a log that was lost has told of it, too: it began before all that this one tells.
        again: bool,
    },
    /// That write has ended.
    Moved {
        /// The same.
        places: Vec<u32>,
    },
}

/// A batch as it is sent. None of at most [`LONGEST_BATCH`] bytes is everything.
pub fn encode(items: &[Item]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for item in items {
        match item {
            Item::Places { places, settle, gone } => {
                for places in places.chunks(PLACES_OF_ITEM) {
                    head(&mut bytes, PLACES, flag(*gone), *settle, places.len());
                    bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
                }
            }
            Item::Everything { gone } => head(&mut bytes, EVERYTHING, flag(*gone), 0, 0),
            Item::Heard => head(&mut bytes, HEARD, 0, 0, 0),
            Item::Moves { places, at_most, again } => move_of(&mut bytes, MOVES, *again, *at_most, places),
            Item::Moved { places } => move_of(&mut bytes, MOVED, false, 0, places),
        }
    }
    if bytes.len() > LONGEST_BATCH {
        let gone =
            items.iter().any(|item| matches!(item, Item::Places { gone: true, .. } | Item::Everything { gone: true }));
        return encode(&[Item::Everything { gone }, Item::Heard]);
    }
    bytes
}

fn flag(gone: bool) -> u8 {
    if gone { GONE } else { 0 }
}

/// One item in one piece. Nobody is behind so many places.
fn move_of(bytes: &mut Vec<u8>, kind: u8, again: bool, at_most: u32, places: &[u32]) {
    if places.len() > PLACES_OF_ITEM {
        return head(bytes, EVERYTHING, 0, 0, 0);
    }
    head(bytes, kind, if again { AGAIN } else { 0 }, at_most, places.len());
    bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
}

fn head(bytes: &mut Vec<u8>, kind: u8, flags: u8, settle: u32, places: usize) {
    bytes.extend([kind, flags]);
    bytes.extend(settle.to_le_bytes());
    bytes.extend(u16::try_from(places).expect("an item has fewer places").to_le_bytes());
}

/// The changes of a batch; `places` is how many the ledger has. What another release has written is understood as far as
/// it can be, and otherwise as everything.
pub fn decode(bytes: &[u8], places: u32) -> Vec<Item> {
    read(bytes, places).unwrap_or_else(|| vec![Item::Everything { gone: false }])
}

fn read(bytes: &[u8], limit: u32) -> Option<Vec<Item>> {
    let (&version, mut rest) = bytes.split_first()?;
    if version != VERSION || bytes.len() > LONGEST_BATCH {
        return None;
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (head, after) = rest.split_at_checked(HEAD)?;
        let settle = u32::from_le_bytes(head[2..6].try_into().ok()?);
        let count = usize::from(u16::from_le_bytes(head[6..8].try_into().ok()?));
        let (listed, after) = after.split_at_checked(4 * count)?;
        rest = after;
        let places: Vec<u32> =
            listed.chunks_exact(4).map(|place| u32::from_le_bytes([place[0], place[1], place[2], place[3]])).collect();
        let gone = head[1] & GONE != 0;
        let are_places = places.iter().all(|place| *place < limit);
        items.push(match head[0] {
            PLACES if are_places => Item::Places { places, settle, gone },
            MOVES if are_places => Item::Moves { places, at_most: settle, again: head[1] & AGAIN != 0 },
            MOVED if are_places => Item::Moved { places },
            HEARD => Item::Heard,
            _ => Item::Everything { gone },
        });
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items() -> impl Strategy<Value = Vec<Item>> {
        let places = (proptest::collection::vec(0..1_000_u32, 0..20), any::<u32>(), any::<bool>())
            .prop_map(|(places, settle, gone)| Item::Places { places, settle, gone });
        let moved = || proptest::collection::vec(0..1_000_u32, 0..20);
        let item = prop_oneof![
            places,
            any::<bool>().prop_map(|gone| Item::Everything { gone }),
            Just(Item::Heard),
            (moved(), any::<u32>(), any::<bool>()).prop_map(|(places, at_most, again)| Item::Moves {
                places,
                at_most,
                again
            }),
            moved().prop_map(|places| Item::Moved { places }),
        ];
        proptest::collection::vec(item, 0..10)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(items in items()) {
            let told: Vec<Item> =
                items.into_iter().filter(|item| !matches!(item, Item::Places { places, .. } if places.is_empty())).collect();
            prop_assert_eq!(decode(&encode(&told), 1_000), told);
        }

        #[test]
        fn any_bytes_are_read_within_their_length(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), is_version in any::<bool>()) {
            if let (Some(first), true) = (bytes.first_mut(), is_version) {
                *first = VERSION;
            }
            let read = decode(&bytes, 1_000);
            prop_assert!(read.len() <= 1 + bytes.len() / HEAD);
            for item in read {
                if let Item::Places { places, .. } = item {
                    prop_assert!(places.iter().all(|place| *place < 1_000));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_everything() {
        let everything = vec![Item::Everything { gone: false }];
        let places = encode(&[Item::Places { places: vec![7], settle: 0, gone: false }]);
        let other_kind = [&[VERSION, 9, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4][..], &places[1..]].concat();
        for (bytes, expected) in [
            (&b""[..], everything.clone()),
            (b"\x02", everything.clone()),
            (b"\x01\x01", everything.clone()),
            (&places[..places.len() - 1], everything.clone()),
            (&vec![VERSION; LONGEST_BATCH + 1], everything.clone()),
        ] {
            assert_eq!(decode(bytes, 8), expected);
        }
        assert_eq!(decode(&places, 7), everything, "there is no such place");
        let after = Item::Places { places: vec![7], settle: 0, gone: false };
        assert_eq!(decode(&other_kind, 8), [Item::Everything { gone: false }, after], "what follows is read");
    }

    #[test]
    fn more_than_a_batch_holds_is_everything() {
        let many = |gone| Item::Places { places: (0..20_000).collect(), settle: 5, gone };
        assert_eq!(decode(&encode(&[many(false)]), 1 << 20), [Item::Everything { gone: false }, Item::Heard]);
        assert_eq!(decode(&encode(&[many(true)]), 1 << 20), [Item::Everything { gone: true }, Item::Heard]);
        let fewer = Item::Places { places: (0..5_000).collect(), settle: 5, gone: false };
        assert_eq!(decode(&encode(&[fewer]), 1 << 20).len(), 3, "items of 2,000 places");
    }
}

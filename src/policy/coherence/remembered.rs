//! What is remembered of one source: whose it is, and what reads have last shown of it. Many of these are in memory, so each
//! is kept in few bytes.

use std::time::{Duration, Instant};

use super::beliefs::Belief;
use super::ledger::{Moment, Tick};
use super::shown::{About, Came, Known, Shown};

/// What stands in the first byte.
const BELIEVED: u8 = 1;
const SHOWN: u8 = 1 << 1;
const LISTED: u8 = 1 << 2;
const CONFIRMED: u8 = 1 << 3;
const DIFFERED: u8 = 1 << 4;
const PARTIAL: u8 = 1 << 5;

/// What is remembered of one source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// Whose it is, as far as anybody has shown it.
    pub belief: Option<Belief>,
    /// What reads have shown of it; none if nothing was compared yet, or that was forgotten.
    pub shown: Option<Shown>,
}

impl Remembered {
    /// The same in few bytes: 60 to 80 of a contact with one conversation, some 20 more for each further one. Instants count
    /// from `start`, which is before them all.
    pub fn pack(&self, start: Instant) -> Box<[u8]> {
        let mut packed = Writer(vec![self.flags()]);
        let times = self.shown.as_ref().map(Shown::times).unwrap_or_default();
        if self.shown.is_some() {
            packed.times(&times);
        }
        if let Some(Belief { contact, noted, began }) = self.belief {
            let near = Near::of(&times);
            packed.number(contact);
            packed.signed(noted.number().wrapping_sub(near.tick));
            packed.signed(nanoseconds(began.saturating_duration_since(start)).wrapping_sub(near.nanoseconds));
        }
        if let Some(shown) = &self.shown {
            packed.shown(shown, &times);
        }
        packed.0.into()
    }

    /// What was packed with the same `start`.
    pub fn unpack(packed: &[u8], start: Instant) -> Self {
        let read = Self::read(packed, start);
        debug_assert!(read.is_some(), "it was written here");
        // Whoever knows nothing takes everything for changed.
        read.unwrap_or_else(|| Self { belief: None, shown: Some(Shown::forgotten()) })
    }

    /// The belief alone: it stands before what was shown.
    pub fn belief(packed: &[u8], start: Instant) -> Option<Belief> {
        Reader::of(packed)?.beginning(start)?.1
    }

    fn read(packed: &[u8], start: Instant) -> Option<Self> {
        let mut rest = Reader::of(packed)?;
        let (times, belief) = rest.beginning(start)?;
        let shown = if rest.flags & SHOWN == 0 { None } else { Some(rest.shown(&times)?) };
        Some(Self { belief, shown })
    }

    fn flags(&self) -> u8 {
        let shown = self.shown.as_ref();
        let has = |is: bool, flag: u8| if is { flag } else { 0 };
        has(self.belief.is_some(), BELIEVED)
            | has(shown.is_some(), SHOWN)
            | has(shown.is_some_and(|shown| shown.listed.is_some()), LISTED)
            | has(shown.is_some_and(|shown| shown.confirmed.is_some()), CONFIRMED)
            | has(shown.is_some_and(|shown| shown.differed.is_some()), DIFFERED)
            | has(shown.is_some_and(|shown| shown.is_partial), PARTIAL)
    }
}

impl Shown {
    /// When what is known came, each once: most of it with one answer.
    fn times(&self) -> Vec<Came> {
        let all = self.known.iter().map(|known| known.arrived);
        let mut times: Vec<Came> = all.chain(self.listed).chain(self.confirmed).collect();
        times.sort_unstable();
        times.dedup();
        times
    }
}

/// What all of it is close to, mostly: when the first of what is known came.
struct Near {
    tick: u64,
    nanoseconds: u64,
}

impl Near {
    fn of(times: &[Came]) -> Self {
        let (tick, milliseconds) = times.first().map_or((0, 0), |came| (came.tick.number(), came.at.0));
        Self { tick, nanoseconds: milliseconds.wrapping_mul(1_000_000) }
    }
}

/// Nanoseconds fit for 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

struct Writer(Vec<u8>);

impl Writer {
    /// Seven bits in each byte, the lowest first, and whether more follow.
    fn number(&mut self, mut number: u64) {
        loop {
            let low = number.to_le_bytes()[0] & 0x7f;
            number >>= 7;
            if number == 0 {
                return self.0.push(low);
            }
            self.0.push(0x80 | low);
        }
    }

    /// A number that is close to zero on either side of it.
    fn signed(&mut self, number: u64) {
        self.number(number << 1 ^ (number.cast_signed() >> 63).cast_unsigned());
    }

    fn times(&mut self, times: &[Came]) {
        self.number(times.len() as u64);
        for came in times {
            self.number(came.tick.number());
            self.number(came.at.0);
        }
    }

    /// The facts of each time, in the order of the times.
    fn shown(&mut self, shown: &Shown, times: &[Came]) {
        for came in times {
            let facts = || shown.known.iter().filter(|known| known.arrived == *came);
            self.number(facts().count() as u64);
            for Known { about, shows, .. } in facts() {
                self.number(about.0);
                self.0.extend(shows.to_le_bytes());
            }
        }
        for came in shown.listed.iter().chain(&shown.confirmed) {
            self.number(times.iter().position(|time| time == came).unwrap_or_default() as u64);
        }
        if let Some(differed) = shown.differed {
            self.signed(differed.number().wrapping_sub(Near::of(times).tick));
        }
    }
}

/// Gives nothing where nothing is left.
struct Reader<'p> {
    flags: u8,
    rest: &'p [u8],
}

impl<'p> Reader<'p> {
    fn of(packed: &'p [u8]) -> Option<Self> {
        packed.split_first().map(|(flags, rest)| Self { flags: *flags, rest })
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<u64> {
        let number = self.number()?;
        Some(number >> 1 ^ (number & 1).wrapping_neg())
    }

    /// The times, and the belief if there is one.
    fn beginning(&mut self, start: Instant) -> Option<(Vec<Came>, Option<Belief>)> {
        let mut times = Vec::new();
        if self.flags & SHOWN != 0 {
            for _ in 0..self.number()? {
                times.push(Came { tick: Tick::of(self.number()?), at: Moment(self.number()?) });
            }
        }
        let belief = if self.flags & BELIEVED == 0 { None } else { Some(self.belief(&Near::of(&times), start)?) };
        Some((times, belief))
    }

    fn belief(&mut self, near: &Near, start: Instant) -> Option<Belief> {
        let contact = self.number()?;
        let noted = Tick::of(self.signed()?.wrapping_add(near.tick));
        let began = start.checked_add(Duration::from_nanos(self.signed()?.wrapping_add(near.nanoseconds)))?;
        Some(Belief { contact, noted, began })
    }

    fn shown(&mut self, times: &[Came]) -> Option<Shown> {
        let flags = self.flags;
        let mut shown = Shown { is_partial: flags & PARTIAL != 0, ..Shown::default() };
        for arrived in times {
            for _ in 0..self.number()? {
                let about = About(self.number()?);
                let (mark, rest) = self.rest.split_first_chunk()?;
                self.rest = rest;
                shown.known.push(Known { about, shows: u64::from_le_bytes(*mark), arrived: *arrived });
            }
        }
        let mut time = || Some(*times.get(usize::try_from(self.number()?).ok()?)?);
        shown.listed = if flags & LISTED == 0 { None } else { Some(time()?) };
        shown.confirmed = if flags & CONFIRMED == 0 { None } else { Some(time()?) };
        let near = Near::of(times).tick;
        shown.differed = if flags & DIFFERED == 0 { None } else { Some(Tick::of(self.signed()?.wrapping_add(near))) };
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![0..300_u64, any::<u64>()]
    }

    fn came() -> impl Strategy<Value = Came> {
        (numbers(), numbers()).prop_map(|(tick, at)| Came { tick: Tick::of(tick), at: Moment(at) })
    }

    fn shown() -> impl Strategy<Value = Shown> {
        // Few times, as in life.
        let known = (came(), came(), proptest::collection::vec((numbers(), numbers(), any::<bool>()), 0..9));
        let known = known.prop_map(|(one, other, facts)| {
            let at = |first| if first { one } else { other };
            let known = |(about, shows, first)| Known { about: About(about), shows, arrived: at(first) };
            facts.into_iter().map(known).collect::<Vec<_>>()
        });
        (known, of(came()), of(numbers()), of(came()), any::<bool>()).prop_map(
            |(known, listed, differed, confirmed, is_partial)| {
                let differed = differed.map(Tick::of);
                Shown { known, listed, differed, confirmed, is_partial }
            },
        )
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    proptest! {
        #[test]
        fn what_is_unpacked_is_what_was_packed(
            shown in of(shown()),
            belief in of((numbers(), numbers(), 0..1_u64 << 60)),
        ) {
            let start = start();
            let belief = belief.map(|(contact, noted, began)| Belief {
                contact,
                noted: Tick::of(noted),
                began: start + Duration::from_nanos(began),
            });
            let in_order = |mut source: Remembered| {
                source.shown.iter_mut().for_each(|shown| shown.known.sort_by_key(|known| (known.arrived, known.about.0, known.shows)));
                source
            };
            let source = Remembered { belief, shown };
            let packed = source.pack(start);
            prop_assert_eq!(Remembered::belief(&packed, start), belief);
            prop_assert_eq!(in_order(Remembered::unpack(&packed, start)), in_order(source));
        }

        #[test]
        fn a_part_of_it_is_nothing(shown in shown()) {
            let start = start();
            let packed = Remembered { belief: None, shown: Some(shown) }.pack(start);
            for end in 0..packed.len() {
                prop_assert_eq!(Remembered::read(&packed[..end], start), None);
            }
        }
    }

    #[test]
    fn a_contact_with_one_conversation_takes_few_bytes() {
        let start = start();
        // Of a proxy that has run for months.
        let (tick, at) = (1 << 34, 8_640_000_000);
        let arrived = Came { tick: Tick::of(tick), at: Moment(at) };
        let facts = [0, 1].into_iter().map(|fact| 20_000 << 2 | fact).chain([2, 3]);
        let known = facts.map(|about| Known { about: About(about), shows: u64::MAX / 3, arrived }).collect();
        let belief =
            Belief { contact: 5_000_000, noted: Tick::of(tick - 40), began: start + Duration::from_millis(at - 200) };
        let shown = Shown { known, listed: Some(arrived), ..Shown::default() };
        let differed = Some(Tick::of(tick - 1_000_000));
        let changed = Remembered { belief: Some(belief), shown: Some(Shown { differed, ..shown.clone() }) }.pack(start);
        assert!(changed.len() <= 80, "{}", changed.len());
        let packed = Remembered { belief: Some(belief), shown: Some(shown) }.pack(start);
        assert!(packed.len() <= 64, "{}", packed.len());
    }
}

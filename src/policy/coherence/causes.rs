//! What the last changes were: the ledger holds ticks alone, and whoever asks why an answer is out of date wants to know
//! who said so, and when. A fixed ring, written when something is put out of date and never when something is read.

use super::atomic::{AtomicU64, Ordering};
use super::ledger::{Moment, Tick};

/// Ticks that are remembered at most: 128 KiB. A change takes a handful.
const REMEMBERED: u64 = 1 << 14;
/// A slot holds, from the top: which of the ticks that share it, the cause, the moment (of 34 years).
const MOMENT_BITS: u32 = 40;
const CAUSE_BITS: u32 = 4;

/// Who said that something has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A write that passed through.
    Write,
    /// A webhook.
    Webhook,
    /// An event that passed through a WebSocket.
    Cable,
    /// Whoever runs the proxy.
    Purge,
    /// A fetch that was overtaken or given up on.
    Flight,
    /// A list that passed by the cache and differed.
    Bypass,
    /// An answer that shows another contact behind a source than was believed.
    Merge,
    /// An answer to a reader of another origin.
    Variant,
    /// Other settings.
    Settings,
    /// Another replica.
    Replica,
    /// Another read, which shows something newer.
    Shown,
}

impl Cause {
    const ALL: [Self; 11] = [
        Self::Write,
        Self::Webhook,
        Self::Cable,
        Self::Purge,
        Self::Flight,
        Self::Bypass,
        Self::Merge,
        Self::Variant,
        Self::Settings,
        Self::Replica,
        Self::Shown,
    ];

    /// In a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Webhook => "webhook",
            Self::Cable => "cable",
            Self::Purge => "purge",
            Self::Flight => "flight",
            Self::Bypass => "bypass",
            Self::Merge => "merge",
            Self::Variant => "variant",
            Self::Settings => "settings",
            Self::Replica => "replica",
            Self::Shown => "shown",
        }
    }

    /// In a sentence that begins with "out of date by".
    pub fn words(self) -> &'static str {
        match self {
            Self::Write => "a write that passed through this proxy",
            Self::Webhook => "a webhook",
            Self::Cable => "an event that passed through a WebSocket",
            Self::Purge => "a purge",
            Self::Flight => "a fetch that was overtaken or given up on",
            Self::Bypass => "a list that passed by the cache and differed",
            Self::Merge => "an answer that shows another contact behind the identifier",
            Self::Variant => "a newer answer, to a reader of another origin",
            Self::Settings => "settings that were read again",
            Self::Replica => "another replica, or that what the others told was lost",
            Self::Shown => "another read of the same contact, which showed something newer",
        }
    }
}

/// The last changes, by their ticks.
pub struct Causes {
    slots: Box<[AtomicU64]>,
    /// When the latest change was that another has taken the slot of.
    forgotten: AtomicU64,
}

impl Default for Causes {
    fn default() -> Self {
        Self { slots: (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect(), forgotten: AtomicU64::new(0) }
    }
}

impl Causes {
    /// The change of this tick. Each has a slot of its own until as many have come after it.
    pub fn note(&self, tick: Tick, cause: Cause, Moment(now): Moment) {
        let now = now & ((1 << MOMENT_BITS) - 1);
        // One more, so that no slot that was written is zero.
        let word = round_of(tick) << (MOMENT_BITS + CAUSE_BITS) | (cause as u64 + 1) << MOMENT_BITS | now;
        let before = self.slot(tick).swap(word, Ordering::Relaxed);
        // A fetch has a tick and takes no slot, so what is forgotten is seen only here.
        if before != 0 && before >> (MOMENT_BITS + CAUSE_BITS) != round_of(tick) {
            self.forgotten.fetch_max(before & ((1 << MOMENT_BITS) - 1), Ordering::Relaxed);
        }
    }

    /// What the change of this tick was and when, if that is remembered.
    pub fn of(&self, tick: Tick) -> Option<(Cause, Moment)> {
        let word = self.slot(tick).load(Ordering::Relaxed);
        if word >> (MOMENT_BITS + CAUSE_BITS) != round_of(tick) {
            return None;
        }
        let cause = (word >> MOMENT_BITS & ((1 << CAUSE_BITS) - 1)).checked_sub(1)?;
        let cause = Cause::ALL.get(usize::try_from(cause).ok()?)?;
        Some((*cause, Moment(word & ((1 << MOMENT_BITS) - 1))))
    }

    /// What is not remembered was no later than this; the beginning if all is.
    pub fn reach_back_to(&self) -> Moment {
        Moment(self.forgotten.load(Ordering::Relaxed))
    }

    fn slot(&self, tick: Tick) -> &AtomicU64 {
        let at = usize::try_from(tick.number() % REMEMBERED).expect("a place in the ring");
        &self.slots[at]
    }
}

/// How often the ring had been full before this tick, as far as a slot can hold it.
fn round_of(tick: Tick) -> u64 {
    (tick.number() / REMEMBERED) & ((1 << (64 - MOMENT_BITS - CAUSE_BITS)) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::coherence::ledger::{Ledger, Scope};

    #[test]
    fn a_change_is_told_by_its_tick_until_the_ring_is_full() {
        let (ledger, causes) = (Ledger::new(1 << 4, [1, 2]), Causes::default());
        let place = ledger.place(&Scope::Source("a"));
        let first = ledger.invalidate(place);
        assert_eq!(causes.of(first), None, "it is not noted yet");
        causes.note(first, Cause::Write, Moment(7));
        let second = ledger.invalidate(place);
        causes.note(second, Cause::Settings, Moment(9));
        assert_eq!(causes.of(first), Some((Cause::Write, Moment(7))));
        assert_eq!(causes.of(second), Some((Cause::Settings, Moment(9))));
        // A fetch has a tick, too, and no cause.
        assert_eq!(causes.of(ledger.own_tick()), None);
        // Ticks of fetches take nobody's slot: all is remembered.
        while ledger.now().number() < REMEMBERED {
            ledger.own_tick();
        }
        assert_eq!((causes.of(first), causes.reach_back_to()), (Some((Cause::Write, Moment(7))), Moment(0)));
        let third = ledger.invalidate(place);
        causes.note(third, Cause::Webhook, Moment(1000));
        assert_eq!((causes.of(first), causes.reach_back_to()), (None, Moment(7)), "another one has its slot");
        assert_eq!(causes.of(second), Some((Cause::Settings, Moment(9))), "and that of nobody else");
        causes.note(third, Cause::Write, Moment(1001));
        assert_eq!(causes.reach_back_to(), Moment(7), "noted once more, it is not forgotten");
    }

    #[test]
    fn every_cause_comes_back_as_it_went_in() {
        let (ledger, causes) = (Ledger::new(1 << 4, [1, 2]), Causes::default());
        for (at, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at);
            let tick = ledger.own_tick();
            causes.note(tick, cause, Moment((1 << MOMENT_BITS) - 1));
            assert_eq!(causes.of(tick), Some((cause, Moment((1 << MOMENT_BITS) - 1))), "{}", cause.label());
        }
    }
}

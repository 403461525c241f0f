//! What has happened and was not told yet.
//!
//! The world puts an event in when it happens; `deliver` takes out what is due. The queue is long, for a slow receiver
//! must not cost any event of a test.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::stamps::{uuid, wall_clock};
use super::webhooks::{Delivery, Webhook};

/// Deliveries that may wait for their time. One more, and the one longest due is dropped and counted.
const MAX_PENDING: usize = 10_000;

/// The message that a delivery is about: its conversation and its id.
pub(super) type About = (i64, i64);

/// A delivery that waits for its time.
pub(super) struct Job {
    pub(super) delivery: Delivery,
    /// Cancelled when the receiver is taken away or the stand-in stops.
    pub(super) stopped: CancellationToken,
    pub(super) about: Option<About>,
    pub(super) lost: bool,
}

/// A receiver, and the chance that rules over its deliveries.
struct Receiver {
    webhook: Arc<Webhook>,
    stopped: CancellationToken,
    dice: Dice,
}

#[derive(Default)]
struct Queue {
    receivers: Vec<Receiver>,
    /// By the time at which they are due and, at the same time, by the order in which they came.
    due: BTreeMap<(Instant, u64), Job>,
    count: u64,
    dropped: usize,
}

/// Everything that has happened and was not sent yet.
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the sender. It keeps one call for later, so that none is missed.
    changed: Notify,
    /// Ids must be new in every run: a receiver may remember those of the last one.
    run: Duration,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), changed: Notify::new(), run: wall_clock() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this receiver is told, until it is stopped.
    pub(super) fn add(&self, webhook: Webhook, stopped: CancellationToken) {
        let dice = Dice(webhook.trouble.seed);
        self.queue().receivers.push(Receiver { webhook: Arc::new(webhook), stopped, dice });
    }

    /// Takes all receivers away, with what was not sent yet.
    pub(super) fn clear(&self) {
        let queue = &mut *self.queue();
        for receiver in queue.receivers.drain(..) {
            receiver.stopped.cancel();
        }
        queue.due.clear();
    }

    /// Deliveries that were dropped because too many waited.
    pub(super) fn dropped(&self) -> usize {
        self.queue().dropped
    }

    /// Whether anybody wants to know: rendering is not free.
    pub(super) fn is_wanted(&self, event: &str, inbox_id: Option<i64>) -> bool {
        self.queue().receivers.iter().any(|it| it.webhook.wants(event, inbox_id))
    }

    /// Queues an event for everyone who wants it.
    pub(super) fn put(&self, event: &str, inbox_id: Option<i64>, about: Option<About>, body: &Bytes) {
        let now = Instant::now();
        let queue = &mut *self.queue();
        for Receiver { webhook, stopped, dice } in &mut queue.receivers {
            if !webhook.wants(event, inbox_id) {
                continue;
            }
            // Always the same number of throws, so that one event's fate does not change the next one's.
            let (lost, twice) = (dice.unit() < webhook.trouble.lost, dice.unit() < webhook.trouble.twice);
            let delays = [dice.within(&webhook.trouble.delay), dice.within(&webhook.trouble.delay)];
            for delay in delays.into_iter().take(1 + usize::from(twice)) {
                queue.count += 1;
                let id = uuid(&format!("delivery {:?} {}", self.run, queue.count));
                let delivery = Delivery::new(Arc::clone(webhook), event, id, body.clone());
                let job = Job { delivery, stopped: stopped.clone(), about, lost };
                queue.due.insert((now + delay, queue.count), job);
                if queue.due.len() > MAX_PENDING {
                    queue.due.pop_first();
                    queue.dropped += 1;
                }
            }
        }
        self.changed.notify_one();
    }

    /// The next delivery, once it is due.
    pub(super) async fn next(&self) -> Job {
        loop {
            let due = {
                let mut queue = self.queue();
                match queue.due.first_entry() {
                    Some(first) if first.key().0 <= Instant::now() => return first.remove(),
                    Some(first) => Some(first.key().0),
                    None => None,
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = sleep_until(due) => {}
                    () = self.changed.notified() => {}
                },
                None => self.changed.notified().await,
            }
        }
    }
}

/// Chance that can be repeated (SplitMix64).
struct Dice(u64);

impl Dice {
    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0.0 up to but not 1.0.
    fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.throw() >> 32).expect("32 bits");
        f64::from(high) / (f64::from(u32::MAX) + 1.0)
    }

    fn within(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        *range.start() + range.end().saturating_sub(*range.start()).mul_f64(self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::super::webhooks::Trouble;
    use super::*;

    /// An outbox with one receiver and events named by their bodies, as they will leave it.
    fn fates(trouble: Trouble, events: u64) -> (Vec<(Bytes, Duration, bool)>, usize) {
        let outbox = Outbox::new();
        outbox.add(Webhook::account("http://h/").with(trouble), CancellationToken::new());
        let start = Instant::now();
        for event in 0..events {
            outbox.put("message_created", None, None, &event.to_string().into());
        }
        let queue = &mut *outbox.queue();
        let due = std::mem::take(&mut queue.due).into_iter();
        (due.map(|((due, _), job)| (job.delivery.body, due - start, job.lost)).collect(), queue.dropped)
    }

    #[tokio::test(start_paused = true)]
    async fn without_trouble_everything_is_due_at_once_in_its_order() {
        let (fates, dropped) = fates(Trouble::default(), 100);
        assert!(
            fates
                .iter()
                .enumerate()
                .all(|(at, (body, due, lost))| { *body == at.to_string() && due.is_zero() && !lost })
        );
        assert_eq!((fates.len(), dropped), (100, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn chance_changes_the_order_and_can_be_repeated() {
        let delay = Duration::from_secs(1)..=Duration::from_secs(2);
        let trouble = |seed| Trouble { delay: delay.clone(), lost: 0.3, twice: 0.1, seed };
        let (one, _) = fates(trouble(1), 1000);
        assert_eq!(one, fates(trouble(1), 1000).0);
        assert_ne!(one, fates(trouble(2), 1000).0);
        assert!(one.iter().all(|(_, due, _)| delay.contains(due)));
        assert!((1050..1150).contains(&one.len()), "{} of 1000, a tenth twice", one.len());
        let lost = one.iter().filter(|(_, _, lost)| *lost).count() * 10 / one.len();
        assert!((2..4).contains(&lost), "{lost} tenths lost");
        assert!(one.windows(2).any(|pair| pair[0].0.len() > pair[1].0.len()), "a later one overtakes an earlier one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_are_dropped_and_counted() {
        let (fates, dropped) = fates(Trouble::default(), MAX_PENDING as u64 + 5);
        assert_eq!((fates.len(), dropped, &fates[0].0[..]), (MAX_PENDING, 5, &b"5"[..]));
    }
}

//! The ledger under every order in which its atomics may be seen, checked with loom: the very source file of the
//! crate, over loom's atomics.

#![allow(unreachable_pub, reason = "a module of the crate stands in a test binary here")]

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/policy"]
mod policy {
    #[allow(dead_code, reason = "the ledger takes the names of parts from it")]
    pub mod resource;
}

#[allow(dead_code, reason = "not every function of the ledger is used here")]
#[path = "../src/policy/coherence/ledger.rs"]
mod ledger;

use ledger::{Ledger, Place, Scope};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

fn new() -> (Arc<Ledger>, Place) {
    let ledger = Ledger::new(1, [0, 0]);
    let place = ledger.place(&Scope::Contact(1));
    (Arc::new(ledger), place)
}

/// Two writes take ticks 1 and 2 and may reach the place in the other order: the later one must stay.
#[test]
fn the_later_of_two_writes_stays_in_the_place() {
    loom::model(|| {
        let (ledger, place) = new();
        let other = ledger.clone();
        let first = thread::spawn(move || other.invalidate(place));
        let second = ledger.invalidate(place);
        let first = first.join().expect("the writer does not panic");
        let last = first.max(second);
        // A fetch between the two is out of date, one after both is not.
        assert!(ledger.is_current(last, &[place]));
        assert!(!ledger.is_current(first.min(second), &[place]));
        assert_eq!(last, ledger.now());
    });
}

/// A reader who has heard of a write's acknowledgement does not take what was fetched before it, and what was fetched
/// at the noted tick and passes as current holds the write.
#[test]
fn nobody_who_has_heard_of_a_write_gets_an_answer_from_before_it() {
    loom::model(|| {
        let (ledger, place) = new();
        // The upstream commits before the proxy takes its tick; the acknowledgement comes last.
        let data = Arc::new(AtomicU64::new(0));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = {
            let (ledger, data, acknowledged) = (ledger.clone(), data.clone(), acknowledged.clone());
            thread::spawn(move || {
                data.store(1, Ordering::Release);
                ledger.invalidate(place);
                acknowledged.store(1, Ordering::Release);
            })
        };
        let fetch = {
            let (ledger, data) = (ledger.clone(), data.clone());
            thread::spawn(move || {
                let noted = ledger.now();
                (noted, data.load(Ordering::Acquire))
            })
        };
        let heard = acknowledged.load(Ordering::Acquire) == 1;
        let arrived = ledger.now();
        let (noted, read) = fetch.join().expect("the fetch does not panic");
        if heard && ledger.is_current(noted, &[place]) {
            assert_eq!(read, 1, "an answer from before an acknowledged write");
        }
        if heard && arrived <= noted {
            assert_eq!(read, 1, "a reader took a flight that began before a write it had heard of");
        }
        writer.join().expect("the writer does not panic");
    });
}

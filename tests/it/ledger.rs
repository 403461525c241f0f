//! The ledger's rules, one by one; `tests/loom.rs` holds its memory order.

use anteroom::policy::coherence::ledger::{Ledger, Moment, Scope};

fn ledger() -> Ledger {
    Ledger::new(1 << 10, [1, 2])
}

#[test]
fn an_answer_is_current_until_something_it_is_made_from_changes() {
    let ledger = ledger();
    let (mine, other) = (ledger.place(&Scope::Contact(1)), ledger.place(&Scope::Contact(2)));
    assert_ne!(mine, other);
    let noted = ledger.now();
    assert!(ledger.is_current(noted, &[mine, other]));
    ledger.invalidate(other);
    assert!(ledger.is_current(noted, &[mine]));
    assert!(!ledger.is_current(noted, &[mine, other]));
    assert!(ledger.is_current(ledger.now(), &[mine, other]));
}

#[test]
fn everything_is_one_store() {
    let ledger = ledger();
    let noted = ledger.now();
    ledger.invalidate_all();
    assert!(!ledger.is_current(noted, &[]));
    assert!(ledger.is_current(ledger.now(), &[]));
}

#[test]
fn scopes_of_different_kinds_are_different() {
    let ledger = Ledger::new(1 << 20, [3, 4]);
    let scopes = [
        Scope::Source("7"),
        Scope::Contact(7),
        Scope::Conversation("7"),
        Scope::AccountConversation(7, 7),
        Scope::AccountConversation(7, 8),
        Scope::AnyConversation,
        Scope::Missing("7"),
        Scope::Inbox("7"),
        Scope::List("7"),
    ];
    let mut places: Vec<_> = scopes.iter().map(|scope| ledger.place(scope)).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), scopes.len());
}

#[test]
fn unsettled_times_only_grow() {
    let ledger = ledger();
    let place = ledger.place(&Scope::Source("a"));
    assert_eq!(ledger.unsettled_until(&[place]), Moment(0));
    ledger.unsettle(place, Moment(50));
    ledger.unsettle(place, Moment(20));
    assert_eq!(ledger.unsettled_until(&[place]), Moment(50));
}

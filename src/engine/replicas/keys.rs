//! What is made of `replicas.secret`: the keys of the ledger's places, and what shows that two replicas are of one fleet.

use hkdf::Hkdf;
use sha2::Sha256;

use super::settings::{Mode, ReplicasSettings};

/// The keys with which all replicas of a fleet hash scopes: a place is the same for each of them, and names nobody to
/// whoever lacks the secret.
pub fn of_places(settings: &ReplicasSettings) -> [u64; 2] {
    let key: [u8; 16] = derive(settings, b"place");
    let (first, second) = key.split_at(8);
    [first, second].map(|half| u64::from_le_bytes(half.try_into().expect("eight bytes")))
}

/// What is the same for all replicas of a fleet, and another with any other secret, mode or lease.
pub fn of_agreement(settings: &ReplicasSettings) -> [u8; 16] {
    let mode = match settings.mode {
        Mode::Strict => 0_u8,
        Mode::Async => 1,
    };
    let lease = settings.lease.as_millis().to_le_bytes();
    derive(settings, &[&b"agreement"[..], &[mode], &lease].concat())
}

/// The key with which answers are named in Redis.
pub(super) fn of_names(settings: &ReplicasSettings) -> [u8; 32] {
    derive(settings, b"key")
}

/// From which all keys of a fleet are made.
pub(super) fn hkdf(settings: &ReplicasSettings) -> Hkdf<Sha256> {
    Hkdf::new(Some(b"anteroom replicas 1"), settings.secret.key())
}

fn derive<const LENGTH: usize>(settings: &ReplicasSettings, label: &[u8]) -> [u8; LENGTH] {
    let mut key = [0; LENGTH];
    hkdf(settings).expand(label, &mut key).expect("a few bytes");
    key
}

//! Answers that lie in Redis are sealed: whoever reads them there learns nothing, and none that was not sealed by a replica
//! of this fleet, for this key, under these settings, is ever opened.
//!
//! In front of what is sealed stands in clear which epoch and entry its fetch knew, for Redis to compare: it is a part of
//! what the seal is made of. The cipher is ChaCha20-Poly1305, with key and nonce of its own for each value, made from
//! `replicas.secret` and 192 random bits.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::Sha256;

use super::keys::{hkdf, of_names};
use super::settings::ReplicasSettings;
use crate::policy::http::key::Key;
use crate::policy::replicas::exchange::{Epoch, Name};
use crate::policy::replicas::known::Stamp;

/// What a value of this form begins with.
const MAGIC: &[u8; 4] = b"atr1";
const SALT: usize = 24;
/// Digits of an entry's number: Redis compares it as one.
const DIGITS: usize = 16;
const EPOCH: usize = 16;
/// What stands in clear.
pub const HEAD: usize = MAGIC.len() + EPOCH + DIGITS + SALT;
/// What a value is longer than what is sealed.
pub const OVERHEAD: usize = HEAD + 16;
const KEY: usize = 32;

/// Seals and opens.
pub struct Seal {
    hkdf: Hkdf<Sha256>,
    names: Hmac<Sha256>,
    prefix: String,
    random: SystemRandom,
}

impl Seal {
    /// With the secret of the fleet.
    pub fn new(settings: &ReplicasSettings) -> Self {
        let names = Hmac::new_from_slice(&of_names(settings)).expect("any length is good");
        Self { hkdf: hkdf(settings), names, prefix: settings.prefix.clone(), random: SystemRandom::new() }
    }

    /// What the answer to a key, under settings of this fingerprint, is called.
    pub fn name(&self, key: &Key, fingerprint: u64) -> Name {
        let mut names = self.names.clone();
        names.update(&fingerprint.to_be_bytes());
        names.update(key.text().as_bytes());
        let name: [u8; 32] = names.finalize().into_bytes().into();
        name.first_chunk().copied().expect("it is longer")
    }

    /// What begins every value of an epoch.
    pub fn beginning(epoch: &Epoch) -> [u8; MAGIC.len() + EPOCH] {
        let mut beginning = [0; MAGIC.len() + EPOCH];
        beginning[..MAGIC.len()].copy_from_slice(MAGIC);
        beginning[MAGIC.len()..].copy_from_slice(epoch);
        beginning
    }

    /// Random bytes; none if the system has none.
    pub fn draw<const COUNT: usize>(&self) -> Option<[u8; COUNT]> {
        let mut drawn = [0; COUNT];
        self.random.fill(&mut drawn).ok()?;
        Some(drawn)
    }

    /// Seals the answer to a key; none if the system has no random bytes.
    pub fn seal(&self, stamp: Stamp, key: &Key, fingerprint: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let salt: [u8; SALT] = self.draw()?;
        let mut value = Vec::with_capacity(plain.len() + OVERHEAD);
        value.extend(Self::beginning(&stamp.epoch));
        value.extend(format!("{:0DIGITS$}", stamp.seq).bytes());
        value.extend(salt);
        let aad = self.associated(&value, key, fingerprint);
        value.extend_from_slice(plain);
        let (cipher, nonce) = self.cipher(&salt);
        let (_, sealed) = value.split_at_mut(HEAD);
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(aad), sealed).ok()?;
        value.extend_from_slice(tag.as_ref());
        Some(value)
    }

    /// Opens what was sealed for this key: what its fetch knew, and the value with the answer from [`HEAD`] on.
    pub fn open(&self, mut value: Vec<u8>, key: &Key, fingerprint: u64) -> Option<(Stamp, Vec<u8>)> {
        let (head, sealed) = value.split_at_mut_checked(HEAD)?;
        let (magic, rest) = head.split_at(MAGIC.len());
        let (epoch, rest) = rest.split_at(EPOCH);
        let (seq, salt) = rest.split_at(DIGITS);
        let is_number = seq.iter().all(u8::is_ascii_digit);
        let seq = std::str::from_utf8(seq).ok().filter(|_| is_number)?.parse().ok()?;
        let stamp = Stamp { epoch: epoch.try_into().ok()?, seq };
        if magic != MAGIC {
            return None;
        }
        let (cipher, nonce) = self.cipher(salt);
        let aad = self.associated(head, key, fingerprint);
        let length = cipher.open_in_place(nonce, Aad::from(aad), sealed).ok()?.len();
        value.truncate(HEAD + length);
        Some((stamp, value))
    }

    fn cipher(&self, salt: &[u8]) -> (LessSafeKey, Nonce) {
        let mut made = [0; KEY + NONCE_LEN];
        self.hkdf.expand(&[b"value", salt].concat(), &mut made).expect("a few bytes");
        let (key, nonce) = made.split_at(KEY);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("as long as it must be");
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("as long as it must be");
        (LessSafeKey::new(key), nonce)
    }

    /// What is sealed with it though it is not in it. No part holds what comes between.
    fn associated(&self, head: &[u8], key: &Key, fingerprint: u64) -> Vec<u8> {
        [head, &fingerprint.to_be_bytes(), self.prefix.as_bytes(), b"\0\0\0", key.text().as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { epoch: [7; 16], seq: 12 };

    fn seal(secret: &str, prefix: &str) -> Seal {
        Seal::new(&ReplicasSettings::of_nobody(secret, prefix))
    }

    #[test]
    fn what_is_sealed_is_opened_with_the_same_secret_for_the_same_key_and_nothing_else() {
        let (ours, key, plain) = (seal("a secret", "anteroom"), Key::new("inbox", "a", None), b"a list".repeat(9));
        let value = ours.seal(STAMP, &key, 3, &plain).unwrap();
        assert_eq!(value.len(), plain.len() + OVERHEAD);
        assert!(value.starts_with(&Seal::beginning(&STAMP.epoch)));
        assert!(!value.windows(6).any(|bytes| bytes == b"a list"));
        let (stamp, opened) = ours.open(value.clone(), &key, 3).expect("it is ours");
        assert_eq!((stamp, &opened[HEAD..]), (STAMP, &plain[..]));
        let other_key = Key::new("inbox", "b", None);
        for (seal, key, fingerprint) in [
            (&seal("another secret", "anteroom"), &key, 3),
            (&seal("a secret", "other"), &key, 3),
            (&ours, &other_key, 3),
            (&ours, &key, 4),
        ] {
            assert!(seal.open(value.clone(), key, fingerprint).is_none());
        }
        assert_ne!(ours.name(&key, 3), ours.name(&other_key, 3));
        assert_ne!(ours.name(&key, 3), seal("another secret", "anteroom").name(&key, 3));
        assert_ne!(value, ours.seal(STAMP, &key, 3, &plain).unwrap(), "no two are sealed alike");
    }

    #[test]
    fn a_value_of_which_anything_was_changed_is_not_opened() {
        let (ours, key) = (seal("a secret", "anteroom"), Key::new("inbox", "a", None));
        let value = ours.seal(STAMP, &key, 3, b"a list").unwrap();
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(ours.open(changed, &key, 3).is_none(), "byte {at}");
            assert!(ours.open(value[..at].to_vec(), &key, 3).is_none(), "cut at {at}");
        }
        assert!(ours.open([&value[..], b"x"].concat(), &key, 3).is_none());
    }
}

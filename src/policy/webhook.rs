//! Is this webhook genuine (`api.md` section 7.2)?
//!
//! The application signs what it sends: HMAC-SHA256 over the timestamp, a full stop and the raw bytes of the body, keyed
//! with a secret of that webhook. Servers too old to sign are told by a token in the URL.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::secret::Secret;

/// What the receiver of webhooks obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSettings {
    /// `webhook.path`.
    pub path: String,
    /// `webhook.secrets`: any of them will do, so that one can be replaced by another.
    pub secrets: Vec<Secret>,
    /// `webhook.unsigned_token`: for servers too old to sign.
    pub unsigned_token: Option<Secret>,
    /// `webhook.max_age`: how far a signature's time may lie from now, either way.
    pub max_age: Duration,
    /// `webhook.silent_after`: how long after a write that causes a webhook none need have come.
    pub silent_after: Duration,
}

impl WebhookSettings {
    /// Whether webhooks are received at all: not without a secret or a token.
    pub fn are_received(&self) -> bool {
        !self.secrets.is_empty() || self.unsigned_token.is_some()
    }
}

/// The fields of a webhook that say where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// `X-Chatwoot-Timestamp`.
    pub timestamp: Option<&'a [u8]>,
    /// `X-Chatwoot-Signature`.
    pub signature: Option<&'a [u8]>,
    /// `token` of the query, decoded.
    pub token: Option<&'a [u8]>,
}

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It is not signed, and its token is not the one for those.
    Unsigned,
    /// Its signature is of no secret here, or not over these bytes.
    BadSignature,
    /// It was signed too long ago, or too far in the future.
    TooOld,
}

/// Whether a webhook is genuine; `now` is the wall clock in Unix seconds. A signature decides if there is one and a
/// secret to compare it with: a wrong one is not excused by a token. It is looked at before the time, so that `TooOld`
/// is said of genuine ones only. In constant time.
pub fn judge(settings: &WebhookSettings, claim: Claim<'_>, body: &[u8], now: u64) -> Result<(), Untrusted> {
    let (Some(signature), false) = (claim.signature, settings.secrets.is_empty()) else {
        let token = settings.unsigned_token.as_ref().zip(claim.token);
        return if token.is_some_and(|(token, given)| token.verify(given)) { Ok(()) } else { Err(Untrusted::Unsigned) };
    };
    let timestamp = claim.timestamp.ok_or(Untrusted::BadSignature)?;
    let signature = signature.strip_prefix(b"sha256=").and_then(unhex).ok_or(Untrusted::BadSignature)?;
    // Every secret is tried: how long it takes does not tell which one it was.
    let genuine = settings.secrets.iter().fold(false, |genuine, secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.key()).expect("an HMAC takes keys of any length");
        mac.update(timestamp);
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(&signature).is_ok() | genuine
    });
    if !genuine {
        return Err(Untrusted::BadSignature);
    }
    let seconds = std::str::from_utf8(timestamp).ok().and_then(|text| text.parse::<u64>().ok());
    let near = seconds.is_some_and(|seconds| seconds.abs_diff(now) <= settings.max_age.as_secs());
    if near { Ok(()) } else { Err(Untrusted::TooOld) }
}

/// The bytes of lower-case hexadecimal digits.
fn unhex(hex: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if hex.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

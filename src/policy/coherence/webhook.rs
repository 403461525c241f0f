//! Is this webhook genuine (`api.md` section 7.2)?
//!
//! The application signs what it sends: HMAC-SHA256 over the timestamp, a full stop and the raw bytes of the body, keyed
//! with a secret of that webhook. Servers too old to sign are told by a token in the URL.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::policy::secret::Secret;

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

/// The fields of a webhook that say where it comes from. `Debug` is for tests; nothing logs it.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of `api.md` section 7.2.
    const SECRET: &str = "whsec_test_0001";
    const TIMESTAMP: u64 = 1_781_182_950;
    const BODY: &[u8] = br#"{"event":"message_created","id":1}"#;
    const SIGNATURE: &str = "sha256=7b8f49c5fa5b713bad1778de91d85efdead7cd36c8083114285b1ae7a203ed47";

    fn settings(secrets: &[&str], token: Option<&str>) -> WebhookSettings {
        WebhookSettings {
            path: "/_anteroom/webhooks".into(),
            secrets: secrets.iter().map(|secret| Secret::new(*secret).unwrap()).collect(),
            unsigned_token: token.map(|token| Secret::new(token).unwrap()),
            max_age: Duration::from_secs(300),
            silent_after: Duration::from_secs(60),
        }
    }

    fn signed<'a>(timestamp: &'a str, signature: &'a str) -> Claim<'a> {
        Claim { timestamp: Some(timestamp.as_bytes()), signature: Some(signature.as_bytes()), token: None }
    }

    #[test]
    fn the_test_vector_is_genuine_whichever_secret_it_was() {
        for secrets in [&[SECRET][..], &[SECRET, "new"], &["new", SECRET], &["a", "b", SECRET]] {
            assert_eq!(judge(&settings(secrets, None), signed("1781182950", SIGNATURE), BODY, TIMESTAMP), Ok(()));
        }
    }

    #[test]
    fn no_other_signature_is() {
        let body_alone = "sha256=a64278cf6c3e6184dfafa01470193e54114cee108b368a0ee4e32d31dd4399d0";
        let upper = SIGNATURE.to_uppercase().replacen("SHA256", "sha256", 1);
        let long = format!("{SIGNATURE}0");
        for (timestamp, signature, body) in [
            ("1781182950", &*SIGNATURE.replacen('7', "8", 1), BODY),
            ("1781182951", SIGNATURE, BODY),
            (" 1781182950", SIGNATURE, BODY),
            ("1781182950", SIGNATURE, br#"{"event":"message_created","id":2}"#),
            ("1781182950", SIGNATURE, br#"{"event":"message_created","id":1} "#),
            ("1781182950", SIGNATURE, b""),
            ("1781182950", &SIGNATURE[7..], BODY),
            ("1781182950", &SIGNATURE[..70], BODY),
            ("1781182950", &long, BODY),
            ("1781182950", &upper, BODY),
            ("1781182950", body_alone, BODY),
            ("1781182950", "sha256=", BODY),
            ("1781182950", "", BODY),
            ("1781182950", "sha256=zz8f49c5fa5b713bad1778de91d85efdead7cd36c8083114285b1ae7a203ed47", BODY),
        ] {
            let verdict = judge(&settings(&[SECRET], None), signed(timestamp, signature), body, TIMESTAMP);
            assert_eq!(verdict, Err(Untrusted::BadSignature), "{timestamp} {signature}");
        }
        let claim = Claim { timestamp: None, ..signed("", SIGNATURE) };
        assert_eq!(judge(&settings(&[SECRET], None), claim, BODY, TIMESTAMP), Err(Untrusted::BadSignature));
        let other = settings(&["other"], None);
        assert_eq!(judge(&other, signed("1781182950", SIGNATURE), BODY, TIMESTAMP), Err(Untrusted::BadSignature));
    }

    #[test]
    fn a_genuine_one_may_be_too_old_or_from_the_future() {
        for (now, expected) in [
            (TIMESTAMP + 300, Ok(())),
            (TIMESTAMP + 301, Err(Untrusted::TooOld)),
            (TIMESTAMP - 300, Ok(())),
            (TIMESTAMP - 301, Err(Untrusted::TooOld)),
            (0, Err(Untrusted::TooOld)),
        ] {
            let verdict = judge(&settings(&[SECRET], None), signed("1781182950", SIGNATURE), BODY, now);
            assert_eq!(verdict, expected, "{now}");
        }
    }

    #[test]
    fn a_time_that_is_none_is_no_reason_to_believe() {
        for timestamp in ["", "now", "1781182950.5", "-1781182950", "99999999999999999999"] {
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(format!("{timestamp}.").as_bytes());
            mac.update(BODY);
            let digest: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let signature = format!("sha256={digest}");
            let verdict = judge(&settings(&[SECRET], None), signed(timestamp, &signature), BODY, TIMESTAMP);
            assert_eq!(verdict, Err(Untrusted::TooOld), "{timestamp}");
        }
    }

    #[test]
    fn a_token_stands_in_for_a_signature_that_cannot_be_had() {
        let with = |token: &'static str| Claim { token: Some(token.as_bytes()), ..Claim::default() };
        for (secrets, token, claim, expected) in [
            (&[][..], Some("t"), with("t"), Ok(())),
            (&[], Some("t"), with("T"), Err(Untrusted::Unsigned)),
            (&[], Some("t"), with(""), Err(Untrusted::Unsigned)),
            (&[], Some("t"), Claim::default(), Err(Untrusted::Unsigned)),
            (&[SECRET], None, with("t"), Err(Untrusted::Unsigned)),
            (&[SECRET], None, Claim::default(), Err(Untrusted::Unsigned)),
            (&[SECRET], Some("t"), with("t"), Ok(())),
            // A server that signs with a secret that is not known here, and knows the token.
            (&[], Some("t"), Claim { token: Some(b"t"), ..signed("1", "sha256=") }, Ok(())),
            // A wrong signature is not excused.
            (&[SECRET], Some("t"), Claim { token: Some(b"t"), ..signed("1", "sha256=") }, Err(Untrusted::BadSignature)),
        ] {
            assert_eq!(judge(&settings(secrets, token), claim, BODY, TIMESTAMP), expected, "{secrets:?} {claim:?}");
        }
        assert!(!settings(&[], None).are_received());
    }
}

//! `listen.tls`.

use super::mistakes::Place;
use super::sources::Reading;
use crate::engine::tls::{Tls, TlsSettings};

/// Certificate and key: both or none, and a pair.
pub(super) fn check(reading: &mut Reading) {
    let what = match (&reading.draft.tls_certificate, &reading.draft.tls_key) {
        (None, None) => return,
        (Some(certificate), Some(key)) => {
            let settings = TlsSettings { certificate: certificate.clone(), key: key.clone() };
            Tls::load(&settings).err()
        }
        (Some(_), None) => Some("listen.tls.certificate is set and listen.tls.key is not; set both".to_owned()),
        (None, Some(_)) => Some("listen.tls.key is set and listen.tls.certificate is not; set both".to_owned()),
    };
    if let Some(what) = what {
        reading.mistake(Place::Together, what);
    }
}

//! A word that only the right people know.

use std::fmt;

use subtle::ConstantTimeEq;

/// What `Secret` prints instead of itself.
pub const MASK: &str = "***";

/// A secret. It can be compared, not printed: `Debug` and `Display` write `***`.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// `None` if there is nothing in it: an empty secret would let everybody in.
    pub fn new(text: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = text.into();
        (!bytes.is_empty()).then(|| Self(bytes.into_boxed_slice()))
    }

    /// The secret itself, as the key of a signature, or to be shown to whoever asks for it.
    pub(crate) fn key(&self) -> &[u8] {
        &self.0
    }

    /// Whether a stranger's bytes are the secret. The time it takes tells at most the secret's length.
    pub fn verify(&self, candidate: &[u8]) -> bool {
        self.0.ct_eq(candidate).into()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.verify(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_secret() {
        let secret = Secret::new("opens sesame").unwrap();
        assert!(secret.verify(b"opens sesame"));
        for wrong in ["", "opens", "opens sesame ", "Opens sesame", "***"] {
            assert!(!secret.verify(wrong.as_bytes()), "{wrong:?} opened it");
        }
        assert_eq!(Secret::new(""), None);
    }

    #[test]
    fn it_is_never_printed() {
        let secret = Secret::new("opens sesame").unwrap();
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
    }
}

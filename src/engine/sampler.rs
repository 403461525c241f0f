//! A fixed share of things, evenly.

use std::sync::atomic::{AtomicU64, Ordering};

/// Takes a fixed share of what it is asked about, evenly.
#[derive(Debug, Default)]
pub struct Sampler(AtomicU64);

impl Sampler {
    /// Whether this one is in the share.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no 64 bits")]
    pub fn takes(&self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        let before = self.0.fetch_add(1, Ordering::Relaxed) as f64;
        ((before + 1.0) * share).floor() > (before * share).floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_hits_is_logged_evenly() {
        for (share, expected) in [(0.0, 0), (0.25, 25), (1.0, 100)] {
            let sampler = Sampler::default();
            assert_eq!((0..100).filter(|_| sampler.takes(share)).count(), expected, "{share}");
        }
    }
}

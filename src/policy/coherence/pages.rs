//! Which pages of older messages were asked for: a new message is on none of them, unless it was being written when the page
//! was made, and another one with a later id was quicker.

use super::atomic::{AtomicU64, Ordering};

/// Places of conversations. Two that share one put each other's pages out of date needlessly, and then seldom.
const PLACES: usize = 1 << 14;

/// The latest message before which a page was asked for, of every conversation by its display id.
pub struct Pages(Box<[AtomicU64]>);

impl Default for Pages {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Pages {
    /// A page of this conversation is about to be asked for, with the messages before this one. Called before the tick of
    /// its fetch is noted: a message that is acknowledged after that finds it here; one from before is on the page.
    pub fn asked(&self, conversation: u64, before: u64) {
        self.of(conversation).fetch_max(before, Ordering::SeqCst);
    }

    /// Whether a new message may be on a page that was asked for. One without an id that is known may.
    pub fn may_have(&self, conversation: Option<u64>, message: Option<u64>) -> bool {
        let (Some(conversation), Some(message)) = (conversation, message) else { return true };
        message < self.of(conversation).load(Ordering::SeqCst)
    }

    fn of(&self, conversation: u64) -> &AtomicU64 {
        &self.0[usize::try_from(conversation % PLACES as u64).expect("a place in the table")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_message_is_on_no_page_from_before_it() {
        let pages = Pages::default();
        assert!(!pages.may_have(Some(7), Some(1)), "none was asked for");
        pages.asked(7, 100);
        pages.asked(7, 80);
        for (message, may) in [(99, true), (100, false), (101, false)] {
            assert_eq!(pages.may_have(Some(7), Some(message)), may, "{message}");
        }
        assert!(!pages.may_have(Some(8), Some(99)), "it is of another conversation");
        assert!(pages.may_have(Some(8), None) && pages.may_have(None, Some(200)), "nobody knows");
    }
}

//! What the heads of stored answers have in common, each kept once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::policy::http::stored_head::{CommonHead, StoredHead};

/// One upstream has a few: for lists, for 404s, with and without a field. The oldest is not shared any further when there
/// are more.
const MOST: usize = 16;

/// What heads have in common.
#[derive(Default)]
pub struct CommonHeads(Mutex<VecDeque<Arc<CommonHead>>>);

impl CommonHeads {
    /// The same head by what it has in common with one before it, if it has; else it is one that others may share.
    pub fn share(&self, head: StoredHead) -> StoredHead {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.iter().find_map(|common| head.sharing(common)) {
            return shared;
        }
        if known.len() == MOST {
            known.pop_front();
        }
        known.push_back(head.common().clone());
        head
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn so_many_kinds_of_heads_are_shared_and_no_more() {
        let heads = CommonHeads::default();
        let head = |name: usize, value: &'static str| {
            let name = HeaderName::try_from(format!("x-{name}")).unwrap();
            let fields = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            let head = heads.share(StoredHead::new(&fields, None));
            assert_eq!(head.fields(), fields);
            head
        };
        let first = head(0, "a");
        assert!(Arc::ptr_eq(head(0, "b").common(), first.common()));
        for name in 1..=MOST {
            head(name, "a");
        }
        assert!(!Arc::ptr_eq(head(0, "c").common(), first.common()), "it was the oldest");
        assert_eq!(heads.0.lock().unwrap().len(), MOST);
    }
}

//! Events of the application: what they touch is out of date, and whether they arrive decides how long answers live.

use crate::policy::event::Touched;
use crate::room::Room;

impl Room {
    /// An event says that these lists have changed: they are out of date from here on. `source` says who told.
    pub fn changed(&self, touched: &Touched, source: &'static str) {
        for scope in touched.scopes() {
            self.ledger.outdate(self.ledger.place(&scope));
        }
        self.metrics.invalidations.with_label_values(&[source]).inc();
    }
}

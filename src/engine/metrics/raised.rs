//! Gauges of what is under way.

use prometheus::IntGauge;

/// A gauge that is one higher as long as this lives.
pub struct Raised(IntGauge);

impl Raised {
    /// Raises the gauge.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

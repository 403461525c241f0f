//! What metrics promise.

use super::*;
use crate::policy::payload::{ViolationKind, schema};

#[cfg(target_os = "linux")]
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

/// The crate counts the process on Linux alone.
#[cfg(target_os = "linux")]
#[test]
fn the_page_of_metrics_is_made_from_them() {
    let page = Metrics::new().page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let shipped = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        shipped == page,
        "docs/metrics.md differs from the metrics; UPDATE=1 cargo test --lib engine::metrics writes it anew"
    );
}

#[test]
fn a_scrape_with_every_series_there_can_be_is_short() {
    let metrics = Metrics::new();
    for &ending in Ending::ALL {
        for method in 0..METHODS.len() {
            for class in 0..CLASSES.len() {
                metrics.requests_of(ending, method, class).inc_by(1 << 40);
            }
        }
    }
    for label in schema::Label::all() {
        for kind in ViolationKind::ALL {
            metrics.payload_violations.with_label_values(&[label.path(), kind.as_str()]).inc_by(1 << 40);
        }
    }
    let length = metrics.render(Exposition::Prometheus).len();
    assert!(length < 200_000, "{length} bytes");
}

#[test]
fn every_label_value_of_the_contract_is_described() {
    let metrics = Metrics::new();
    let kinds = ViolationKind::ALL.map(ViolationKind::as_str);
    let described = metrics.described().iter().find(|metric| metric.name == "anteroom_payload_violations_total");
    assert_eq!(described.unwrap().labels[1].1, kinds);
}

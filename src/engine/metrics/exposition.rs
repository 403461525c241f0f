//! The metrics as text: in the format of Prometheus, or in that of OpenMetrics.

use std::fmt::{Display, Write};

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use crate::policy::http::exposition::Exposition;

/// All of it, in this format.
pub(super) fn text(families: &[MetricFamily], format: Exposition) -> Vec<u8> {
    match format {
        Exposition::OpenMetrics => open_metrics(families).into_bytes(),
        Exposition::Prometheus => {
            let mut text = Vec::with_capacity(64 * 1024);
            let encoded = TextEncoder::new().encode(families, &mut text);
            encoded.expect("metrics that were registered can be written to memory");
            text
        }
    }
}

/// OpenMetrics 1.0. The prometheus crate writes the older format alone; the two differ in the names of counters'
/// families, in how numbers are spelt, and in the last line, which tells that nothing is missing.
fn open_metrics(families: &[MetricFamily]) -> String {
    let mut text = String::with_capacity(64 * 1024);
    for family in families {
        let name = family.name();
        let kind = family.get_field_type();
        let (family_name, word) = match kind {
            MetricType::COUNTER => (name.strip_suffix("_total").unwrap_or(name), "counter"),
            MetricType::HISTOGRAM => (name, "histogram"),
            _ => (name, "gauge"),
        };
        put(&mut text, format_args!("# TYPE {family_name} {word}\n# HELP {family_name} {}\n", Escaped(family.help())));
        for series in family.get_metric() {
            match kind {
                MetricType::COUNTER => sample(&mut text, name, series, None, series.get_counter().get_value()),
                MetricType::HISTOGRAM => histogram(&mut text, name, series),
                _ => sample(&mut text, name, series, None, series.get_gauge().get_value()),
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

#[expect(clippy::cast_precision_loss, reason = "a double is what the format has")]
fn histogram(text: &mut String, name: &str, series: &Metric) {
    let histogram = series.get_histogram();
    let all = histogram.get_sample_count();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    for bucket in finite {
        // A label is compared as text, and this format wants whole numbers to have a point.
        let whole = if bucket.upper_bound().fract() == 0.0 { ".0" } else { "" };
        let bound = format!("{}{whole}", bucket.upper_bound());
        sample(text, &format!("{name}_bucket"), series, Some(&bound), bucket.cumulative_count() as f64);
    }
    sample(text, &format!("{name}_bucket"), series, Some("+Inf"), all as f64);
    sample(text, &format!("{name}_count"), series, None, all as f64);
    sample(text, &format!("{name}_sum"), series, None, histogram.get_sample_sum());
}

/// One line; `le` is the upper bound of a bucket.
fn sample(text: &mut String, name: &str, series: &Metric, le: Option<&str>, value: f64) {
    text.push_str(name);
    let labels = series.get_label().iter().map(|label: &LabelPair| (label.name(), label.value()));
    let mut before = '{';
    for (label, value) in labels.chain(le.map(|bound| ("le", bound))) {
        put(text, format_args!("{before}{label}=\"{}\"", Escaped(value)));
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    put(text, format_args!(" {value}\n"));
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes any text");
}

/// A text of help or of a label's value, on one line.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode};

    use super::*;
    use crate::engine::metrics::{Ending, Metrics};

    #[test]
    fn open_metrics_name_families_without_total_and_end_with_the_end() {
        let metrics = Metrics::new();
        metrics.request_ended(Ending::Hit, &Method::GET, StatusCode::OK, Duration::from_millis(1));
        metrics.payload_violations.with_label_values(&["a\"\\\n", "null"]).inc();
        let text = String::from_utf8(metrics.render(Exposition::OpenMetrics)).unwrap();
        for line in [
            "# TYPE anteroom_requests counter",
            "anteroom_requests_total{method=\"GET\",outcome=\"hit\",status_class=\"2xx\"} 1",
            "# TYPE anteroom_cache_bytes gauge",
            "anteroom_cache_bytes 0",
            "anteroom_request_duration_seconds_bucket{outcome=\"hit\",le=\"0.00005\"} 0",
            "anteroom_request_duration_seconds_bucket{outcome=\"hit\",le=\"0.001\"} 1",
            "anteroom_request_duration_seconds_bucket{outcome=\"hit\",le=\"1.0\"} 1",
            "anteroom_request_duration_seconds_bucket{outcome=\"hit\",le=\"+Inf\"} 1",
            "anteroom_request_duration_seconds_sum{outcome=\"hit\"} 0.001",
            r#"anteroom_payload_violations_total{field="a\"\\\n",kind="null"} 1"#,
        ] {
            assert!(text.lines().any(|there| there == line), "no {line}");
        }
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
        // What would not be read: a counter whose name has no `_total`, a family told twice.
        let mut families = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (family, kind) = line.split_once(' ').unwrap();
            assert!(!families.contains(&family) && !family.ends_with("_total"), "{family}");
            let sample = if kind == "counter" { format!("\n{family}_total") } else { format!("\n{family}") };
            // With several labels there may be no series yet.
            let told = text.contains(&sample) || ["anteroom_requests", "anteroom_webhooks"].contains(&family);
            assert!(told, "{family}");
            families.push(family);
        }
        assert!(families.len() > 50);
    }
}

//! W3C Trace Context: what a `traceparent` says, and how one is written.

use http::{HeaderMap, HeaderValue};

use super::headers::{TRACEPARENT, hex, trace_id};

/// A span of a trace, as `traceparent` names it (W3C Trace Context, section 3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never zero.
    pub trace: u128,
    /// The span in it; never zero.
    pub span: u64,
    /// Whether whoever began it records it.
    pub sampled: bool,
}

impl TraceContext {
    /// What a request says that it belongs to; `None` if that is not valid, or there is none.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let trace = u128::from_str_radix(trace_id(headers)?, 16).ok()?;
        // It is valid, so each part has its place (section 3.2.2.1).
        let field = headers.get(TRACEPARENT)?.to_str().ok()?;
        let span = u64::from_str_radix(field.get(36..52)?, 16).ok()?;
        let flags = u8::from_str_radix(field.get(53..55)?, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The trace id in its only form, as the log has it.
    pub fn trace_digits(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The value of `traceparent`.
    pub fn field(self) -> HeaderValue {
        let digits = hex(self.span);
        let span = str::from_utf8(&digits).expect("hex digits");
        let field = format!("00-{}-{span}-{:02x}", self.trace_digits(), u8::from(self.sampled));
        HeaderValue::try_from(field).expect("hex digits and dashes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(field: &'static str) -> Option<TraceContext> {
        TraceContext::of(&HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(field))]))
    }

    #[test]
    fn it_is_read_and_written() {
        let context = of(FIELD).unwrap();
        let expected = TraceContext {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        assert_eq!(context, expected);
        assert_eq!(context.field(), FIELD);
        assert_eq!(TraceContext { sampled: false, ..context }.field(), FIELD.replace("-01", "-00").as_str());
    }

    #[test]
    fn only_the_lowest_flag_says_that_it_is_sampled() {
        for (field, sampled) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe", Some(false)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", Some(true)),
            // A later version may say more (section 3.2.4).
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", Some(true)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("nonsense", None),
        ] {
            assert_eq!(of(field).map(|context| context.sampled), sampled, "{field}");
        }
        assert_eq!(TraceContext::of(&HeaderMap::new()), None);
    }
}

//! How a request ended: the `Cache-Status` field, the metric labels and the log line are all made from it.

/// How the program logs.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `log.format`.
    pub format: LogFormat,
    /// `log.level`: a level or a filter such as `info,anteroom=debug`.
    pub level: String,
    /// `log.hits`: share of hits that get an access line, 0 to 1.
    pub hits: f64,
}

/// `log.format`: the form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `pretty` on a terminal, else `json`.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

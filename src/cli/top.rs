//! `anteroom top`: who asks most, by hashes.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use super::admin_client::{AdminClient, ask_for, document, reason};
use super::terminal::{Done, complain, show};

/// Back to the first line of a cleared terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Args)]
pub(super) struct Top {
    #[command(flatten)]
    client: AdminClient,
    /// Seconds that are watched for each table, 1 to 60.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// What puts somebody first.
    #[arg(long, value_enum, default_value_t = By::Requests)]
    by: By,
    /// Lines of each table, 1 to 50.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=50))]
    lines: u64,
    /// One table, and no more.
    #[arg(long)]
    once: bool,
    /// One line of JSON for each table, with all that is known.
    #[arg(long)]
    json: bool,
}

/// What puts somebody first.
#[derive(Clone, Copy, ValueEnum)]
enum By {
    Requests,
    Bytes,
    Misses,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::Misses => "misses",
        }
    }
}

impl Top {
    pub(super) fn run(self) -> Done {
        let admin = self.client.find()?.address;
        // One that calls itself dumb (a shell within an editor) would show the sequence.
        let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        let clears = !self.once && !self.json && !is_dumb && std::io::stdout().is_terminal();
        if clears {
            show(&format!("watching http://{admin} for {} s ...\n", self.seconds))?;
        }
        let path = format!("/top?seconds={}", self.seconds);
        let takes = Duration::from_secs(self.seconds);
        loop {
            let told = match ask_for(takes, &admin, Method::GET, &path, None, String::new()) {
                Ok((status, told)) if status.is_success() => document(&admin, &told, "seconds"),
                Ok((status, said)) => Err(format!("nothing was watched: {status}: {}", reason(&said))),
                Err(error) => Err(error),
            };
            let document = match told {
                Ok(document) => document,
                Err(error) => {
                    complain(&error);
                    return Ok(ExitCode::FAILURE);
                }
            };
            let text = if self.json { format!("{document}\n") } else { self.tables(&document) };
            let is_read = show(&format!("{}{text}", if clears { CLEAR } else { "" }))?;
            if self.once || !is_read {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }

    /// A table of contacts and one of inboxes.
    fn tables(&self, document: &Value) -> String {
        let seconds = document["seconds"].as_f64().unwrap_or(1.0).max(0.001);
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let counted = |what: &str, one: &str, many: &str| {
            let count = number(&document[what]["counted"]);
            format!("{count} {}", if count == 1 { one } else { many })
        };
        let (requests, skipped) = (number(&document["requests"]), number(&document["skipped"]));
        let mut out = format!(
            "{requests} requests below a contact within {seconds:.0} s ({}/s): {} in {}\n",
            rate(requests, seconds),
            counted("contacts", "contact", "contacts"),
            counted("inboxes", "inbox", "inboxes"),
        );
        if skipped > 0 {
            let _ = writeln!(out, "{skipped} of these could not be counted below");
        }
        for (what, head) in [("contacts", "contact"), ("inboxes", "inbox")] {
            let table = &document[what];
            let mut rows: Vec<&Value> = table["first"].as_array().into_iter().flatten().collect();
            rows.sort_by_key(|row| std::cmp::Reverse(number(&row[self.by.name()])));
            let _ =
                writeln!(out, "\n{head:<16}  {:>9}  {:>8}  {:>10}  {:>9}", "requests", "a second", "bytes", "misses");
            for row in rows.iter().take(usize::try_from(self.lines).unwrap_or(usize::MAX)) {
                let requests = number(&row["requests"]);
                let _ = writeln!(
                    out,
                    "{:<16}  {requests:>9}  {:>8}  {:>10}  {:>9}",
                    row["hash"].as_str().unwrap_or_default(),
                    rate(requests, seconds),
                    amount(number(&row["bytes"])),
                    number(&row["misses"]),
                );
            }
            if number(&table["too_few_by"]) > 0 {
                let _ = writeln!(out, "more came than are counted: requests may be {} more", table["too_few_by"]);
            }
        }
        out
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn rate(requests: u64, seconds: f64) -> String {
    let rate = requests as f64 / seconds;
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn amount(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        top: Top,
    }

    fn tables(arguments: &[&str]) -> String {
        let row = |hash: &str, requests: u64, bytes: u64, misses: u64| json!({ "hash": hash, "requests": requests, "bytes": bytes, "misses": misses });
        let first = [row("0a", 600, 5 << 20, 1), row("0b", 30, 900, 20), row("0c", 5, 7 << 30, 0)];
        let document = json!({
            "seconds": 5.001, "requests": 640, "skipped": 5,
            "contacts": { "counted": 3, "too_few_by": 0, "first": first },
            "inboxes": { "counted": 1, "too_few_by": 2, "first": [row("0d", 635, 1, 21)] },
        });
        Line::parse_from([&["top"], arguments].concat()).top.tables(&document)
    }

    #[test]
    fn the_tables_are_in_the_order_that_is_asked_for() {
        let text = tables(&[]);
        assert!(
            text.starts_with(
                "640 requests below a contact within 5 s (128/s): 3 contacts in 1 inbox\n5 of these could"
            ),
            "{text}"
        );
        assert!(text.contains("\n0a                      600       120     5.0 MiB          1\n0b"), "{text}");
        assert!(text.contains("requests may be 2 more"), "{text}");
        let order = |text: &str| {
            let mut order: Vec<(usize, &str)> =
                ["\n0a", "\n0b", "\n0c"].iter().map(|row| (text.find(row).unwrap_or(usize::MAX), *row)).collect();
            order.sort_unstable();
            order.iter().map(|(_, row)| row.trim()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&tables(&["--by", "bytes"])), "0c 0a 0b");
        assert_eq!(order(&tables(&["--by", "misses"])), "0b 0a 0c");
        assert!(!tables(&["--lines", "1"]).contains("0b"));
        assert!(Line::try_parse_from(["top", "--seconds", "61"]).is_err());
    }
}

//! What is wrong with the settings: where, what, and what to do.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// Every mistake in the settings at once, as text for people. Secrets are never in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: Option<PathBuf>,
    mistakes: Vec<Mistake>,
}

/// One mistake. The order is the order of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mistake {
    pub(super) place: Place,
    pub(super) text: String,
}

/// Where a mistake was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file cannot be had at all.
    File,
    /// Counted from one.
    Line(usize),
    Environment,
    CommandLine,
    /// Nowhere in particular: a setting is missing, or two do not go together.
    Together,
}

impl ConfigError {
    pub(super) fn new(file: Option<PathBuf>, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        Self { file, mistakes }
    }

    fn heading(&self, place: Place) -> String {
        match place {
            Place::File | Place::Line(_) => match &self.file {
                Some(path) => one_line(&path.display().to_string()),
                None => "file".to_owned(),
            },
            Place::Environment => "environment".to_owned(),
            Place::CommandLine => "command line".to_owned(),
            Place::Together => "settings".to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same_heading = |a: &Mistake, b: &Mistake| self.heading(a.place) == self.heading(b.place);
        for (index, group) in self.mistakes.chunk_by(same_heading).enumerate() {
            let break_line = if index == 0 { "" } else { "\n" };
            let plural = if group.len() == 1 { "" } else { "s" };
            write!(out, "{break_line}{}: {} problem{plural}", self.heading(group[0].place), group.len())?;
            for Mistake { place, text } in group {
                let text = one_line(text);
                match place {
                    Place::Line(line) => write!(out, "\n  line {line}: {text}")?,
                    _ => write!(out, "\n  {text}")?,
                }
            }
        }
        Ok(())
    }
}

impl Error for ConfigError {}

/// Values and names are other people's text: none may break a line or colour a terminal.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() { line.extend(letter.escape_default()) } else { line.push(letter) }
    }
    line
}

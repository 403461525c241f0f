//! Where values come from: defaults, what a command presets, a file, the environment, flags, each stronger than the one before.
//!
//! Every source is read to its end, also where a stronger one has the last word: a mistake is a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::mistakes::{Mistake, Place};
use super::shown::shown_text;
use super::table::{self, Draft, PREFIX, Preset, Setting};
use super::values::{each_or_all_mistakes, plain};

/// Which file of settings to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsFile {
    /// `anteroom.toml` in the working directory, else `/etc/anteroom/anteroom.toml`, else none.
    Usual,
    /// This one; it is a mistake if there is none.
    Given(PathBuf),
    /// One that was read already: its name for messages, and its text.
    Text(PathBuf, String),
    /// None at all.
    None,
}

/// Settings given on the command line, as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--upstream`: `upstream.url`.
    pub upstream: Option<String>,
    /// `--listen`: `listen.address`.
    pub listen: Option<String>,
    /// `--admin`: `admin.address`.
    pub admin: Option<String>,
}

/// Where the value of a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    Command,
    File(PathBuf, usize),
    Variable(String),
    Flag(&'static str),
    /// A default that gives way to what is set of another setting, which it may not be below.
    RaisedTo(&'static str),
}

impl Origin {
    fn place(&self) -> Place {
        match self {
            Self::Default | Self::Command | Self::RaisedTo(_) => Place::Together,
            Self::File(_, line) => Place::Line(*line),
            Self::Variable(_) => Place::Environment,
            Self::Flag(_) => Place::CommandLine,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::Command => out.write_str("default of this command"),
            Self::File(path, line) => write!(out, "{}:{line}", path.display()),
            Self::Variable(name) => out.write_str(name),
            Self::Flag(name) => out.write_str(name),
            Self::RaisedTo(name) => write!(out, "default, raised to {name}"),
        }
    }
}

/// The environment by name; `None` is a value that is not UTF-8.
pub(super) struct Environment(BTreeMap<String, Option<String>>);

impl Environment {
    pub(super) fn new<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let named = |(name, value): (K, V)| Some((name.into().into_string().ok()?, value.into().into_string().ok()));
        Self(pairs.into_iter().filter_map(named).collect())
    }
}

/// What has been read so far.
pub(super) struct Reading {
    pub(super) draft: Draft,
    /// Where each value in force came from. A setting that is wrong where it counts has none.
    pub(super) origins: BTreeMap<&'static str, Origin>,
    pub(super) mistakes: Vec<Mistake>,
    /// Settings of which a value was refused.
    refused: BTreeSet<&'static str>,
    /// The file is broken: what it may have set is not known.
    is_half_read: bool,
    environment: Environment,
    /// Variables that hold secrets the settings point at.
    named: BTreeSet<String>,
}

impl Reading {
    /// The defaults.
    pub(super) fn new(environment: Environment) -> Self {
        let mut reading = Self {
            draft: Draft::default(),
            origins: BTreeMap::new(),
            mistakes: Vec::new(),
            refused: BTreeSet::new(),
            is_half_read: false,
            environment,
            named: BTreeSet::new(),
        };
        for setting in table::TABLE {
            if let Preset::Default(text) = setting.preset {
                reading.put(setting, &known(text), Origin::Default);
            }
        }
        reading
    }

    /// What the command presets: before every other source.
    pub(super) fn presets(&mut self, presets: &[(&str, &str)]) {
        for (name, text) in presets {
            self.put(table::find(name).expect("a setting"), &known(text), Origin::Command);
        }
    }

    pub(super) fn mistake(&mut self, place: Place, text: String) {
        self.mistakes.push(Mistake { place, text });
    }

    /// Whether nobody set it, so far as can be told.
    pub(super) fn is_missing(&self, name: &str) -> bool {
        !self.origins.contains_key(name) && !self.refused.contains(name) && !self.is_half_read
    }

    /// Whether it is known what is in force of it: what a broken file may have said of it is not.
    pub(super) fn is_certain(&self, name: &str) -> bool {
        match self.origins.get(name) {
            None => false,
            Some(Origin::Default | Origin::Command) => !self.is_half_read,
            Some(_) => true,
        }
    }

    /// There should be a file, and it cannot be had.
    pub(super) fn unreadable_file(&mut self, what: String) {
        self.is_half_read = true;
        self.mistake(Place::File, what);
    }

    /// A file of settings, already read.
    pub(super) fn file(&mut self, path: &Path, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            self.section("", document.get_ref(), path, text);
            return;
        }
        // What a broken file seems to say is not worth a remark; nor is a second slip in one line.
        self.is_half_read = true;
        let mut lines = BTreeSet::new();
        for error in errors {
            let line = line_of(text, error.span().map_or(text.len(), |span| span.start));
            if lines.insert(line) {
                self.mistake(Place::Line(line), format!("not TOML: {}", error.message()));
            }
        }
    }

    fn section(&mut self, section: &str, entries: &DeTable<'_>, path: &Path, text: &str) {
        for (key, value) in entries {
            let line = line_of(text, key.span().start);
            let key = key.get_ref();
            let name = if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
            let told = shown_text(&name);
            let value = value.get_ref();
            if key.contains('.') {
                // Else `"cache.ttl"` would pass for `cache.ttl`, and both could be there with different values.
                self.mistake(Place::Line(line), format!("{told}: quotes make one name of it; leave them out"));
                continue;
            }
            if let Some(setting) = table::find(&name) {
                match plain(value) {
                    Some(value) => self.put(setting, &value, Origin::File(path.to_owned(), line)),
                    None => {
                        self.reject(setting, Origin::File(path.to_owned(), line), "holds a number that is too large");
                    }
                }
                continue;
            }
            match value {
                DeValue::Table(entries) if table::is_section(&name) => self.section(&name, entries, path, text),
                _ if table::is_section(&name) => {
                    let what = format!("{name}: is a section, not a setting; write [{name}] and its settings below it");
                    self.mistake(Place::Line(line), what);
                }
                // Its entries say better what was meant than its own name does.
                DeValue::Table(entries) if !entries.is_empty() && table::nearest(&name).is_none() => {
                    self.section(&name, entries, path, text);
                }
                _ => {
                    let meant = table::nearest(&name).map(|setting| setting.name.to_owned());
                    self.mistake(Place::Line(line), format!("{told}: there is no such setting; {}", advice(meant)));
                }
            }
        }
    }

    /// The environment's settings; after the file, which may point at variables with secrets.
    pub(super) fn variables(&mut self) {
        for setting in table::TABLE {
            let name = setting.variable();
            match self.environment.0.get(&name).cloned() {
                None => {}
                Some(None) => self.reject(setting, Origin::Variable(name), "is not UTF-8"),
                Some(Some(text)) => self.variable(setting, name, &text),
            }
        }
        let known: BTreeSet<_> = table::TABLE.iter().map(Setting::variable).collect();
        let strange = |(name, value): &(&String, &Option<String>)| {
            name.starts_with(PREFIX)
                && !known.contains(*name)
                && !self.named.contains(*name)
                && !is_of_kubernetes(name, value.as_deref())
        };
        let strange: Vec<_> = self.environment.0.iter().filter(strange).map(|(name, _)| name.clone()).collect();
        for name in strange {
            let setting = name.trim_start_matches(PREFIX).to_lowercase().replace("__", ".");
            let meant = table::nearest(&setting).map(Setting::variable);
            self.mistake(Place::Environment, format!("{name}: there is no such setting; {}", advice(meant)));
        }
    }

    /// A value from the environment is TOML where it reads as such, else a plain string.
    fn variable(&mut self, setting: &'static Setting, name: String, text: &str) {
        let origin = Origin::Variable(name);
        match DeValue::parse(text).ok().and_then(|value| plain(value.get_ref())) {
            Some(Value::Datetime(_)) => self.put(setting, &Value::from(text), origin),
            // A password may be all digits: what does not fit as a number may fit as a string.
            Some(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_))) => {
                let string = Value::from(text);
                let fits = (setting.set)(&mut Draft::default(), &string).is_ok();
                self.put(setting, if fits { &string } else { &value }, origin);
            }
            Some(value) => self.put(setting, &value, origin),
            None if text.starts_with('{') => {
                self.reject(
                    setting,
                    origin,
                    "begins like an inline table but is not TOML; write { file = \"...\" }, or the text in quotes",
                );
            }
            None => self.put(setting, &Value::from(text), origin),
        }
    }

    /// The flags.
    pub(super) fn flags(&mut self, flags: &Flags) {
        let Flags { upstream, listen, admin } = flags;
        let given = [
            ("--upstream", "upstream.url", upstream),
            ("--listen", "listen.address", listen),
            ("--admin", "admin.address", admin),
        ];
        for (flag, name, text) in given {
            if let Some(text) = text {
                let setting = table::find(name).expect("flags stand for settings");
                self.put(setting, &Value::from(text.as_str()), Origin::Flag(flag));
            }
        }
    }

    fn put(&mut self, setting: &'static Setting, value: &Value, origin: Origin) {
        let folder = match &origin {
            Origin::File(file, _) => file.parent().map(Path::to_owned).unwrap_or_default(),
            _ => PathBuf::new(),
        };
        let fetched = match (setting.secret, value) {
            (true, value) => self.fetch_secrets(value, &folder),
            // An empty one is a mistake, and must stay one.
            (false, Value::String(path)) if setting.path && !path.is_empty() => {
                Ok(Value::from(folder.join(path).display().to_string()))
            }
            (false, value) => Ok(value.clone()),
        };
        match fetched.and_then(|value| (setting.set)(&mut self.draft, &value)) {
            Ok(()) => drop(self.origins.insert(setting.name, origin)),
            Err(what) => self.reject(setting, origin, &what),
        }
    }

    pub(super) fn reject(&mut self, setting: &'static Setting, origin: Origin, what: &str) {
        self.origins.remove(setting.name);
        self.refused.insert(setting.name);
        let place = origin.place();
        let name = match origin {
            Origin::Variable(name) => name,
            Origin::Flag(flag) => flag.to_owned(),
            Origin::Default | Origin::Command | Origin::RaisedTo(_) | Origin::File(..) => setting.name.to_owned(),
        };
        self.mistake(place, format!("{name}: {what}"));
    }

    /// Puts the secrets themselves in the place of `{ file = ... }`, which goes by this folder, and `{ env = ... }`.
    fn fetch_secrets(&mut self, value: &Value, folder: &Path) -> Result<Value, String> {
        match value {
            Value::Table(source) => {
                let source: Vec<_> = source.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
                match source[..] {
                    [("file", Some(path))] => read_secret_file(&folder.join(path)).map(Value::String),
                    [("env", Some(name))] => self.read_secret_variable(name).map(Value::String),
                    _ => Err("is not the place of a secret; write { file = \"...\" } or { env = \"...\" }".to_owned()),
                }
            }
            Value::Array(values) => {
                let fetched = values.iter().map(|value| self.fetch_secrets(value, folder)).collect();
                each_or_all_mistakes(fetched).map(Value::Array)
            }
            other => Ok(other.clone()),
        }
    }

    fn read_secret_variable(&mut self, name: &str) -> Result<String, String> {
        self.named.insert(name.to_owned());
        let value = self.environment.0.get(name);
        // Somebody may have put the secret itself where its place should be.
        let name = shown_text(name);
        match value {
            Some(Some(text)) if !text.is_empty() => Ok(text.clone()),
            Some(Some(_)) => Err(format!("the variable {name} is empty; put the secret into it")),
            Some(None) => Err(format!("the variable {name} is not UTF-8; put the secret into it")),
            None => Err(format!("the variable {name} is not set; put the secret into it")),
        }
    }
}

fn read_secret_file(path: &Path) -> Result<String, String> {
    let shown = path.display().to_string();
    let shown = shown_text(&shown);
    let text = fs::read_to_string(path)
        .map_err(|error| format!("the file {shown} cannot be read ({error}); put the secret into it"))?;
    // Editors and `echo` end a file with a line break that nobody means.
    let secret = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if secret.is_empty() {
        Err(format!("the file {shown} is empty; put the secret into it"))
    } else {
        Ok(secret.to_owned())
    }
}

/// The name and text of the file to read, if there is one; else its name and why it cannot be read.
pub(super) fn find_file(file: SettingsFile, usual: &[&Path]) -> Result<Option<(PathBuf, String)>, (PathBuf, String)> {
    let unreadable = |error: &io::Error| format!("cannot be read ({error}); see that it is there and may be read");
    match file {
        SettingsFile::None => Ok(None),
        SettingsFile::Text(path, text) => Ok(Some((path, text))),
        SettingsFile::Given(path) => match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) => Err((path, unreadable(&error))),
        },
        SettingsFile::Usual => {
            for path in usual {
                match fs::read_to_string(path) {
                    Ok(text) => return Ok(Some((path.to_path_buf(), text))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err((path.to_path_buf(), unreadable(&error))),
                }
            }
            Ok(None)
        }
    }
}

/// A value that the program itself has as text.
fn known(text: &str) -> Value {
    DeValue::parse(text).ok().and_then(|value| plain(value.get_ref())).expect("defaults are TOML")
}

/// The line of a byte, counted from one.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn advice(meant: Option<String>) -> String {
    match meant {
        Some(name) => format!("did you mean {name}?"),
        None => "config/anteroom.toml lists all there are".to_owned(),
    }
}

/// Kubernetes tells every container where every service is. A service called `anteroom` or `anteroom-admin` gives
/// `ANTEROOM_SERVICE_HOST`, `ANTEROOM_PORT=tcp://10.0.0.1:8080`, `ANTEROOM_PORT_8080_TCP_ADDR` and more of the kind.
fn is_of_kubernetes(name: &str, value: Option<&str>) -> bool {
    let names_a_port = || {
        let after = name.split_once("_PORT_").map_or("", |(_, after)| after);
        after.starts_with(|first: char| first.is_ascii_digit())
    };
    !name.contains("__")
        && (name.contains("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || (name.ends_with("_PORT") && value.is_some_and(|value| value.contains("://")))
            || names_a_port())
}

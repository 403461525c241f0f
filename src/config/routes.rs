//! `cache.routes`: words of a closed set, each once.

use toml::Value;

use super::shown::shown;
use crate::policy::resource::ReadKind;

/// Reads the words of reads.
pub(super) fn read_routes(value: &Value) -> Result<Vec<ReadKind>, String> {
    let write = format!("write some of {}, each once", text(&ReadKind::ALL));
    let list = value.as_array().ok_or_else(|| format!("{} is not a list of reads; {write}", shown(value)))?;
    let (mut reads, mut problems) = (Vec::new(), Vec::new());
    for name in list {
        match ReadKind::ALL.into_iter().find(|read| name.as_str() == Some(read.label())) {
            None => problems.push(format!("{} is not a read", shown(name))),
            Some(read) if reads.contains(&read) => problems.push(format!("{} is there twice", shown(name))),
            Some(read) => reads.push(read),
        }
    }
    if problems.is_empty() { Ok(reads) } else { Err(format!("{}; {write}", problems.join(", and "))) }
}

/// The same words as TOML.
pub(super) fn text(reads: &[ReadKind]) -> String {
    Value::from(reads.iter().map(|read| read.label()).collect::<Vec<_>>()).to_string()
}

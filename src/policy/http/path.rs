//! The ways in which a path is read: as published, to be shared; and as any server on the way might take it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::key::decode_segment;
use crate::policy::resource::Resource;

/// Inbox, contact and what of it is asked for, if the path is exactly as published.
pub fn canonical(path: &str) -> Option<(Cow<'_, str>, Cow<'_, str>, Resource)> {
    let (inbox, contact, below) = parted(path)?;
    let resource = Resource::canonical(below)?;
    Some((decode_segment(inbox)?, decode_segment(contact)?, resource))
}

/// Inbox and contact, if the path is that of the list exactly as published.
pub(super) fn canonical_list(path: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let (inbox, contact, below) = parted(path)?;
    if below != Some("conversations") {
        return None;
    }
    Some((decode_segment(inbox)?, decode_segment(contact)?))
}

/// The segments of inbox and contact of a path as published, and what is below them.
pub fn parted(path: &str) -> Option<(&str, &str, Option<&str>)> {
    let rest = path.strip_prefix("/public/api/v1/inboxes/")?;
    let (inbox, rest) = first_segment(rest)?;
    let rest = rest.strip_prefix("contacts/")?;
    let (contact, below) = first_segment(rest).map_or((rest, None), |(contact, below)| (contact, Some(below)));
    Some((inbox, contact, below))
}

/// What is before the first slash, and what is after it.
fn first_segment(path: &str) -> Option<(&str, &str)> {
    let slash = path.bytes().position(|byte| byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// A path, parted.
pub(super) type Segments<'a> = Vec<Cow<'a, str>>;

/// The ways in which a server may read a path: segments parted before or after decoding, slashes collapsed, dot
/// segments resolved, a format suffix kept or dropped. What one of them takes for a write is a write.
pub(super) fn readings(path: &str) -> Vec<Segments<'_>> {
    // Most paths hold nothing that is to be decoded, and are parted in one way.
    let is_coded = path.contains('%');
    let parted_first = if is_coded {
        resolved(path.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy()))
    } else {
        resolved(path.split('/').map(Cow::Borrowed))
    };
    let decoded_first = is_coded.then(|| {
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        resolved(decoded.split('/').map(|segment| Cow::Owned(segment.to_owned())))
    });
    let mut readings = Vec::with_capacity(4);
    for segments in [Some(parted_first), decoded_first].into_iter().flatten() {
        let without_suffix = without_suffix(&segments);
        for reading in [Some(segments), without_suffix].into_iter().flatten() {
            if !readings.contains(&reading) {
                readings.push(reading);
            }
        }
    }
    readings
}

fn resolved<'a>(segments: impl Iterator<Item = Cow<'a, str>>) -> Segments<'a> {
    let mut resolved = Segments::with_capacity(16);
    for segment in segments {
        match &*segment {
            "" | "." => {}
            ".." => drop(resolved.pop()),
            _ => resolved.push(segment),
        }
    }
    resolved
}

/// The same without what Rails takes for a format.
fn without_suffix<'a>(segments: &Segments<'a>) -> Option<Segments<'a>> {
    let (last, before) = segments.split_last()?;
    let (stem, _) = last.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
    let stem = Cow::Owned(stem.to_owned());
    Some(before.iter().cloned().chain([stem]).collect())
}

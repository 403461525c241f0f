//! The documents: their links lead somewhere, and what is told in two languages is the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anteroom::config::example;

/// What there is in English and in Portuguese.
const TRANSLATED: [(&str, &str); 2] =
    [("README.md", "README.pt-BR.md"), ("docs/operating.md", "docs/pt-BR/operating.md")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every document of the repository, below its root.
fn documents() -> Vec<PathBuf> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "md");
    let folders = ["", "docs", "docs/pt-BR", "benches/peers"].map(|folder| root().join(folder));
    let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let found: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(is_document).collect();
    assert!(found.len() > 12, "{found:?}");
    found.iter().map(|path| path.strip_prefix(root()).unwrap().to_owned()).collect()
}

/// Its text without what is quoted as code in blocks, and the blocks by themselves without their comments.
fn parts(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut block: Option<String> = None;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        match &mut block {
            Some(_) if is_fence => blocks.extend(block.take()),
            None if is_fence => block = Some(String::new()),
            Some(block) if line.trim_start().starts_with('#') => block.push('\n'),
            Some(block) => block.extend([line, "\n"]),
            None => prose.extend([line, "\n"]),
        }
    }
    assert!(block.is_none(), "a block of code does not end");
    (prose, blocks)
}

/// What is quoted as code in a line.
fn quoted(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(path: &Path) -> BTreeSet<String> {
    let prose = parts(&read(path)).0;
    let headings =
        prose.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Links to files of the repository, with what is behind `#`. Pictures are not among them: `make screenshot` makes them.
fn links(prose: &str) -> Vec<(String, Option<String>)> {
    let after = prose.match_indices("](").map(|(at, _)| (at, &prose[at + 2..]));
    let is_picture = |at: usize| prose[..at].rfind('[').is_some_and(|open| prose[..open].ends_with('!'));
    let targets = after.filter(|(at, _)| !is_picture(*at)).filter_map(|(_, rest)| rest.split([')', ' ', '\n']).next());
    let ours = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    ours.map(|target| match target.split_once('#') {
        Some((file, anchor)) => (file.to_owned(), Some(anchor.to_owned())),
        None => (target.to_owned(), None),
    })
    .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for document in documents() {
        for (file, anchor) in links(&parts(&read(&document)).0) {
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(&file) };
            let there = root().join(&target);
            assert!(there.exists(), "{}: {file} is not there", document.display());
            if let Some(anchor) = anchor {
                assert!(anchors(&target).contains(&anchor), "{}: {file} has no #{anchor}", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 100, "{followed}");
}

/// The names of all settings, and of what holds them.
fn settings() -> BTreeSet<String> {
    let mut section = String::new();
    let mut names = BTreeSet::new();
    for line in example().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            names.insert(format!("{section}.*"));
        } else if let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = "))
            && !key.contains(' ')
        {
            names.insert(format!("{section}.{key}"));
        }
    }
    assert!(names.contains("listen.tls.key") && names.contains("cache.ttl"), "{names:?}");
    names
}

/// What a document names of settings, metrics and variables, each once.
fn named(prose: &str, settings: &BTreeSet<String>) -> BTreeSet<String> {
    let words = quoted(prose).flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || "._*".contains(c))));
    let is_ours = |word: &&str| settings.contains(*word) || word.to_uppercase().starts_with("ANTEROOM_");
    words.filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn what_is_told_in_two_languages_is_the_same() {
    let settings = settings();
    for (english, portuguese) in TRANSLATED {
        let ((ours, our_blocks), (theirs, their_blocks)) = (parts(&read(english)), parts(&read(portuguese)));
        let (told, translated) = (named(&ours, &settings), named(&theirs, &settings));
        assert!(told.len() > 10, "{told:?}");
        let differing: Vec<_> = told.symmetric_difference(&translated).collect();
        assert!(differing.is_empty(), "in one of {english} and {portuguese}, and not in the other: {differing:?}");
        assert_eq!(our_blocks, their_blocks, "{english} and {portuguese}: other commands");
        let alerts = |prose: &str| -> Vec<String> {
            prose.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned).collect()
        };
        assert_eq!(alerts(&ours), alerts(&theirs), "{english} and {portuguese}: other alerts, or in another order");
        let sections = |prose: &str| prose.lines().filter(|line| line.starts_with("## ")).count();
        assert_eq!(sections(&ours), sections(&theirs), "{english} and {portuguese}: a section is missing");
    }
}

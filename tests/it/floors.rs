//! The house stands: imports go downwards only and form no circle, and the ground floor knows no time, no tasks and no
//! sockets. All of it is read from the sources, of the proxy and of the stand-in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where sources are: the proxy's and the stand-in's.
const ROOTS: [&str; 2] = ["src", "stand-in/src"];
/// The folders of `src`, from the ground up: each may use those before it, and none after it.
const FLOORS: [&str; 8] = ["policy", "engine", "config", "state", "proxy", "admin", "server", "cli"];
/// Lines that a file may have; a longer one is two rooms.
const LONGEST_FILE: usize = 450;

/// What lists the modules of a root, and holds nothing else.
const MAP: &str = "lib";

/// Every file of a root but tests and the map: its path below the root as a module, and its text without tests.
fn sources(root: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().unwrap() != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && path.file_stem().unwrap() != "tests" {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
                found.insert(module_of(path.strip_prefix(&root).unwrap()), text);
            }
        }
    }
    assert!(found.len() > 20, "the sources are in {}", root.display());
    found.remove(MAP).expect("the map is there");
    found.remove("main");
    found
}

/// `engine/metrics/mod.rs` is `engine::metrics`.
fn module_of(path: &Path) -> String {
    let names: Vec<_> = path.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    let names = names.strip_suffix(&["mod".to_owned()]).unwrap_or(&names);
    names.join("::")
}

/// The modules that a file names: `crate::…` and `super::…` anywhere, in groups too; each as the longest that is a file.
/// What is in no file and no folder is taken from the map.
fn uses(module: &str, is_folder: bool, text: &str, files: &BTreeSet<String>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let above = |module: &str| module.rsplit_once("::").map_or(String::new(), |(above, _)| above.to_owned());
    // `super` is what stands above a file; a folder's own file declares the rest of the folder below itself.
    for (word, base) in [("crate::", String::new()), ("super::", above(module))] {
        for (at, _) in code.match_indices(word) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == ':' || letter == '$') {
                continue;
            }
            let path: String = code[at + word.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || "_:{,* \n".contains(*c))
                .collect();
            let single = path.split(['{', ',', ' ', '\n', '*']).next().unwrap_or_default().trim_end_matches("::");
            let mut candidates = vec![single.to_owned()];
            if let Some((head, group)) = path.split_once('{') {
                candidates.extend(group.split(',').map(|name| format!("{}{}", head, name.trim())));
            }
            for candidate in candidates {
                let joined = [base.as_str(), candidate.trim_end_matches("::")].join("::");
                let mut whole = joined.trim_matches(':').to_owned();
                while !whole.is_empty() && !files.contains(&whole) {
                    whole = above(&whole);
                }
                let first = joined.trim_matches(':').split("::").next().unwrap_or_default();
                let is_folder = files.iter().any(|file| file.split("::").next() == Some(first));
                if whole.is_empty() && !first.is_empty() && !is_folder {
                    MAP.clone_into(&mut whole);
                }
                if !whole.is_empty() && whole != module {
                    used.insert(whole);
                }
            }
        }
    }
    if is_folder {
        // What it declares is used without a path from here.
        let declared = code.lines().filter_map(|line| {
            let (_, name) = line.trim().trim_end_matches(';').split_once("mod ")?;
            let below = format!("{module}::{name}");
            files.contains(&below).then_some(below)
        });
        used.extend(declared);
    }
    used
}

/// The way back to a node that can be reached from itself.
fn circle(of: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        node: &str,
        of: &BTreeMap<String, BTreeSet<String>>,
        done: &mut BTreeSet<String>,
        way: &mut Vec<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|before| before == node) {
            return Some(way[at..].to_vec());
        }
        if !done.insert(node.to_owned()) {
            return None;
        }
        way.push(node.to_owned());
        let found = of.get(node).into_iter().flatten().find_map(|next| visit(next, of, done, way));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    of.keys().find_map(|node| visit(node, of, &mut done, &mut Vec::new()))
}

fn imports(root: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources = sources(root);
    let files: BTreeSet<String> = sources.keys().cloned().collect();
    let is_folder = |module: &String| files.iter().any(|other| other.starts_with(&format!("{module}::")));
    sources.iter().map(|(module, text)| (module.clone(), uses(module, is_folder(module), text, &files))).collect()
}

#[test]
fn imports_form_no_circle_between_files() {
    for root in ROOTS {
        if let Some(way) = circle(&imports(root)) {
            panic!("these files of {root} import each other in a circle: {}", way.join(" -> "));
        }
    }
}

/// Else it would be a way round: whatever the map hands on, everything could take from it.
#[test]
fn nothing_is_imported_from_the_map() {
    for root in ROOTS {
        for (module, used) in imports(root) {
            assert!(!used.contains(MAP), "{module} of {root} imports something by the name that it has for users");
        }
    }
}

/// The paragraphs of the stand-in's map are its floors.
#[test]
fn the_stand_in_imports_upwards_on_its_map_only() {
    let root = ROOTS[1];
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(root).join("lib.rs")).unwrap();
    let mut paragraph_of = BTreeMap::new();
    for (at, paragraph) in map.split("\n\n").enumerate() {
        let modules = paragraph.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        paragraph_of.extend(modules.map(|module| (module.to_owned(), at)));
    }
    for (module, used) in imports(root) {
        for other in used {
            assert!(paragraph_of[&other] <= paragraph_of[&module], "{module} imports {other}, which stands below it");
        }
    }
}

#[test]
fn imports_form_no_circle_between_folders() {
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let folder_of = |module: &str| {
        let mut names = module.split("::");
        let top = names.next().unwrap().to_owned();
        // The rooms of the policy are folders of their own.
        if top == "policy" { format!("{top}/{}", names.next().unwrap_or_default()) } else { top }
    };
    for (module, used) in imports(ROOTS[0]) {
        let from = folder_of(&module);
        for to in used.iter().map(|module| folder_of(module)).filter(|to| *to != from) {
            folders.entry(from.clone()).or_default().insert(to);
        }
    }
    if let Some(way) = circle(&folders) {
        panic!("these folders import each other in a circle: {}", way.join(" -> "));
    }
}

#[test]
fn imports_go_downwards_only() {
    let floor = |module: &str| {
        let folder = module.split("::").next().unwrap();
        FLOORS.iter().position(|name| *name == folder).unwrap_or_else(|| panic!("{folder} is on no floor"))
    };
    for (module, used) in imports(ROOTS[0]) {
        for other in used {
            assert!(floor(&other) <= floor(&module), "{module} imports {other}, which stands above it");
        }
    }
}

#[test]
fn the_ground_floor_decides_and_does_nothing() {
    let words = [
        "tokio",
        "hyper",
        "async ",
        ".await",
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net::Tcp",
        "std::thread",
        "std::env",
        "tracing::",
    ];
    for (module, text) in sources(ROOTS[0]).into_iter().filter(|(module, _)| module.starts_with("policy")) {
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in words {
                assert!(!line.contains(word), "{module}: {line}");
            }
        }
    }
}

/// Documents that name files which are gone send their readers nowhere.
#[test]
fn documents_name_only_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "stand-in/src", "tests", "benches", "fuzz"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let documents = fs::read_dir(root).unwrap().chain(fs::read_dir(root.join("docs")).unwrap());
    for document in
        documents.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "md"))
    {
        for name in fs::read_to_string(&document).unwrap().split('`').skip(1).step_by(2) {
            let is_source = Path::new(name).extension().is_some_and(|kind| kind == "rs") && !name.contains(['*', ' ']);
            let exists = files.iter().any(|file| file.ends_with(name));
            assert!(!is_source || exists, "{} names {name}, which is not there", document.display());
        }
    }
}

/// A feature that the stand-in asks of a library would hold for the whole program, and only where the stand-in is built
/// in. Order of keys is one that nobody would miss in a test.
#[test]
fn the_stand_in_does_not_change_the_json_of_the_program() {
    let value: serde_json::Value = serde_json::from_str(r#"{"b":1,"a":2}"#).unwrap();
    assert_eq!(value.to_string(), r#"{"a":2,"b":1}"#);
}

#[test]
fn no_file_is_longer_than_one_room() {
    let mut folders = ROOTS.map(|root| Path::new(env!("CARGO_MANIFEST_DIR")).join(root)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let lines = fs::read_to_string(&path).unwrap().lines().count();
                assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
            }
        }
    }
}

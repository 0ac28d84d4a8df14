//! `docs/BOUNDS.md` names every collection that a program keeps, and every channel, with its bound.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const COLLECTIONS: [&str; 8] = [
    "HashMap<",
    "BTreeMap<",
    "VecDeque<",
    "HashSet<",
    "BTreeSet<",
    "BinaryHeap<",
    "JoinSet<",
    "HashMapStateStore<",
];
/// A oneshot and a watch hold one value.
const QUEUES: [&str; 5] = [
    "mpsc::channel",
    "mpsc::sync_channel",
    "mpsc::unbounded_channel",
    "broadcast::channel",
    "JoinSet::new()",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            // The simulation is for benches alone.
            if !["tests", "simulation"].contains(&name) {
                sources(&path, found);
            }
        } else if name.ends_with(".rs")
            && !["tests.rs", "simulation.rs", "strangers.rs", "filling.rs"].contains(&name)
        {
            found.push(path);
        }
    }
}

/// The name that is declared in this line, if it is a field or type with a collection in it, a channel, or a set of tasks.
fn declared(line: &str) -> Option<&str> {
    let line = line.trim();
    let holds = |what: &[&str]| what.iter().any(|word| line.contains(word));
    let bare =
        line.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ").trim_start_matches("pub ");
    if line.starts_with("//") || line.starts_with("use ") || bare.starts_with("fn ") {
        return None;
    }
    if holds(&COLLECTIONS) {
        if let Some(rest) = bare.strip_prefix("struct ").or_else(|| bare.strip_prefix("type ")) {
            return rest.split(['(', ' ', '<', '=']).next();
        }
        // A field's line: `name: Type,`. What is borrowed is another's.
        let (name, of) = bare.split_once(": ")?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let is_field = is_name && of.ends_with(',') && !of.starts_with('&') && !of.contains("::new");
        return Some(name).filter(|_| is_field);
    }
    if holds(&QUEUES) && bare.starts_with("let ") {
        let name = bare.trim_start_matches("let ").trim_start_matches('(').trim_start_matches("mut ");
        return name.split([',', ' ', ':', ')']).next();
    }
    None
}

#[test]
fn every_collection_and_channel_stands_in_the_list_of_bounds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut found = BTreeSet::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let file = path.strip_prefix(root.join("src")).unwrap().display().to_string();
        found.extend(text.lines().filter_map(declared).map(|name| format!("{file} {name}")));
    }
    let page = fs::read_to_string(root.with_file_name("docs").join("BOUNDS.md")).unwrap();
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [file, names, what, bound] = cells[..] else { panic!("expected four cells: {row}") };
        assert!(!what.is_empty() && bound.chars().any(|c| c.is_ascii_alphanumeric()), "no bound: {row}");
        for name in names.split(", ") {
            let entry = format!("{} {}", file.trim_matches('`'), name.trim_matches('`'));
            assert!(listed.insert(entry), "twice: {row}");
        }
    }
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        unlisted.is_empty() && gone.is_empty(),
        "without a bound: {unlisted:#?}\nnot in the source: {gone:#?}"
    );
}

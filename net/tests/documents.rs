//! What the documents promise is held by tests that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Functions marked as tests.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    for directory in
        ["net/src", "net/tests", "core-nostd/src", "core-nostd/tests", "accel/src", "accel/tests"]
    {
        sources(&root().join(directory), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            let name =
                line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            match name {
                Some(name) if marked => {
                    names.insert(name.to_owned());
                    marked = false;
                }
                Some(_) => marked = false,
                None => marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
            }
        }
    }
    names
}

/// Rows of the table of promises: what stands in backticks in the last column.
fn promised(text: &str) -> Vec<(String, Vec<String>)> {
    let table = text.split("| promise | test |").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let (promise, test) = line.trim_matches('|').rsplit_once(" | ").unwrap();
        let names = test.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (promise.trim().to_owned(), names)
    };
    rows.map(row).collect()
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let security = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    assert!(security.lines().count() <= 200);
    let (tests, rows) = (tests(), promised(&security));
    assert!(rows.len() > 15, "{}", rows.len());
    let planted: String = fs::read_dir(root().join("net/tests/planted"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .flat_map(|patch| patch.lines().find(|line| line.starts_with("Test: ")).map(str::to_owned))
        .collect::<Vec<_>>()
        .join("\n");
    for (promise, names) in rows {
        assert!(!names.is_empty(), "{promise}");
        for name in &names {
            let program = name.starts_with(".ci/") || name.ends_with(".rs") || name.starts_with("swarmseal ");
            assert!(program || tests.contains(name), "{promise}: there is no test {name}");
        }
        if test_is_planted(&test_column(&security, &promise)) {
            let known = names.iter().any(|name| planted.lines().any(|line| tests_of(line, name)));
            assert!(known, "{promise}: no planted fault for {names:?}");
        }
    }
}

fn test_column(text: &str, promise: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("| {promise} |"))).unwrap();
    line.trim_matches('|').rsplit_once(" | ").unwrap().1.to_owned()
}

/// Marked by an asterisk.
fn test_is_planted(column: &str) -> bool {
    column.trim_start().starts_with('*')
}

/// Whether a line `Test: <arguments of cargo test>` runs that test.
fn tests_of(line: &str, name: &str) -> bool {
    line.rsplit(' ').next().is_some_and(|filter| name.contains(filter.rsplit("::").next().unwrap()))
}

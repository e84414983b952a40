//! docs/promises.md names only tests and checks that are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything in backticks in the right-hand column of the tables.
fn named(page: &str) -> BTreeSet<&str> {
    let cells = page.lines().filter_map(|line| line.strip_prefix('|')?.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

fn sources(directory: &Path, found: &mut String) {
    let entries = fs::read_dir(directory).expect("a directory of this workspace can be read");
    for path in entries.map(|entry| entry.expect("an entry can be read").path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).expect("a source can be read"));
        }
    }
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page can be read");
    let named = named(&page);
    assert!(named.len() > 40, "the page's tables were not found: {named:?}");
    let mut all = String::new();
    sources(&root(), &mut all);
    let is_there = |name: &&str| {
        all.contains(&format!("fn {name}(")) || all.contains(&format!("\"{name}\",\n"))
    };
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "promised, but no test: {missing:?}");
}

#[test]
fn every_row_of_a_promise_names_a_test() {
    let page = fs::read_to_string(root().join("docs/promises.md")).expect("the page can be read");
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let rows = rows.filter(|line| !line.contains("| Kept by |"));
    let without: Vec<_> = rows.filter(|line| !line.contains('`')).collect();
    assert!(without.is_empty(), "promises without a test: {without:?}");
}

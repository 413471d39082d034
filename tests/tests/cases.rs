//! Every case of the hostile catalogue has a test that bears its number, none bears a number that there is not, and the
//! README shows which. Run with `--nocapture` this prints the table that belongs there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ringyard_tests::catalogue::entries;
use ringyard_tests::{Doing, Result};

/// The numbers that a test's name begins with: `g07_…`, `p06_p07_…`, `h01_to_h06_…`.
fn numbers(name: &str) -> Vec<String> {
    let number = |word: &str| {
        let (letter, digits) = word.split_at_checked(1)?;
        let known = "ghpsqf".contains(letter) && digits.len() == 2;
        if known { digits.parse::<u32>().ok().map(|digits| (letter.to_uppercase(), digits)) } else { None }
    };
    let mut all: Vec<(String, u32)> = Vec::new();
    let mut range = false;
    for word in name.split('_') {
        match (number(word), all.last().cloned()) {
            (Some((letter, last)), Some((_, first))) if range => {
                all.extend((first + 1..=last).map(|digits| (letter.clone(), digits)));
                range = false;
            }
            (Some(found), _) => all.push(found),
            (None, Some(_)) if word == "to" => range = true,
            (None, _) => break,
        }
    }
    all.into_iter().map(|(letter, digits)| format!("{letter}{digits:02}")).collect()
}

/// The test that a line of source names, as a function or in a list of a macro's.
fn test_in(line: &str) -> Option<&str> {
    let line = line.trim();
    let name = match line.strip_prefix("fn ") {
        Some(rest) => rest.split('(').next()?,
        None => line,
    };
    let is_word = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (name.len() > 4 && is_word(name) && !numbers(name).is_empty()).then_some(name)
}

/// All tests with numbers below `directory`, by number.
fn tests_below(directory: &Path, found: &mut BTreeMap<String, Vec<String>>) -> Result<()> {
    for entry in fs::read_dir(directory).doing(format!("listing {}", directory.display()))? {
        let path = entry.doing("listing a directory")?.path();
        if path.is_dir() {
            tests_below(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).doing(format!("reading {}", path.display()))?;
            for name in text.lines().filter_map(test_in) {
                for number in numbers(name) {
                    found.entry(number).or_default().push(name.into());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn every_case_of_the_catalogue_has_a_test() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = BTreeMap::new();
    for package in ["dataplane", "drivers", "benches", "control", "tests"] {
        for part in ["src", "tests"] {
            let directory = root.join(package).join(part);
            if directory.is_dir() {
                tests_below(&directory, &mut tests)?;
            }
        }
    }
    let entries = entries();
    assert_eq!(entries.len(), 104);
    let mut table = String::from("| case | what | tests | verdict |\n|---|---|---|---|\n");
    let mut without = Vec::new();
    for entry in &entries {
        let mut named = tests.remove(entry.id).unwrap_or_default();
        // Whatever the order of the files.
        named.sort_unstable();
        match named.first() {
            Some(first) => {
                let more =
                    if named.len() > 1 { format!(" and {} more", named.len() - 1) } else { String::new() };
                table +=
                    &format!("| {} | {} | `{first}`{more} | {} |\n", entry.id, entry.what, entry.verdict);
            }
            None => without.push(entry.id),
        }
    }
    assert!(without.is_empty(), "no test of {without:?}");
    assert!(tests.is_empty(), "there are no such cases: {tests:?}");
    println!("{table}");
    let readme = fs::read_to_string(root.join("README.md")).doing("reading the README")?;
    assert!(
        readme.contains(&table),
        "the README's table is another one: replace it by what --nocapture prints"
    );
    Ok(())
}

#[test]
fn names_say_which_cases_they_are_about() {
    assert_eq!(numbers("g07_address_wraps"), ["G07"]);
    assert_eq!(numbers("p06_p07_p09_regions"), ["P06", "P07", "P09"]);
    assert_eq!(numbers("h01_to_h04_headers"), ["H01", "H02", "H03", "H04"]);
    assert!(numbers("ring_of_g07").is_empty());
    assert_eq!(test_in("    fn g07_wraps() -> Result<()> {"), Some("g07_wraps"));
    assert_eq!(test_in("    g07_wraps"), Some("g07_wraps"));
    assert_eq!(test_in("let g07_wraps = 1;"), None);
    assert_eq!(test_in("f64"), None);
}

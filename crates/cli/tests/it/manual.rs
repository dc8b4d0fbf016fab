//! The manual pages of `realm man`, as `man` shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use crate::cluster;

/// What each command says of itself: its name, and the long flags of its options.
fn commands(reference: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sections = reference.split("\n## ").skip(1);
    let section = |text: &str| {
        let (name, help) = text.split_once('\n').unwrap();
        let options = help.lines().map(str::trim_start);
        let options = options.filter(|line| line.starts_with('-'));
        let flags = options.filter_map(|line| {
            let (_, flag) = line.split_once("--")?;
            let end = flag.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-');
            Some(format!("--{}", &flag[..end.unwrap_or(flag.len())]))
        });
        (name.to_owned(), flags.collect())
    };
    sections.map(section).collect()
}

/// The page as a reader of it sees it, and what the formatter has to say about its source.
fn formatted(page: &Path) -> Option<(String, String)> {
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-P-c", "-rLL=200n"])
        .arg(page)
        .output();
    let Ok(groff) = groff else {
        realm_testkit::skipped("groff is not installed (Debian package groff)");
        return None;
    };
    let shown = String::from_utf8(groff.stdout).unwrap();
    // Bold and underlined letters are each printed over themselves.
    let mut plain = String::new();
    for letter in shown.chars() {
        match letter {
            '\u{8}' => drop(plain.pop()),
            _ => plain.push(letter),
        }
    }
    Some((plain, String::from_utf8(groff.stderr).unwrap()))
}

#[test]
fn every_command_has_a_page_that_is_formatted_and_names_its_flags() {
    let realm = cluster();
    let dir = realm.path().join("man1");
    realm.ok(&["man", "--dir", dir.to_str().unwrap()]);
    let commands = commands(&realm.ok(&["help", "all"]));
    assert!(commands.len() > 40, "{commands:?}");
    assert!(commands["realm push"].contains("--memory-max-mb"));

    let pages: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .collect();
    let named = |name: &String| format!("{}.1", name.replace(' ', "-"));
    let wanted: BTreeSet<String> = commands.keys().map(named).collect();
    assert_eq!(pages, wanted);

    for (name, flags) in &commands {
        let Some((text, remarks)) = formatted(&dir.join(named(name))) else {
            return;
        };
        assert_eq!(remarks, "", "{name}");
        assert!(text.contains("SYNOPSIS"), "{name}: {text}");
        for flag in flags {
            assert!(text.contains(flag), "{name}: no {flag} in {text}");
        }
    }
}

#[test]
fn the_page_on_standard_output_is_the_first_one() {
    let realm = cluster();
    let dir = realm.path().display().to_string();
    realm.ok(&["man", "--dir", &dir]);
    let page = std::fs::read_to_string(realm.path().join("realm.1")).unwrap();
    assert_eq!(realm.ok(&["man"]).trim_end(), page.trim_end());
}

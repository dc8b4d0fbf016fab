//! The dashboard in `contrib/`, by Grafana's own types: its server is in no registry that tests fetch from.

use std::{path::Path, process::Command};

use realm_testkit::skipped;

/// Of the schema of dashboards that ours names, and a compiler that reads it.
const PACKAGES: [&str; 2] = ["@grafana/schema@11.6.16", "typescript@5.7.3"];
const TYPES: &str = include_str!("grafana/dashboard.ts");
const DASHBOARD: &str = include_str!("../../../../contrib/grafana/realm.json");

/// What is wrong with a dashboard; nothing where Grafana knows all of it.
fn wrong(dir: &Path, dashboard: &str) -> String {
    let program = TYPES.replace("= DASHBOARD;", &format!("= {dashboard};"));
    std::fs::write(dir.join("dashboard.ts"), program).unwrap();
    let output = Command::new(dir.join("node_modules/.bin/tsc"))
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--target",
            "es2022",
        ])
        .args(["--module", "esnext", "--moduleResolution", "bundler"])
        .arg("dashboard.ts")
        .current_dir(dir)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), told.is_empty(), "{told}");
    told
}

#[test]
fn grafana_knows_every_field_of_the_dashboard() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("package.json"), "{}").unwrap();
    let install = || {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund"])
            // A registry that does not answer is not waited for as long as npm would.
            .args(["--ignore-scripts", "--fetch-timeout=30000"])
            .args(["--fetch-retries=1"])
            .args(PACKAGES)
            .current_dir(&dir);
        npm.output().is_ok_and(|output| output.status.success())
    };
    if !install() && !install() {
        skipped(&format!(
            "npm install {} did not work here",
            PACKAGES.join(" ")
        ));
        return;
    }
    assert_eq!(wrong(dir.path(), DASHBOARD), "");
    for (whole, spoiled, told) in [
        (
            r#""title": "Ready nodes""#,
            r#""titel": """#,
            "'\"titel\"' does not exist",
        ),
        (
            r#""type": "stat""#,
            r#""type": "state""#,
            "Type '\"state\"' is not assignable",
        ),
        (
            r#""mode": "absolute""#,
            r#""mode": "all""#,
            "Type '\"all\"' is not assignable",
        ),
        (
            r#""textMode": "auto""#,
            r#""text": "auto""#,
            "Type 'string' has no properties",
        ),
        (
            r#""showHeader": true"#,
            r#""showHead": true"#,
            "'\"showHead\"' does not exist",
        ),
        (
            r#""refresh": 2"#,
            r#""refresh": 7"#,
            "Type '7' is not assignable",
        ),
        (
            r#""sort": "desc""#,
            r#""sort": "down""#,
            "Type '\"down\"' is not assignable",
        ),
    ] {
        assert!(DASHBOARD.contains(whole), "{whole}");
        let spoiled = DASHBOARD.replacen(whole, spoiled, 1);
        let found = wrong(dir.path(), &spoiled);
        assert!(found.contains(told), "{told}: {found}");
    }
}

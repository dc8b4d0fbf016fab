//! What lies in `contrib/`, loaded by the program it is made for.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use realm_testkit::wait_for;
use serde_json::{Value, json};

use crate::{KilledAtTheEnd, cluster, debian, free_port, guest, http::ask, page::http_address};

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../contrib")
        .join(path)
        .canonicalize()
        .unwrap()
}

/// A real Prometheus that scrapes `targets` and has the rules of `contrib/`.
struct Prometheus {
    _process: KilledAtTheEnd,
    address: String,
}

impl Prometheus {
    fn start(program: &Path, dir: &Path, targets: &[String]) -> Self {
        let example = std::fs::read_to_string(contrib("prometheus/prometheus.yml")).unwrap();
        let rules = contrib("prometheus/realm.rules.yml");
        let config = example
            .replace("15s", "1s\n  evaluation_interval: 1s")
            .replace("realm.rules.yml", &rules.display().to_string())
            .replace("[\"127.0.0.1:9920\"]", &format!("{targets:?}"));
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(dir.join("prometheus.log")).unwrap();
        let process = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = KilledAtTheEnd(process);
        wait_for("prometheus answers", || {
            std::net::TcpStream::connect(&address).ok()?;
            (ask(&address, "/-/ready", &[], None).0 == 200).then_some(())
        });
        Self {
            _process: process,
            address,
        }
    }

    fn get(&self, path: &str) -> Value {
        let (code, body) = ask(&self.address, path, &[], None);
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["data"].take()
    }

    fn query(&self, query: &str) -> Vec<Value> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={query}"));
        data["result"].as_array().unwrap().clone()
    }

    fn rules(&self) -> Vec<Value> {
        let groups = self.get("/api/v1/rules")["groups"].take();
        groups[0]["rules"].as_array().unwrap().clone()
    }
}

/// What the dashboard asks, with everything chosen: title of the panel, and query.
fn dashboard() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(contrib("grafana/realm.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let query = query.replace("$node", ".*").replace("$component", ".*");
            // The test does not wait for five minutes.
            let query = query.replace("[5m]", "[10s]");
            asked.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    asked
}

/// The metric and the label whose values a variable of the dashboard offers.
fn variables() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(contrib("grafana/realm.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let asked = variables.filter(|one| one["type"] == "query").map(|one| {
        let query = one["query"]["query"].as_str().unwrap();
        let inside = query.strip_prefix("label_values(").unwrap();
        let (metric, label) = inside.strip_suffix(')').unwrap().split_once(", ").unwrap();
        let name = one["name"].as_str().unwrap();
        [name, metric, label].map(str::to_owned).into()
    });
    asked.collect()
}

#[test]
fn a_real_prometheus_scrapes_and_has_all_that_the_dashboard_and_the_alerts_ask_for() {
    let Some(program) = debian::program("prometheus", "usr/bin/prometheus") else {
        return;
    };
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.add_node("two", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let ticker = guest("ticker.wasm");
    realm.ok(&["push", "ticker", &ticker, "--wait", "--via", &via]);
    let spin = guest("spin.wasm");
    let fuel = ["--fuel", "1000000", "--via", &via];
    realm.ok(&[&["push", "spin", &spin][..], &fuel].concat());

    let targets = ["one", "two"].map(|node| http_address(&realm, node));
    let prometheus = Prometheus::start(&program, realm.path(), &targets);
    wait_for("both agents are scraped", || {
        (prometheus.query("up{job=\"realm\"} == 1").len() == 2).then_some(())
    });
    let offered: Vec<(String, Value)> = variables()
        .into_iter()
        .map(|(name, metric, label)| {
            // As Grafana asks for `label_values(metric, label)`.
            let values = format!("/api/v1/label/{label}/values?match%5B%5D={metric}");
            let values = wait_for(&format!("values of ${name}"), || {
                let values = prometheus.get(&values);
                let count = values.as_array().unwrap().len();
                (count == 2).then_some(values)
            });
            (name, values)
        })
        .collect();
    let both = [
        ("node".to_owned(), json!(["one", "two"])),
        ("component".to_owned(), json!(["spin", "ticker"])),
    ];
    assert_eq!(offered, both);
    for (panel, query) in dashboard() {
        wait_for(&format!("figures of {panel:?}: {query}"), || {
            let figures = prometheus.query(&query);
            (!figures.is_empty()).then_some(())
        });
    }
    wait_for("every rule was tried", || {
        let rules = prometheus.rules();
        let bad = rules.iter().find(|rule| rule["health"] == "err");
        assert_eq!(bad, None);
        rules
            .iter()
            .all(|rule| rule["health"] == "ok")
            .then_some(())
    });
    let state = |alert: &str| {
        let rules = prometheus.rules();
        let rule = rules.iter().find(|rule| rule["name"] == alert);
        rule.unwrap_or_else(|| panic!("no rule {alert}"))["state"].clone()
    };
    assert_eq!(state("RealmAgentDown"), "inactive");
    realm.kill("two");
    for alert in ["RealmAgentDown", "RealmNodeLost"] {
        wait_for(alert, || (state(alert) != "inactive").then_some(()));
    }
}

/// Names of the alerts that `contrib/` has, in its order.
fn alerts() -> Vec<String> {
    let rules = std::fs::read_to_string(contrib("prometheus/realm.rules.yml")).unwrap();
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    alerts.map(str::to_owned).collect()
}

#[test]
fn operators_read_of_every_alert_and_of_no_other() {
    let page = std::fs::read_to_string(contrib("../docs/operating/alarms.md")).unwrap();
    let (_, table) = page.split_once("| alert | what it means |").unwrap();
    let rows = table.lines().filter_map(|row| row.strip_prefix("| `"));
    let told: Vec<&str> = rows.map(|row| row.split_once("` | ").unwrap().0).collect();
    assert!(told.len() > 5, "{page}");
    assert_eq!(told, alerts());
}

#[test]
fn every_alert_fires_for_what_it_tells_of_and_not_before() {
    let Some(promtool) = debian::program("prometheus", "usr/bin/promtool") else {
        return;
    };
    let tests = contrib("prometheus/realm.rules.test.yml");
    let output = Command::new(promtool)
        .args(["test", "rules"])
        .arg(&tests)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}");
    let tests = std::fs::read_to_string(tests).unwrap();
    for alert in alerts() {
        assert!(
            tests.contains(&format!("- name: {alert}")),
            "{alert} has no test"
        );
    }
}

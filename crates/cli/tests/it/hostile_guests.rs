//! Programs that try what is not theirs, beside a real agent.

use realm_testkit::wait_for;

use crate::{cluster, guest, page::http_address};

#[test]
fn a_program_reaches_no_port_of_its_own_agent() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    realm.wait_ready("one");
    let via = realm.address("one");
    let mesh = via
        .split("/tcp/")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let http = http_address(&realm, "one");
    let http = http.rsplit(':').next().unwrap();
    let mut targets = Vec::new();
    for port in [mesh, http] {
        for ip in [
            "127.0.0.1",
            "127.0.0.2",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
        ] {
            targets.extend(["tcp", "udp", "udpto"].map(|verb| format!("{verb}:{ip}:{port}")));
        }
        targets.push(format!("tcpname:localhost:{port}"));
    }
    let args = targets.iter().flat_map(|target| ["--arg", target]);
    let probe = guest("net-probe.wasm");
    for (name, allowed) in [
        ("none", &[][..]),
        ("names", &["--allow", "tcp://*", "--allow", "udp://*"]),
    ] {
        let push = ["push", name, &probe, "--restart", "never", "--via", &via];
        let flags: Vec<&str> = args.clone().chain(allowed.iter().copied()).collect();
        realm.ok(&[&push[..], &flags].concat());
        let lines = wait_for("it has tried all", || {
            let lines = realm.ok(&["logs", name, "--via", &via]);
            (lines.lines().count() >= targets.len()).then_some(lines)
        });
        for line in lines.lines() {
            let nothing = line.contains(": error: ") || line.trim_end().ends_with(": ok");
            assert!(nothing, "{name}: {line}");
        }
    }
}

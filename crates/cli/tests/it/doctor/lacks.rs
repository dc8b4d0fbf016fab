//! What a machine lacks, made so that it is lacking: room, whole keys, ports, multicast, Landlock, memory.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use realm_identity::{PublicKey, SecretKey, Signed};
use realm_manifest::report::NodeReport;
use realm_rpc::Sighting;
use realm_testkit::{
    Cluster, Net, Printed,
    strace::{Fault, Point, has_strace, strace},
};
use serde_json::Value;

use super::{all, found, printed, without_remedy};
use crate::{
    cluster,
    disk::SmallDisk,
    liar::{Liar, listen_to},
};

/// What the doctor says below another program.
fn below(mut wrapper: Command, realm: &Cluster, more: &[&str]) -> Printed {
    let plain = realm.command();
    for (key, value) in plain.get_envs() {
        value.map(|value| wrapper.env(key, value));
    }
    wrapper.args(["doctor", "-o", "json"]).args(more);
    printed(&mut wrapper)
}

/// The one finding of a check is as bad as this, in these words, and this helps.
fn is_told(printed: &Printed, check: &str, (state, words, help): (&str, &str, &str)) {
    let findings = all(printed, check);
    let is_it = |one: &&(String, String, Option<String>)| one.0 == state && one.1.contains(words);
    let one = findings.iter().find(is_it);
    let one = one.unwrap_or_else(|| panic!("{words}: {findings:?}"));
    let told = one.2.as_deref().unwrap_or_default();
    assert!(told.contains(help), "{help}: {told}");
    assert_eq!(without_remedy(printed), Vec::<Value>::new());
}

#[test]
fn the_doctor_sees_little_room_and_compiled_code_that_is_not_kept() {
    let realm = cluster();
    let Some(_disk) = SmallDisk::mount(&realm.path().join("small"), 4) else {
        return;
    };
    let [state, data] = ["state", "data"].map(|name| realm.path().join("small").join(name));
    let (state, data) = (state.display().to_string(), data.display().to_string());
    let ask = [
        "doctor",
        "-o",
        "json",
        "--state-dir",
        &state,
        "--data",
        &data,
    ];
    let little = realm.run(&ask);
    for check in ["state", "disk"] {
        is_told(&little, check, ("warning", " free at ", "free room"));
    }
    assert_eq!(found(&little, "cache").0, "ok", "{}", little.stdout);

    let mut filler = File::create(realm.path().join("small/filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    let full = realm.run(&ask);
    assert_eq!(found(&full, "sandbox").0, "ok", "{}", full.stdout);
    let words = format!("is not kept in {state}/compiled: every program is compiled at each start");
    is_told(&full, "cache", ("warning", &words, "free room there"));
    is_told(&full, "disk", ("warning", "0 B free at ", "free room"));
}

#[test]
fn the_doctor_sees_compiled_code_that_somebody_else_can_write() {
    let realm = cluster();
    let compiled = realm.path().join("data/compiled");
    fs::create_dir_all(&compiled).unwrap();
    fs::write(compiled.join("one.code"), [0; 2048]).unwrap();
    let closed = fs::Permissions::from_mode(0o600);
    fs::set_permissions(compiled.join("one.code"), closed).unwrap();
    let data = realm.path().join("data").display().to_string();
    let ask = ["doctor", "-o", "json", "--data", &data];
    let well = all(&realm.run(&ask), "cache");
    let words = format!("2 KiB of compiled code in {}", compiled.display());
    assert!(
        well.iter().any(|one| one.0 == "ok" && one.1 == words),
        "{well:?}"
    );

    let open = fs::Permissions::from_mode(0o666);
    fs::set_permissions(compiled.join("one.code"), open).unwrap();
    let remedy = format!("stop the agent, rm -r {}", compiled.display());
    let words = "1 of the files in ";
    is_told(&realm.run(&ask), "cache", ("warning", words, &remedy));
}

#[test]
fn the_doctor_sees_keys_that_are_damaged_or_open() {
    let mut realm = cluster();
    realm.add_node("one", &[]);
    assert_eq!(realm.stop("one"), 0);
    let data = realm.data("one").display().to_string();
    let look = || realm.run(&["doctor", "-o", "json", "--data", &data]);
    let well = look();
    assert_eq!(found(&well, "key").0, "ok", "{}", well.stdout);
    assert_eq!(found(&well, "data").0, "ok", "{}", well.stdout);

    let key = realm.path().join("config/owner.key");
    let whole = fs::read(&key).unwrap();
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let words = "others can read the private key";
    is_told(&look(), "key", ("problem", words, "chmod 600 "));
    mode(0o600);
    for damage in [&whole[..whole.len() / 2], b"no key at all", b""] {
        fs::write(&key, damage).unwrap();
        let ill = look();
        assert_eq!(ill.code, 1);
        let words = "cannot read the key in ";
        is_told(&ill, "key", ("problem", words, "from a backup"));
    }
    fs::write(&key, &whole).unwrap();

    let node = Path::new(&data).join("node.key");
    let mut bytes = fs::read(&node).unwrap();
    bytes[0] ^= 1;
    fs::write(&node, bytes).unwrap();
    let ill = look();
    assert_eq!(ill.code, 1);
    let words = "/node.key is damaged: no agent starts with it";
    is_told(
        &ill,
        "data",
        ("problem", words, "enroll this machine as a new node"),
    );
}

#[test]
fn the_doctor_sees_taken_ports_and_a_network_without_multicast() {
    let Some(net) = Net::new(1) else { return };
    let (realm, host) = (cluster(), &net.hosts()[0]);
    let look = || below(host.command(realm.command().get_program()), &realm, &[]);
    let well = look();
    assert_eq!(found(&well, "ports").0, "ok", "{}", well.stdout);
    assert_eq!(found(&well, "multicast").0, "ok", "{}", well.stdout);

    let listens = host.within(|| {
        let udp = UdpSocket::bind("0.0.0.0:2020").unwrap();
        (udp, TcpListener::bind("127.0.0.1:9920").unwrap())
    });
    let taken = look();
    let both = "udp 2020: Address already in use (os error 98); tcp 9920: Address already in use";
    is_told(
        &taken,
        "ports",
        ("warning", both, "--listen ADDR --http ADDR"),
    );
    drop(listens);
    assert_eq!(found(&look(), "ports").0, "ok");

    let down = host
        .command("ip")
        .args(["link", "set", "eth0", "down"])
        .status();
    assert!(down.unwrap().success());
    let words = "nodes of the local network are not found by themselves: ";
    is_told(
        &look(),
        "multicast",
        ("warning", words, "realm peer add ADDR"),
    );
}

#[test]
fn the_doctor_sees_a_kernel_without_landlock() {
    if !has_strace() {
        realm_testkit::skipped("strace is not installed");
        return;
    }
    let realm = cluster();
    let point = Point {
        call: "landlock_create_ruleset",
        nth: 1,
        path: None,
        fault: Fault::Error("ENOSYS"),
    };
    let old = below(strace(realm.command().get_program(), &point), &realm, &[]);
    let words = "landlock is missing from this kernel";
    is_told(
        &old,
        "sandbox",
        ("problem", words, "Linux 5.13 or newer with Landlock"),
    );
    assert_eq!(old.code, 1);
}

#[test]
fn the_doctor_sees_a_kernel_that_gives_no_memory_beyond_what_is_there() {
    let realm = cluster();
    let mode = realm.path().join("mode");
    fs::write(&mode, "2\n").unwrap();
    // The machine's own is everybody's: this process alone sees another one.
    let script = "mount --bind \"$0\" /proc/sys/vm/overcommit_memory || exit 77; exec \"$@\"";
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "sh", "-c", script]).arg(&mode);
    unshare.arg(realm.command().get_program());
    let strict = below(unshare, &realm, &[]);
    if strict.stdout.is_empty() {
        realm_testkit::skipped("mounting needs root or user namespaces");
        return;
    }
    let words = "vm.overcommit_memory is 2";
    is_told(
        &strict,
        "memory",
        ("problem", words, "sysctl vm.overcommit_memory=0"),
    );
    assert_eq!(strict.code, 1);
    let own = fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap();
    let expected = match own.trim() {
        "2" => "problem",
        _ => "ok",
    };
    let own = found(&realm.run(&["doctor", "-o", "json"]), "memory");
    assert_eq!(own.0, expected);
}

#[test]
fn the_doctor_names_the_nodes_of_another_version() {
    let mut realm = cluster();
    for name in ["one", "two"] {
        realm.add_node(name, &[]);
    }
    realm.wait_ready("one");
    let one = realm.address("one");
    let look = |via: &str| realm.run(&["doctor", "-o", "json", "--via", via]);
    assert_eq!(found(&look(&one), "versions").0, "ok");

    // What two would say if it were older, under its own signature.
    let seed: [u8; 32] = fs::read(realm.data("two").join("node.key")).unwrap()[..32]
        .try_into()
        .unwrap();
    let two = SecretKey::from_seed(&seed);
    let liar = SecretKey::from_seed(&[66; 32]);
    let mut told = listen_to(&realm, &one, liar.public());
    let key: PublicKey = two.public();
    let sighting = &told.survey.nodes[&key];
    let wire = sighting.report.as_deref().unwrap();
    let mut report = Signed::<NodeReport>::from_wire(wire).unwrap().into_inner();
    report.version = "realm/0.0.9".into();
    let Ok(report) = Signed::sign(report, &two);
    let older = Sighting {
        report: Some(report.to_wire().into()),
        ..sighting.clone()
    };
    told.survey.nodes.insert(key, older);
    let liar = Liar::at("/ip4/127.0.0.1/tcp/0", told, liar);
    let words = "realm/0.0.9: two";
    is_told(
        &look(&liar.address),
        "versions",
        ("warning", words, "upgrade the nodes"),
    );
}

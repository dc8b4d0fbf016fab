//! Makes corpora of what a real realm writes, sends and prints. Longer than a test, and seldom needed.

#![expect(
    clippy::unwrap_used,
    reason = "a recorder that cannot set its scene should say so and stop"
)]

mod programs;
mod talk;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use realm_identity::{
    Hash, InviteToken, SealingSecret, SecretKey, Signed,
    format::{self, EncryptionNonce, Format, sshsig},
    sealing,
};
use realm_manifest::report::NodeReport;
use realm_store::{Ledger, LedgerContents};
use realm_testkit::Cluster;

use crate::{
    node::Op,
    scene, script,
    sessions::{self, Side},
    state::{self, AGENTS, CHECKED},
};
use talk::talk;

/// A longer input is left out: what it has is in shorter ones.
const MAX_BYTES: usize = 48 * 1024;

/// Adds what a realm of the named program wrote, and what its parts say to each other, to the corpora in
/// `to`; `cargo xtask fuzz-merge` then keeps what reaches something new.
pub fn record(binary: &Path, to: &Path) {
    let keep = |target: &str, input: &[u8]| keep(to, target, input);
    for side in Side::ALL {
        for asked in sessions::record(side) {
            keep("sessions", &asked);
        }
    }
    for program in programs::texts() {
        keep("inspection", &wat::parse_str(program).unwrap());
    }
    config(&keep);
    let realm = Recorded::new(binary.to_owned());
    realm.intents(&keep);
    realm.logs(&keep);
    realm.state(&keep);
    realm.tokens(&keep);
    realm.texts(&keep);
    for ear in [0, 3] {
        let heard = talk(ear, &realm.report());
        keep("frames", &heard.frames);
        keep("gossip", &heard.gossip);
        for frame in heard.each {
            let mut input = vec![u8::from(ear == 3)];
            script::push(&mut input, Op::Chained.byte(0), &frame);
            keep("frames", &input);
        }
    }
}

/// Where an input goes: its target, and its bytes.
type Keep<'k> = &'k dyn Fn(&str, &[u8]);

fn keep(to: &Path, target: &str, input: &[u8]) {
    if input.len() > MAX_BYTES {
        return;
    }
    let dir = to.join(target);
    fs::create_dir_all(&dir).unwrap();
    let name = Hash::of(input).to_string();
    let digits: String = name.chars().rev().take(16).collect();
    fs::write(dir.join(digits), input).unwrap();
}

/// A realm of two nodes that ran something, and was stopped.
struct Recorded {
    cluster: Cluster,
    contents: LedgerContents,
    tokens: Vec<String>,
    printed: Vec<String>,
}

impl Recorded {
    fn new(binary: PathBuf) -> Self {
        let mut cluster = Cluster::new(binary);
        cluster.add_node("one", &["edge", "zone=a"]);
        cluster.add_node("two", &[]);
        cluster.wait_ready("one");
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/prebuilt");
        let via = cluster.address("one");
        // An intent says where its program was found: no machine's own paths are recorded.
        let ok = |args: &[&str]| {
            let mut command = cluster.command();
            let command = command
                .current_dir(&guests)
                .args(args)
                .args(["--via", &via]);
            let printed = command.output().unwrap();
            assert!(printed.status.success(), "realm {args:?}: {printed:?}");
            String::from_utf8(printed.stdout).unwrap()
        };
        ok(&["push", "hello", "hello.wasm", "--env", "A=b", "-m", "first"]);
        let allow = "tcp://192.0.2.7:5432";
        ok(&[
            "push",
            "sleeper",
            "sleeper.wasm",
            "--replicas",
            "2",
            "--allow",
            allow,
            "--no-start",
        ]);
        ok(&["start", "sleeper"]);
        ok(&["scale", "sleeper=1"]);
        ok(&["restart", "sleeper"]);
        ok(&["nodes", "tag", "two", "zone=b"]);
        ok(&["nodes", "drain", "two"]);
        ok(&["nodes", "undrain", "two"]);
        ok(&["stop", "sleeper"]);
        ok(&["rm", "hello"]);
        let printed = vec![
            ok(&["status", "-o", "json"]),
            ok(&["network", "-o", "json"]),
        ];
        let invite = [
            "invite",
            "--quiet",
            "--name",
            "four",
            "--tag",
            "zone=a",
            "--bootstrap",
            &via,
        ];
        let tokens = vec![cluster.ok(&["invite", "--quiet"]), cluster.ok(&invite)];
        // What a running agent says of itself goes when it stops.
        let told = fs::read(cluster.data("one").join("agent.json")).unwrap();
        for node in ["one", "two"] {
            assert_eq!(cluster.stop(node), 0);
        }
        fs::write(cluster.data("one").join("agent.json"), told).unwrap();
        let ledger = Ledger::open(&cluster.data("one").join("ledger.redb")).unwrap();
        let contents = ledger.load().unwrap();
        Self {
            cluster,
            contents,
            tokens,
            printed,
        }
    }

    fn report(&self) -> NodeReport {
        let (_, _, wire) = &self.contents.reports[0];
        Signed::<NodeReport>::from_wire(wire).unwrap().into_inner()
    }

    fn intents(&self, keep: Keep<'_>) {
        let mut all = Vec::new();
        for item in &self.contents.entries {
            let payload = item.payload.clone().unwrap_or_default();
            let mut one = Vec::new();
            for input in [&mut one, &mut all] {
                script::push(input, 0, &item.entry);
                script::push(input, 0, &payload);
            }
            keep("intents", &item.entry);
            keep("intents", &one);
        }
        keep("intents", &all);
        for item in &scene::scene().log {
            let mut one = Vec::new();
            script::push(&mut one, 0, &item.entry);
            script::push(&mut one, 0, item.payload.as_deref().unwrap_or_default());
            keep("intents", &one);
        }
        keep("intents", self.contents.genesis.as_ref().unwrap());
        for claim in &self.contents.claims {
            keep("intents", claim);
        }
        for (_, _, report) in &self.contents.reports {
            keep("intents", report);
        }
    }

    fn logs(&self, keep: Keep<'_>) {
        // The realm of the scene, whose entries a fuzzer can sign again; and the recorded one.
        let ours: Vec<_> = scene::scene()
            .log
            .iter()
            .map(|item| (item.entry.clone(), item.payload.clone()))
            .collect();
        let theirs = self.contents.entries.iter();
        let theirs: Vec<_> = theirs
            .map(|item| (item.entry.clone(), item.payload.clone()))
            .collect();
        for (entries, genesis) in [(ours, None), (theirs, self.contents.genesis.as_ref())] {
            let mut input = Vec::new();
            match genesis {
                None => script::push(&mut input, 1, b""),
                Some(wire) => script::push(&mut input, 0, wire),
            }
            for (entry, payload) in entries {
                script::push(&mut input, 4, payload.as_deref().unwrap_or_default());
                script::push(&mut input, 2, &entry);
                script::push(&mut input, 9, b"");
            }
            for claim in &self.contents.claims {
                script::push(&mut input, 5, claim);
            }
            for (_, _, report) in &self.contents.reports {
                script::push(&mut input, 6, report);
            }
            script::push(&mut input, 8, b"");
            script::push(&mut input, 10, b"");
            keep("logs", &input);
            script::push(&mut input, 11, &[0, 0, 0x10, 0, 0xff]);
            keep("logs", &input);
            script::push(&mut input, 11, &[1, 0, 0, 9, 0xff]);
            keep("logs", &input);
        }
    }

    /// The state directory of the person, with the realm in it.
    fn person(&self) -> PathBuf {
        let realms = self.cluster.path().join("state/realms");
        let mut entries = fs::read_dir(realms).unwrap();
        entries.next().unwrap().unwrap().path()
    }

    fn state(&self, keep: Keep<'_>) {
        let (agent, person) = (self.cluster.data("one"), self.person());
        let mut all = Vec::new();
        for (number, name) in state::files().into_iter().enumerate() {
            let dir = if number < AGENTS { &agent } else { &person };
            let path = match name {
                "current" => self.cluster.path().join("state/current"),
                name => dir.join(name),
            };
            let Ok(bytes) = fs::read(path) else { continue };
            // The last 32 bytes are the checksum of those that have one; it is made again.
            let content = match number {
                0..CHECKED => &bytes[..bytes.len() - 32],
                _ => &bytes[..],
            };
            let mut one = Vec::new();
            script::push(&mut one, number as u8, content);
            script::push(&mut all, number as u8, content);
            keep("state", &one);
        }
        keep("state", &all);
        // The recorded realm is another one: what it forgot to have are intents on their way.
        let item = &scene::scene().log[0];
        let pair = [item.entry.clone(), item.payload.clone().unwrap()];
        let pair: Vec<_> = pair.map(minicbor::bytes::ByteVec::from).into();
        let sealed = minicbor::to_vec((&pair[0], &pair[1])).unwrap();
        for number in [17, 18] {
            let mut one = Vec::new();
            script::push(&mut one, number, &sealed);
            keep("state", &one);
        }
    }

    fn tokens(&self, keep: Keep<'_>) {
        for token in &self.tokens {
            keep("tokens", token.trim().as_bytes());
            let token: InviteToken = token.parse().unwrap();
            keep("tokens", &token.invite().to_wire());
        }
        let secret = SecretKey::from_seed(&[7; 32]);
        for format in [Format::Base58, Format::OpenSsh, Format::Pem] {
            let public = format::write_public(&secret.public(), format, "home").unwrap();
            keep("tokens", public.as_bytes());
            let private = format::write_secret(&secret, format, "home").unwrap();
            keep("tokens", private.as_bytes());
        }
        let nonce = EncryptionNonce {
            salt: [3; 16],
            check: 7,
        };
        let closed = format::encrypt_secret(&secret, "home", b"open sesame", nonce).unwrap();
        keep("tokens", closed.as_bytes());
        let signature = sshsig::sign(&scene::owner(), "realm", b"message").unwrap();
        keep("tokens", signature.as_bytes());
        let sealing = SealingSecret::from_bytes(&[5; 32]).public();
        keep("tokens", sealing.to_string().as_bytes());
        let node = scene::key(scene::NODES[0]);
        let word = realm_identity::SealingCertificate::new(node.public(), sealing, scene::NOW);
        let Ok(word) = Signed::sign(word, &node);
        keep("tokens", sealing::to_text(&word.to_wire()).as_bytes());
    }

    /// Words of what a realm prints and of the pages, each by itself.
    fn texts(&self, keep: Keep<'_>) {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let pages = ["cli.md", "concepts.md", "configuration.md"];
        let pages = pages.map(|page| fs::read_to_string(docs.join(page)).unwrap());
        let words: BTreeSet<&str> = self
            .printed
            .iter()
            .chain(&pages)
            .flat_map(|text| text.split([' ', '"', '\'', '`', '\n', ',', '(', ')']))
            .filter(|word| {
                word.contains(['/', ':', '=']) || word.starts_with(|c: char| c.is_ascii_digit())
            })
            .collect();
        for word in words {
            keep("texts", word.as_bytes());
        }
        let more = [
            "1h 30m",
            "64MiB",
            "data:/data:ro",
            "/srv/x:/data:rw",
            "https://*.example.com?private",
            "tcp://[2001:db8::/32]:*",
            "on-failure",
            "A=b\nC=d\n# note\n",
        ];
        more.iter().for_each(|text| keep("texts", text.as_bytes()));
    }
}

/// Files as people write them.
fn config(keep: Keep<'_>) {
    let files = [
        "name = \"one\"\ntags = [\"edge\", \"zone=a\"]\nport = 2020\nmemory_mb = 512\n",
        "listen = [\"/ip4/0.0.0.0/tcp/2020\"]\nhttp = \"127.0.0.1:9920\"\nhttp_open = true\n",
        "bootstrap = [\"/ip4/192.0.2.7/udp/2020/quic-v1\"]\nmdns = false\nlog = \"info,realm=debug\"\n",
        "data = \"/var/lib/realm\"\nvolume_prefixes = [\"/srv\"]\nmax_cells = 100\nartifact_mb = 1024\ncache_mb = 64\nwasm_debug = true\nallow_unsandboxed_compile = false\n",
        "realm = \"home\"\nvia = \"/ip4/127.0.0.1/tcp/2020\"\nstate-dir = \"/tmp/state\"\nkey = \"/tmp/owner.key\"\n",
    ];
    files
        .iter()
        .for_each(|file| keep("config", file.as_bytes()));
    // All that an agent takes is refused: some exclude each other.
    keep("config", files[..4].concat().as_bytes());
    // Each setting by itself, as the page that users read has it.
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    let mut blocks = page.split("```");
    while let (Some(_), Some(block)) = (blocks.next(), blocks.next()) {
        let text = block.split_once('\n').map_or("", |(_, text)| text);
        keep("config", text.as_bytes());
    }
}

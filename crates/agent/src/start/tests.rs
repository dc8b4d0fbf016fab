//! Agents that start on damaged directories, and one whose core ends.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use realm_store::Ledger;

use super::*;

fn config(data: &Path) -> Config {
    let mut config = Config::new(data.to_owned(), "/proc/self/exe".into());
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
    config.http = ([127, 0, 0, 1], 0).into();
    config.mdns = false;
    config.allow_unsandboxed_compile = true;
    config
}

#[tokio::test]
async fn a_core_that_ends_by_itself_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(temp.path())).await.unwrap();
    agent.network.shutdown().await;
    assert!(matches!(agent.failed().await, CoreEnded::Alone));
    assert!(!agent.ready().await);
    agent.shutdown().await;

    let mut agent = Agent::start(config(temp.path())).await.unwrap();
    let panics = agent.network.spawn(async { panic!("a panic on purpose") });
    agent.core = Some(AbortOnDropHandle::new(panics));
    assert!(matches!(agent.failed().await, CoreEnded::Panicked(_)));
    assert!(!agent.ready().await);
    agent.shutdown().await;
}

#[tokio::test]
async fn damage_that_costs_little_does_not_keep_a_node_from_starting() {
    let temp = tempfile::tempdir().unwrap();
    Agent::start(config(temp.path()))
        .await
        .unwrap()
        .shutdown()
        .await;
    for name in ["cache.key", "peers", "ended", "boot"] {
        std::fs::write(temp.path().join(name), b"damaged").unwrap();
        let agent = Agent::start(config(temp.path())).await;
        agent
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .shutdown()
            .await;
    }
    // Without these it would be another node, or trust another owner.
    for name in ["claim", "owner.pin", "node.key"] {
        let path = temp.path().join(name);
        let before = std::fs::read(&path).ok();
        // In place: a key keeps its mode.
        std::fs::write(&path, b"damaged").unwrap();
        let error = Agent::start(config(temp.path())).await.unwrap_err();
        let said = format!("{name} is damaged");
        assert!(error.to_string().contains(&said), "{name}: {error}");
        match before {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
    }
}

#[tokio::test]
async fn a_pin_that_is_gone_is_not_taken_for_none() {
    let temp = tempfile::tempdir().unwrap();
    let owner = SecretKey::from_seed(&[1; 32]);
    let genesis = realm_identity::Genesis::new(owner.public(), "home".into(), [0; 32]);
    let genesis = Signed::sign(genesis, &owner).unwrap();
    // A node that nobody owns has a ledger, too.
    Agent::start(config(temp.path()))
        .await
        .unwrap()
        .shutdown()
        .await;
    Agent::start(config(temp.path()))
        .await
        .unwrap()
        .shutdown()
        .await;
    {
        let dir = DataDir::open(temp.path()).unwrap();
        Trust::load(&dir)
            .unwrap()
            .configure(owner.public())
            .unwrap();
        let mut ledger = Ledger::open(&temp.path().join("ledger.redb")).unwrap();
        let wire = genesis.to_wire();
        ledger.commit(&[realm_store::Op::Genesis { wire }]).unwrap();
    }
    Agent::start(config(temp.path()))
        .await
        .unwrap()
        .shutdown()
        .await;
    std::fs::remove_file(temp.path().join("owner.pin")).unwrap();
    let mut open = config(temp.path());
    open.trust_first_use = Some(std::time::Duration::from_secs(60));
    let error = Agent::start(open).await.unwrap_err().to_string();
    assert!(error.contains("owner.pin is gone"), "{error}");
    assert!(error.contains("ledger.redb"), "{error}");
    assert!(
        !temp.path().join("owner.pin").exists(),
        "nothing is made anew"
    );
}

#[test]
fn an_http_endpoint_beyond_this_machine_says_to_whom_it_is_open() {
    let at = |address: &str| address.parse().unwrap();
    assert_eq!(who_reads(at("127.0.0.1:9920"), true), None);
    assert_eq!(who_reads(at("[::1]:9920"), false), None);
    for address in ["10.77.1.11:0", "0.0.0.0:9920", "[::]:9920"] {
        let guarded = who_reads(at(address), false).unwrap();
        assert!(guarded.contains("metrics") && guarded.contains("has the token"));
        assert!(
            who_reads(at(address), true)
                .unwrap()
                .contains("logs are open to everybody")
        );
    }
}

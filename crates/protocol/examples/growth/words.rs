//! What a node says of itself, as long as in a real realm.

use realm_identity::{Hash, RealmId, SecretKey, Timestamp};
use realm_manifest::{
    NodeName,
    report::{Capacity, CellReport, CellState, NodeReport, NodeState},
};

/// Wall clock at virtual time 0.
pub const WALL: u64 = 1_700_000_000_000;
/// Cells of each node.
pub const CELLS: u32 = 3;

/// What a calm node of a few cells reports.
pub fn report(
    key: &SecretKey,
    realm: RealmId,
    revision: u64,
    head: Hash,
    seq: u64,
    now: u64,
) -> NodeReport {
    let name: Result<NodeName, _> = "node-of-a-realm".parse();
    let component = "component-name".parse();
    let (Ok(name), Ok(component)) = (name, component) else {
        panic!("these are names");
    };
    let cell = CellReport {
        component,
        index: 0,
        spec: head,
        generation: 1,
        state: CellState::Running,
        reason: None,
        restarts: 0,
        memory_bytes: 1 << 20,
        fuel_used: None,
        preemptions: 12_345,
        started_at: Some(Timestamp::from_millis(WALL)),
        exit_code: None,
        retry: None,
    };
    NodeReport {
        node: key.public(),
        realm,
        boot_id: 1,
        seq,
        at: Timestamp::from_millis(WALL + now),
        revision,
        head,
        state: NodeState::Ready,
        name,
        tags: Vec::new(),
        version: "realm/0.1.0".to_owned(),
        addresses: vec!["/ip4/192.168.10.10/udp/2020/quic-v1".to_owned(); 2],
        cpu_hundredths: Some(12),
        memory_bytes: Some(40 << 20),
        capacity: Capacity {
            memory_mb: 8_192,
            cells: 256,
        },
        cells: (0..CELLS)
            .map(|index| CellReport {
                index,
                ..cell.clone()
            })
            .collect(),
        declined: Vec::new(),
        holds: Vec::new(),
        // As long as a certificate of a sealing key.
        sealing: Some(vec![0; 152].into()),
        problems: Vec::new(),
    }
}

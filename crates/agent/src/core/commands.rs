//! What operators ask of the core, over RPC.

use realm_identity::{Claim, Entry, Genesis, Hash, PublicKey, Signed, VerifiedClaim};
use realm_p2p::PeerInfo;
use realm_protocol::{Event, Now};
use realm_rpc::{
    Branch, ErrorCode, Fork, Head, HeadId, Intent, PendingNode, RpcError, Submitted, Survey,
};
use tokio::sync::oneshot;

use super::Core;
use crate::{
    desk::{Counted, Grounds},
    fold::chain,
    offenders,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, RpcError>>;

/// Submits and claims that wait for the disk.
const MAX_WAITING: usize = 256;
/// Claims that lead from one node to the first, half a message: some 500 steps, where each node of a realm
/// was let in by the one before.
const MAX_STANDING_BYTES: usize = 512 * 1024;
/// Addresses that are dialled again at the next start.
const MAX_SAVED_PEERS: usize = 64;

/// One question; the asker may be gone when the answer comes.
#[derive(Debug)]
pub enum Command {
    Head(Reply<Head>),
    Heads(Reply<Vec<HeadId>>),
    Submit {
        entry: Vec<u8>,
        payload: Vec<u8>,
        reply: Reply<Submitted>,
    },
    Survey {
        peers: Vec<PeerInfo>,
        reply: Reply<Survey>,
    },
    History {
        from: u64,
        to: u64,
        max_bytes: usize,
        reply: Reply<Vec<Intent>>,
    },
    Forks(Reply<Vec<Fork>>),
    Claim {
        claim: Vec<u8>,
        reply: Reply<Vec<u8>>,
    },
    Pending(Reply<Vec<PendingNode>>),
    PeerAdd {
        address: String,
        reply: Reply<()>,
    },
    Adopt {
        genesis: Vec<u8>,
        reply: Reply<()>,
    },
    Standing(Reply<Vec<Vec<u8>>>),
    Metrics(Reply<Counted>),
    /// A peer asked for more at once than one connection may.
    Overload {
        peer: PublicKey,
        what: String,
    },
    /// What a status is made from.
    Grounds {
        peers: Vec<PeerInfo>,
        reply: Reply<Grounds>,
    },
}

impl Core {
    pub(super) async fn command(&mut self, command: Command, now: Now) {
        match command {
            Command::Head(reply) => answer(reply, self.head()),
            Command::Heads(reply) => answer(reply, self.heads()),
            Command::Submit {
                entry,
                payload,
                reply,
            } => self.submit(entry, payload, reply, now),
            Command::Survey { peers, reply } => answer(reply, self.survey(&peers)),
            Command::History {
                from,
                to,
                max_bytes,
                reply,
            } => {
                answer(reply, self.history(from, to, max_bytes));
            }
            Command::Forks(reply) => answer(reply, self.forks()),
            Command::Claim { claim, reply } => self.claim(&claim, reply, now),
            Command::Pending(reply) => answer(reply, Ok(self.pending())),
            Command::PeerAdd { address, reply } => answer(reply, self.peer_add(address)),
            Command::Adopt { genesis, reply } => self.adopt(&genesis, reply, now).await,
            Command::Standing(reply) => answer(reply, self.standing()),
            Command::Overload { peer, what } => {
                let overload = (offenders::OVERLOAD_NAME, offenders::OVERLOAD);
                self.offence(peer, overload, &what, now).await;
            }
            Command::Metrics(reply) => answer(reply, Ok(self.metrics())),
            Command::Grounds { peers, reply } => answer(reply, self.grounds(&peers)),
        }
    }

    fn head(&self) -> Result<Head, RpcError> {
        let log = self.node.log().ok_or_else(no_realm)?;
        if log.head().seq == 0 {
            return Ok(Head {
                seq: 0,
                entry: log.genesis().to_wire(),
                parent_state: Vec::new(),
                payload: Vec::new(),
                named: Vec::new(),
            });
        }
        let checkpoint = log.checkpoint().ok_or_else(|| {
            RpcError::new(
                ErrorCode::Limit,
                "the state at the head is too large to hand out",
            )
        })?;
        Ok(Head {
            seq: log.head().seq,
            entry: checkpoint.entry,
            parent_state: checkpoint.state,
            payload: checkpoint.payload,
            named: log.named_by_head().map(intent).collect(),
        })
    }

    /// What let this node in: an operator checks it before it sends anything that only approved nodes
    /// may have.
    fn standing(&self) -> Result<Vec<Vec<u8>>, RpcError> {
        let standing = self.node.standing();
        let standing: Vec<_> = standing.iter().map(|claim| claim.to_wire()).collect();
        if standing.iter().map(Vec::len).sum::<usize>() > MAX_STANDING_BYTES {
            let message = format!(
                "too many nodes let each other in, one after the other, before this one: \
                 realm nodes approve {} at another node makes it one of the log's",
                self.key.public()
            );
            return Err(RpcError::new(ErrorCode::Limit, message));
        }
        Ok(standing)
    }

    fn heads(&self) -> Result<Vec<HeadId>, RpcError> {
        let log = self.node.log().ok_or_else(no_realm)?;
        let heads = log.heads().into_iter();
        Ok(heads
            .map(|point| HeadId {
                seq: point.seq,
                hash: point.hash,
            })
            .collect())
    }

    fn submit(&mut self, entry: Vec<u8>, payload: Vec<u8>, reply: Reply<Submitted>, now: Now) {
        if self.submits.len() >= MAX_WAITING {
            return answer(reply, Err(busy()));
        }
        let token = self.next_token;
        self.next_token += 1;
        self.submits.insert(token, reply);
        self.node.handle(
            Event::Submit {
                token,
                entry,
                payload,
            },
            now,
        );
    }

    fn history(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Intent>, RpcError> {
        let log = self.node.log().ok_or_else(no_realm)?;
        let mut intents = Vec::new();
        let mut bytes = 0;
        if from == 0 {
            // For an owner whose machine does not know the realm.
            let entry = log.genesis().to_wire();
            bytes += entry.len();
            intents.push(Intent {
                entry,
                payload: None,
            });
        }
        for (entry, payload) in log.agreed(from).take_while(|(entry, _)| entry.seq <= to) {
            let intent = intent((entry, payload));
            bytes += intent.entry.len() + intent.payload.as_ref().map_or(0, Vec::len);
            if bytes > max_bytes && !intents.is_empty() {
                break;
            }
            intents.push(intent);
        }
        Ok(intents)
    }

    fn forks(&self) -> Result<Vec<Fork>, RpcError> {
        let log = self.node.log().ok_or_else(no_realm)?;
        let Some(realm_protocol::Halt::Forked { seq }) = log.halt() else {
            return Ok(Vec::new());
        };
        let branches = log
            .heads()
            .into_iter()
            .map(|tip| {
                let mut entries = Vec::new();
                let mut next = tip.hash;
                while let Some((entry, payload)) = log.entry(next) {
                    if entry.seq < *seq {
                        break;
                    }
                    next = entry.prev;
                    entries.push(intent((entry, payload)));
                }
                entries.reverse();
                Branch { entries }
            })
            .collect();
        Ok(vec![Fork {
            seq: *seq,
            branches,
        }])
    }

    /// Answers with the witnessed claim, at once where it is known already.
    fn claim(&mut self, wire: &[u8], reply: Reply<Vec<u8>>, now: Now) {
        let Some(state) = &self.state else {
            return answer(reply, Err(no_realm()));
        };
        let claim = match Signed::<Claim>::from_wire(wire) {
            Ok(claim) => claim,
            Err(error) => return answer(reply, Err(invalid(&error))),
        };
        if let Some(known) = self
            .claims
            .iter()
            .find(|known| known.claim.node == claim.node)
        {
            let wire = known.to_wire();
            return answer(reply, Ok(wire));
        }
        if let Err(error) = VerifiedClaim::new(claim.clone(), state.realm, &state.owners()) {
            return answer(reply, Err(invalid(&error)));
        }
        if self.claimants.len() >= MAX_WAITING {
            return answer(reply, Err(busy()));
        }
        self.claimants.push((claim.node, reply));
        self.witness(claim, now);
    }

    fn peer_add(&mut self, address: String) -> Result<(), RpcError> {
        let address = realm_p2p::check_address(&address).map_err(|error| invalid(&error))?;
        if !self.saved_peers.contains(&address) {
            self.saved_peers.insert(0, address.clone());
            self.saved_peers.truncate(MAX_SAVED_PEERS);
            let text = self.saved_peers.join("\n");
            self.peers_file
                .write(text.as_bytes())
                .map_err(|error| RpcError::new(ErrorCode::Failed, chain(&error)))?;
        }
        self.dial(address);
        Ok(())
    }

    /// The owner's genesis, brought by the owner: only for a node that pinned that owner, or
    /// has its window open, and is in no realm yet.
    async fn adopt(&mut self, wire: &[u8], reply: Reply<()>, now: Now) {
        let genesis = match Signed::<Genesis>::from_wire(wire) {
            Ok(genesis) => genesis,
            Err(error) => return answer(reply, Err(invalid(&error))),
        };
        if self.realm() == Some(genesis.realm_id()) {
            return answer(reply, Ok(()));
        }
        let offered = self
            .trust
            .offer(genesis.owner(), genesis.realm_id(), now.wall);
        if let Err(error) = offered {
            let refused = RpcError::new(ErrorCode::NotAuthorised, chain(&error));
            return answer(reply, Err(refused));
        }
        if self.adopters.len() >= MAX_WAITING {
            return answer(reply, Err(busy()));
        }
        // Answered once the realm is on disk.
        self.adopters.push(reply);
        self.node.handle(
            Event::Pinned {
                owner: genesis.owner(),
            },
            now,
        );
        self.node.handle(
            Event::Found {
                genesis: wire.to_vec(),
            },
            now,
        );
        self.publish_view().await;
    }

    /// Tells the artifact store what no collection may take, once a state is known.
    pub(super) fn pin_artifacts(&mut self) {
        if self.state.is_some() {
            self.blobs.pin(self.pinned().into_iter().collect());
            self.loosened = true;
        }
    }

    fn pinned(&self) -> Vec<Hash> {
        let components = self
            .state
            .iter()
            .flat_map(|state| state.components.values());
        components
            .map(|component| component.spec.artifact.sha256)
            .chain(self.supervisor.local_artifact())
            .collect()
    }
}

fn intent((entry, payload): (&Signed<Entry>, Option<&[u8]>)) -> Intent {
    Intent {
        entry: entry.to_wire(),
        payload: payload.map(<[u8]>::to_vec),
    }
}

fn answer<T>(reply: Reply<T>, answer: Result<T, RpcError>) {
    // Whoever asked may be gone.
    let _ = reply.send(answer);
}

fn invalid(error: &dyn std::error::Error) -> RpcError {
    RpcError::new(ErrorCode::Invalid, chain(error))
}

fn no_realm() -> RpcError {
    RpcError::new(ErrorCode::NotFound, "this node is in no realm yet")
        .help("let it join: realm invite, then realm enroll on the node")
}

fn busy() -> RpcError {
    RpcError::new(ErrorCode::Limit, "too many requests wait for the disk").help("try again")
}

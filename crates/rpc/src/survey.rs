//! What one node knows of its realm: other nodes' signed words, and its own view of them.
//!
//! It crosses the wire in parts, each of which fits a message; one that is watched sends only what
//! changed. Who reads it verifies the signatures: the node that was asked can leave out words of
//! others, or give older ones, but not make them up.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use realm_identity::{Hash, PublicKey, Timestamp};
use realm_manifest::report::MAX_REPORT_BYTES;
use tokio::sync::mpsc;

use crate::{
    ErrorCode, HeadId, Limits, RpcError, SinkClosed, convert,
    schema::operator_capnp::{sighting, survey_part, survey_sink},
    sink::{split, wait},
    status::Link,
};

/// Nodes in one survey: all members that a node keeps, and those that ask to join.
const MAX_NODES: usize = 8192;
/// What the reports and claims of one survey may take together: 512 nodes with the largest report.
const MAX_BYTES: usize = 512 * MAX_REPORT_BYTES;
/// The schema has no optional numbers: this stands for none.
const UNKNOWN: u64 = u64::MAX;

/// All that one node can tell of its realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The last agreed entry of the log that the node has on disk.
    pub head: HeadId,
    pub forked: bool,
    pub nodes: BTreeMap<PublicKey, Sighting>,
}

/// What the asked node has of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The asked node's word.
    pub view: View,
    /// `Signed<NodeReport>` as on the wire, signed by the node that it is about.
    pub report: Option<Arc<[u8]>>,
    /// Witnessed claims of the node, as on the wire.
    pub claims: Vec<Vec<u8>>,
}

/// How the asked node sees another one; nobody else can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// A member that answers.
    pub present: bool,
    /// Present for long enough to be given work that runs elsewhere.
    pub settled: bool,
    /// Two agents take turns with its key.
    pub twin: bool,
    /// The newest boot that it was heard of.
    pub boot_id: Option<u64>,
    pub link: Option<Link>,
    pub rtt_micros: Option<u64>,
    pub address: Option<String>,
    pub last_seen: Option<Timestamp>,
    /// What a node that asks to join calls itself.
    pub name: Option<String>,
}

/// Takes surveys, whole at first, then what changed.
pub struct SurveySink {
    client: survey_sink::Client,
    limits: Limits,
    sent: BTreeMap<PublicKey, Sighting>,
}

/// A sighting on its way: without report and claims where those were sent before.
struct Changed<'s> {
    key: &'s PublicKey,
    sighting: &'s Sighting,
    kept: bool,
}

impl SurveySink {
    pub(crate) fn new(client: survey_sink::Client, limits: Limits) -> Self {
        Self {
            client,
            limits,
            sent: BTreeMap::new(),
        }
    }

    /// Sends what the receiver does not have yet, and returns once it took all of it.
    pub async fn send(&mut self, survey: &Survey) -> Result<(), SinkClosed> {
        let gone: Vec<PublicKey> = self.sent.keys().copied().collect();
        let gone: Vec<PublicKey> = gone
            .into_iter()
            .filter(|key| !survey.nodes.contains_key(key))
            .collect();
        let changed: Vec<Changed<'_>> = survey
            .nodes
            .iter()
            .filter_map(|(key, sighting)| Changed::of(key, sighting, self.sent.get(key)))
            .collect();
        let max = self.limits.content_bytes();
        let mut parts = split(&changed, max, Changed::bytes);
        if parts.is_empty() {
            // Where the log stands is said in any case.
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        for (index, nodes) in parts.into_iter().enumerate() {
            let mut request = self.client.part_request();
            let mut part = request.get().init_part();
            convert::write_head_id(part.reborrow().init_head(), &survey.head);
            part.set_forked(survey.forked);
            part.set_more(index < last);
            let mut list = part.reborrow().init_nodes(convert::length(nodes));
            for (index, node) in (0..).zip(nodes) {
                node.write(list.reborrow().get(index));
            }
            let gone = if index == 0 { &*gone } else { &[] };
            let mut list = part.init_gone(convert::length(gone));
            for (index, key) in (0..).zip(gone) {
                list.set(index, key.as_bytes());
            }
            wait(self.limits.call, request.send().promise).await?;
        }
        for key in &gone {
            self.sent.remove(key);
        }
        let changed = changed.into_iter();
        let sent = changed.map(|changed| (*changed.key, changed.sighting.clone()));
        self.sent.extend(sent);
        Ok(())
    }
}

impl std::fmt::Debug for SurveySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SurveySink").finish_non_exhaustive()
    }
}

impl<'s> Changed<'s> {
    /// None where the receiver has it as it is.
    fn of(key: &'s PublicKey, sighting: &'s Sighting, sent: Option<&Sighting>) -> Option<Self> {
        let kept = sent
            .is_some_and(|sent| sent.report == sighting.report && sent.claims == sighting.claims);
        let same = kept && sent.is_some_and(|sent| sent.view == sighting.view);
        (!same).then_some(Self {
            key,
            sighting,
            kept,
        })
    }

    fn bytes(&self) -> usize {
        let view = &self.sighting.view;
        let texts = [&view.address, &view.name].into_iter().flatten();
        let texts: usize = texts.map(String::len).sum();
        // What surrounds the texts and bytes takes as much again as what `split` allows.
        64 + texts + if self.kept { 0 } else { self.sighting.bytes() }
    }

    fn write(&self, mut to: sighting::Builder<'_>) {
        let Sighting {
            view,
            report,
            claims,
        } = self.sighting;
        to.set_key(self.key.as_bytes());
        to.set_present(view.present);
        to.set_settled(view.settled);
        to.set_twin(view.twin);
        to.set_boot_id(view.boot_id.unwrap_or(UNKNOWN));
        to.set_link(match view.link {
            Some(Link::Itself) => sighting::Link::Itself,
            Some(Link::Quic) => sighting::Link::Quic,
            Some(Link::Tcp) => sighting::Link::Tcp,
            Some(Link::Relay) => sighting::Link::Relay,
            Some(Link::Unknown) | None => sighting::Link::None,
        });
        to.set_rtt_micros(view.rtt_micros.unwrap_or(UNKNOWN));
        to.set_address(view.address.as_deref().unwrap_or_default());
        to.set_last_seen(view.last_seen.map_or(0, Timestamp::as_millis));
        to.set_name(view.name.as_deref().unwrap_or_default());
        to.set_kept(self.kept);
        if self.kept {
            return;
        }
        to.set_report(report.as_deref().unwrap_or_default());
        let mut list = to.init_claims(convert::length(claims));
        for (index, claim) in (0..).zip(claims) {
            list.set(index, claim);
        }
    }
}

impl Sighting {
    /// Length of what others signed.
    fn bytes(&self) -> usize {
        let claims: usize = self.claims.iter().map(Vec::len).sum();
        claims + self.report.as_ref().map_or(0, |report| report.len())
    }
}

/// Puts the parts together again, and hands on every whole survey.
pub(crate) struct Gathering {
    to: mpsc::Sender<Survey>,
    so_far: RefCell<Survey>,
}

impl Gathering {
    pub(crate) fn new(to: mpsc::Sender<Survey>) -> Self {
        let head = HeadId {
            seq: 0,
            hash: Hash::of(b""),
        };
        let so_far = Survey {
            head,
            forked: false,
            nodes: BTreeMap::new(),
        };
        Self {
            to,
            so_far: RefCell::new(so_far),
        }
    }

    /// A survey that is whole with this part.
    fn take(&self, part: survey_part::Reader<'_>) -> Result<Option<Survey>, RpcError> {
        let mut survey = self.so_far.borrow_mut();
        survey.head = convert::read_head_id(part.get_head()?)?;
        survey.forked = part.get_forked();
        for key in part.get_gone()? {
            survey.nodes.remove(&convert::key(key?)?);
        }
        for from in part.get_nodes()? {
            let key = convert::key(from.get_key()?)?;
            let before = survey.nodes.remove(&key);
            let sighting = read(from, before)?;
            survey.nodes.insert(key, sighting);
        }
        let bytes: usize = survey.nodes.values().map(Sighting::bytes).sum();
        if survey.nodes.len() > MAX_NODES || bytes > MAX_BYTES {
            let message = format!(
                "the node tells of {} nodes with {bytes} bytes, at most {MAX_NODES} with {MAX_BYTES} are taken",
                survey.nodes.len()
            );
            return Err(RpcError::new(ErrorCode::Limit, message));
        }
        Ok((!part.get_more()).then(|| survey.clone()))
    }
}

impl survey_sink::Server for Gathering {
    async fn part(
        self: Rc<Self>,
        params: survey_sink::PartParams,
        _: survey_sink::PartResults,
    ) -> Result<(), capnp::Error> {
        let whole = self.take(params.get()?.get_part()?);
        let whole = whole.map_err(|error| capnp::Error::failed(error.message))?;
        if let Some(survey) = whole {
            let closed = |_| capnp::Error::disconnected("nobody listens any more".into());
            self.to.send(survey).await.map_err(closed)?;
        }
        Ok(())
    }
}

fn read(from: sighting::Reader<'_>, before: Option<Sighting>) -> Result<Sighting, RpcError> {
    let known = |number: u64| (number != UNKNOWN).then_some(number);
    let given = |text: String| (!text.is_empty()).then_some(text);
    let view = View {
        present: from.get_present(),
        settled: from.get_settled(),
        twin: from.get_twin(),
        boot_id: known(from.get_boot_id()),
        link: match from.get_link() {
            Ok(sighting::Link::None) => None,
            Ok(sighting::Link::Itself) => Some(Link::Itself),
            Ok(sighting::Link::Quic) => Some(Link::Quic),
            Ok(sighting::Link::Tcp) => Some(Link::Tcp),
            Ok(sighting::Link::Relay) => Some(Link::Relay),
            Err(_) => Some(Link::Unknown),
        },
        rtt_micros: known(from.get_rtt_micros()),
        address: given(convert::text(from.get_address())?),
        last_seen: Some(Timestamp(from.get_last_seen())).filter(|at| at.as_millis() != 0),
        name: given(convert::text(from.get_name())?),
    };
    if from.get_kept() {
        let before = before.ok_or_else(|| RpcError::malformed("sighting"))?;
        return Ok(Sighting { view, ..before });
    }
    let report = from.get_report()?;
    let claims = from.get_claims()?.iter();
    Ok(Sighting {
        view,
        report: (!report.is_empty()).then(|| report.into()),
        claims: claims
            .map(|claim| Ok(claim?.to_vec()))
            .collect::<Result<_, RpcError>>()?,
    })
}

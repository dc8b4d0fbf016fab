//! Nodes that plan and act on what they last heard of each other.

use std::collections::{BTreeMap, BTreeSet};

use realm_manifest::{
    ComponentName, ComponentSpec,
    identity::PublicKey,
    report::{CellReport, CellState},
};
use realm_planner::{Nodes, OwnCell, PlanInput, State, Step, cell_digest, placement::assign, plan};

use super::{held, report, running};

/// Longer than any move takes: pull, start, report, stop, report.
const ROUNDS: usize = 30;

pub struct Realm {
    pub state: State,
    /// What everybody knows of everybody.
    pub nodes: Nodes,
    pub cells: BTreeMap<PublicKey, Vec<Cell>>,
    /// Nodes on which every cell fails.
    pub broken: BTreeSet<PublicKey>,
}

#[derive(Debug, Clone)]
pub struct Cell {
    pub own: OwnCell,
    pub state: CellState,
}

impl Realm {
    pub fn new(state: State, nodes: Nodes) -> Self {
        let cells = nodes.keys().map(|key| (*key, Vec::new())).collect();
        Self {
            state,
            nodes,
            cells,
            broken: BTreeSet::new(),
        }
    }

    /// A cell of the newest spec that runs there from the start.
    pub fn litter(&mut self, node: PublicKey, name: &str, index: u32) {
        let component = &self.state.components[&name.parse().unwrap()];
        let own = OwnCell {
            component: name.parse().unwrap(),
            index,
            spec: cell_digest(&component.spec),
            generation: component.generation,
            memory_max_mb: component.spec.limits.memory_max_mb,
        };
        let cells = self.cells.get_mut(&node).unwrap();
        if !cells.iter().any(|cell| key(&cell.own) == key(&own)) {
            let state = CellState::Running;
            cells.push(Cell { own, state });
        }
    }

    /// The node tells the others of its cells.
    pub fn publish(&mut self, node: PublicKey) {
        let cells = self.cells[&node]
            .iter()
            .filter(|cell| self.state.components.contains_key(&cell.own.component))
            .map(|cell| self.report_of(cell))
            .collect();
        let mut ran: BTreeMap<&ComponentName, u32> = BTreeMap::new();
        for cell in &self.cells[&node] {
            let asked = self.state.components.get(&cell.own.component);
            let writes = asked.is_some_and(|asked| asked.spec.writes_named_volume());
            if writes && cell.state != CellState::Starting {
                *ran.entry(&cell.own.component).or_default() += 1;
            }
        }
        let wrote = ran
            .iter()
            .map(|(name, cells)| held(name.as_str(), *cells))
            .collect();
        let view = self.nodes.get_mut(&node).unwrap();
        let mut next = report(node, &self.state, cells);
        next.holds = wrote;
        let said = match view.report.as_deref() {
            Some(before) => realm_manifest::report::NodeReport {
                capacity: before.capacity,
                declined: before.declined.clone(),
                // Data stays when its cells do not.
                holds: if next.holds.is_empty() {
                    before.holds.clone()
                } else {
                    next.holds
                },
                boot_id: before.boot_id,
                ..next
            },
            None => next,
        };
        view.report = Some(said.into());
    }

    fn report_of(&self, cell: &Cell) -> CellReport {
        CellReport {
            spec: cell.own.spec,
            generation: cell.own.generation,
            state: cell.state,
            ..running(&self.state, cell.own.component.as_str(), cell.own.index)
        }
    }

    pub fn plan(&self, node: PublicKey) -> Vec<Step> {
        let own: Vec<OwnCell> = self.cells[&node]
            .iter()
            .map(|cell| cell.own.clone())
            .collect();
        plan(&PlanInput {
            state: &self.state,
            me: node,
            nodes: &self.nodes,
            own: &own,
        })
    }

    /// One round: those of `acting` plan and act at once, cells come up, those of `telling` report.
    pub fn round(&mut self, acting: &[PublicKey], telling: &[PublicKey]) -> bool {
        let steps: Vec<(PublicKey, Vec<Step>)> = acting
            .iter()
            .map(|node| (*node, self.plan(*node)))
            .collect();
        for cells in self.cells.values_mut().flatten() {
            if cells.state == CellState::Starting {
                cells.state = CellState::Running;
            }
        }
        for node in &self.broken {
            for cell in self.cells.get_mut(node).unwrap() {
                cell.state = CellState::Backoff;
            }
        }
        let calm = steps.iter().all(|(_, steps)| steps.is_empty());
        for (node, steps) in steps {
            for step in steps {
                act(self.cells.get_mut(&node).unwrap(), step);
            }
        }
        for node in telling {
            self.publish(*node);
        }
        calm
    }

    pub fn here(&self) -> Vec<PublicKey> {
        let present = self.nodes.iter().filter(|(_, view)| view.present);
        present.map(|(key, _)| *key).collect()
    }

    /// Everybody acts and reports until nobody has anything to do; calls `watch` after each round.
    pub fn settle(&mut self, mut watch: impl FnMut(&Self)) {
        let here = self.here();
        here.iter().for_each(|node| self.publish(*node));
        for _ in 0..ROUNDS {
            let before: Vec<CellState> = self
                .cells
                .values()
                .flatten()
                .map(|cell| cell.state)
                .collect();
            let calm = self.round(&here, &here);
            watch(self);
            let after: Vec<CellState> = self
                .cells
                .values()
                .flatten()
                .map(|cell| cell.state)
                .collect();
            if calm && before == after {
                return;
            }
        }
        panic!("the nodes never came to rest");
    }

    /// From now on every cell of the node fails, and everybody knows.
    pub fn break_node(&mut self, node: PublicKey) {
        self.broken.insert(node);
        for cell in self.cells.get_mut(&node).unwrap() {
            cell.state = CellState::Backoff;
        }
        self.publish(node);
    }

    /// Its cells come up again.
    pub fn mend_node(&mut self, node: PublicKey) {
        self.broken.remove(&node);
        for cell in self.cells.get_mut(&node).unwrap() {
            cell.state = CellState::Starting;
        }
    }

    /// Every cell of the component that runs has done its work, and everybody knows.
    pub fn finish(&mut self, name: &str) {
        let name: ComponentName = name.parse().unwrap();
        for cell in self.cells.values_mut().flatten() {
            if cell.own.component == name && cell.state == CellState::Running {
                cell.state = CellState::Done;
            }
        }
        let here = self.here();
        here.iter().for_each(|node| self.publish(*node));
    }

    /// The node is gone, and its cells with it; its last report stays known.
    pub fn lose(&mut self, node: PublicKey) {
        self.nodes.get_mut(&node).unwrap().present = false;
        self.cells.insert(node, Vec::new());
    }

    /// The node is back, started anew.
    pub fn bring_back(&mut self, node: PublicKey) {
        self.nodes.get_mut(&node).unwrap().present = true;
        self.publish(node);
    }

    pub fn counts(&self) -> BTreeMap<PublicKey, u32> {
        assign(&self.state, &self.nodes)[&"web".parse().unwrap()].clone()
    }

    /// Cells of the newest spec and generation that run.
    pub fn running(&self) -> usize {
        let good = |node: &PublicKey, cell: &Cell| {
            let Some(component) = self.state.components.get(&cell.own.component) else {
                return false;
            };
            cell.state == CellState::Running
                && cell.own.spec == cell_digest(&component.spec)
                && cell.own.generation >= component.generation_on(node)
        };
        let here = self.here();
        let on = |node| self.cells[node].iter().filter(move |cell| good(node, cell));
        here.iter().map(|node| on(node).count()).sum()
    }

    pub fn all(&self) -> usize {
        let here = self.here();
        here.iter().map(|node| self.cells[node].len()).sum()
    }
}

fn key(own: &OwnCell) -> (&ComponentName, u32) {
    (&own.component, own.index)
}

fn act(cells: &mut Vec<Cell>, step: Step) {
    let of = |cell: &Cell, component: &ComponentName, index| key(&cell.own) == (component, index);
    match step {
        Step::Start {
            component,
            index,
            spec,
            generation,
        } => {
            assert!(
                !cells.iter().any(|cell| of(cell, &component, index)),
                "{component}#{index} is there already"
            );
            start(cells, component, index, &spec, generation);
        }
        Step::Replace {
            component,
            index,
            spec,
            generation,
            ..
        } => {
            cells.retain(|cell| !of(cell, &component, index));
            start(cells, component, index, &spec, generation);
        }
        Step::Stop {
            component, index, ..
        } => cells.retain(|cell| !of(cell, &component, index)),
    }
}

fn start(
    cells: &mut Vec<Cell>,
    component: ComponentName,
    index: u32,
    spec: &ComponentSpec,
    generation: u64,
) {
    let own = OwnCell {
        component,
        index,
        spec: cell_digest(spec),
        generation,
        memory_max_mb: spec.limits.memory_max_mb,
    };
    let state = CellState::Starting;
    cells.push(Cell { own, state });
}

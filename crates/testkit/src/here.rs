//! Agents in the test's own process: the same parts, without a process for each.

use std::collections::BTreeMap;

use realm_agent::{Agent, Config};
use tokio::runtime::Runtime;

/// Agents that run on threads of this process, stopped in order when they are dropped.
#[derive(Debug)]
pub(crate) struct Here {
    runtime: Option<Runtime>,
    agents: BTreeMap<String, Agent>,
}

impl Here {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        Self {
            runtime: Some(runtime),
            agents: BTreeMap::new(),
        }
    }

    /// Starts an agent; answers with its addresses.
    pub fn start(&mut self, name: &str, config: Config) -> Vec<String> {
        let runtime = self.runtime.as_ref().unwrap();
        let (agent, addresses) = runtime.block_on(async {
            let agent = Agent::start(config).await.unwrap();
            let addresses = agent.addresses().await;
            (agent, addresses)
        });
        self.agents.insert(name.to_owned(), agent);
        addresses
    }

    /// Stops an agent in order.
    pub fn stop(&mut self, name: &str) {
        let agent = self.agents.remove(name).unwrap();
        self.runtime.as_ref().unwrap().block_on(agent.shutdown());
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        for agent in std::mem::take(&mut self.agents).into_values() {
            runtime.block_on(agent.shutdown());
        }
        runtime.shutdown_background();
    }
}

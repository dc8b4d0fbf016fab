//! Starting a network.

use tokio::sync::mpsc;

use crate::{Config, NetworkEvent, NetworkHandle, Services, StartError};

/// Entry point: see [`Network::start`].
#[derive(Debug)]
pub struct Network;

impl Network {
    /// Starts the network's thread and returns once it listens on every address of the configuration.
    pub async fn start(
        config: Config,
        services: Services,
    ) -> Result<(NetworkHandle, mpsc::Receiver<NetworkEvent>), StartError> {
        let _ = (config, services);
        Err(StartError::Stopped)
    }
}

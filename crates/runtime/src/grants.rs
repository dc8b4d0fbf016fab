//! Opens what a cell was granted, and nothing else.

use std::sync::Arc;

use realm_manifest::{Scheme, VolumeMode};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, p1::WasiP1Ctx};
use wasmtime_wasi_config::WasiConfigVariables;

use crate::{
    CellConfig, LogStream, StartError, Stdio,
    engine::RANDOM_BYTES,
    guest::Shared,
    network::Network,
    output::{Bucket, Output, Sink},
};

/// The part of a second's output that may be written at once, and the least of it.
const OUTPUT_BURST_DIVISOR: u64 = 4;
const OUTPUT_BURST_MIN: u64 = 8 * 1024;

/// A cell's grants, opened.
pub(crate) struct Granted {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) network: Arc<Network>,
    pub(crate) vars: WasiConfigVariables,
}

/// Refuses what this version cannot grant, opens what it can.
pub(crate) fn open(config: &CellConfig, shared: &Arc<Shared>) -> Result<Granted, StartError> {
    if config
        .grants
        .allowed_outbound
        .iter()
        .any(|rule| matches!(rule.scheme, Scheme::Http | Scheme::Https))
    {
        return Err(StartError::Unsupported {
            grant: "allowed_outbound of http and https",
        });
    }
    let network = Arc::new(Network::new(&config.grants.allowed_outbound));
    let mut builder = WasiCtxBuilder::new();
    builder
        .arg(&config.name)
        .args(&config.grants.args)
        .envs(&config.grants.env)
        .max_random_size(RANDOM_BYTES);
    for mount in &config.mounts {
        let perms = match mount.mode {
            VolumeMode::Ro => FsPerms::ReadOnly,
            VolumeMode::Rw => FsPerms::ReadWrite,
        };
        builder
            .preopened_dir(&mount.host, &mount.guest, perms)
            .map_err(|error| StartError::Mount {
                guest: mount.guest.clone(),
                host: mount.host.clone(),
                source: error.into(),
            })?;
    }
    let (tcp, udp) = (network.uses(Scheme::Tcp), network.uses(Scheme::Udp));
    builder
        .allow_tcp(tcp)
        .allow_udp(udp)
        .allow_ip_name_lookup(tcp || udp);
    let check = network.clone();
    builder.socket_addr_check(move |address, usage| {
        let permitted = check.permits(address, usage);
        Box::pin(async move { permitted })
    });
    connect_stdio(&mut builder, config, shared);
    Ok(Granted {
        wasi: builder.build_p1(),
        network,
        vars: config.grants.vars.iter().cloned().collect(),
    })
}

fn connect_stdio(builder: &mut WasiCtxBuilder, config: &CellConfig, shared: &Arc<Shared>) {
    let bucket = |rate: u64| {
        Arc::new(Bucket::new(
            rate,
            (rate / OUTPUT_BURST_DIVISOR).max(OUTPUT_BURST_MIN),
        ))
    };
    let output = |sink, bucket: &Option<Arc<Bucket>>| Output {
        sink,
        bucket: bucket.clone(),
        shared: shared.clone(),
    };
    match &config.stdio {
        Stdio::Log(ring) => {
            let bucket = Some(bucket(config.limits.output_bytes_per_sec));
            builder
                .stdout(output(Sink::Ring(ring.clone(), LogStream::Stdout), &bucket))
                .stderr(output(Sink::Ring(ring.clone(), LogStream::Stderr), &bucket));
        }
        Stdio::Inherit { rate } => {
            let bucket = rate.map(bucket);
            builder
                .inherit_stdin()
                .stdout(output(Sink::Process(LogStream::Stdout), &bucket))
                .stderr(output(Sink::Process(LogStream::Stderr), &bucket));
        }
    }
}

//! Name lookup and socket creation of guests, in front of Wasmtime's own: what a cell resolved is what it may reach.

use wasmtime::component::{Accessor, HasData, Resource};
use wasmtime_wasi::{
    WasiView,
    p2::{
        self, DynPollable, SocketError, SocketResult,
        bindings::sockets::{
            ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream},
            network::{self, ErrorCode, IpAddress, IpAddressFamily, Network as NetworkHandle},
            tcp_create_socket, udp_create_socket,
        },
    },
    p3::bindings::sockets as p3,
    sockets::{WasiSockets, WasiSocketsCtxView, WasiSocketsView},
};

use crate::{exit::Limit, guest::CellState, network::SOCKETS_MAX, places::Place};

/// A lookup of 0.2 that a guest holds.
pub(crate) struct Lookup {
    name: String,
    _place: Place,
}

/// Marks the interfaces that go through this file.
pub(crate) struct Gate;

pub(crate) struct GateView<'a>(pub(crate) &'a mut CellState);

impl HasData for Gate {
    type Data<'a> = GateView<'a>;
}

impl GateView<'_> {
    fn sockets(&mut self) -> WasiSocketsCtxView<'_> {
        self.0.sockets()
    }

    /// Counts what the table holds: the guest may close sockets in ways that nothing reports. TCP sockets of 0.3
    /// have places of their own.
    pub(crate) fn room_for_socket(&mut self) -> bool {
        let is_socket = |entry: &&mut (dyn std::any::Any + Send)| {
            entry.is::<p2::TcpSocket>()
                || entry.is::<p2::UdpSocket>()
                || entry.is::<wasmtime_wasi::sockets::UdpSocket>()
        };
        let open = self.0.ctx().table.iter_mut().filter(is_socket).count();
        let room = open + self.0.network.sockets_p3.taken() < SOCKETS_MAX;
        if !room {
            self.0.shared.hit(Limit::Sockets);
        }
        room
    }
}

// Error codes are turned the same way by every interface of the package.
impl network::Host for GateView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets(), error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl network::HostNetwork for GateView<'_> {
    fn drop(&mut self, this: Resource<NetworkHandle>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), this)
    }
}

impl Host for GateView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<NetworkHandle>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        if !self.0.network.may_resolve(&name) {
            return Err(ErrorCode::AccessDenied.into());
        }
        let Some(place) = self.0.outbound_place() else {
            return Err(ErrorCode::TemporaryResolverFailure.into());
        };
        let stream = Host::resolve_addresses(&mut self.sockets(), network, name.clone())?;
        let lookup = Lookup {
            name,
            _place: place,
        };
        self.0.lookups.insert(stream.rep(), lookup);
        Ok(stream)
    }
}

impl HostResolveAddressStream for GateView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let rep = stream.rep();
        loop {
            let again = Resource::new_borrow(rep);
            let Some(address) =
                HostResolveAddressStream::resolve_next_address(&mut self.sockets(), again)?
            else {
                return Ok(None);
            };
            let Some(lookup) = self.0.lookups.get(&rep) else {
                return Err(SocketError::from(ErrorCode::InvalidState));
            };
            if self.0.network.learn(&lookup.name, p2_ip(address)) {
                return Ok(Some(address));
            }
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        HostResolveAddressStream::subscribe(&mut self.sockets(), stream)
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.0.lookups.remove(&stream.rep());
        HostResolveAddressStream::drop(&mut self.sockets(), stream)
    }
}

impl tcp_create_socket::Host for GateView<'_> {
    fn create_tcp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<p2::TcpSocket>> {
        if !self.room_for_socket() {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        tcp_create_socket::Host::create_tcp_socket(&mut self.sockets(), family)
    }
}

impl udp_create_socket::Host for GateView<'_> {
    async fn create_udp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<p2::UdpSocket>> {
        if !self.room_for_socket() {
            return Err(ErrorCode::NewSocketLimit.into());
        }
        udp_create_socket::Host::create_udp_socket(&mut self.sockets(), family).await
    }
}

impl p3::ip_name_lookup::Host for GateView<'_> {}

impl p3::ip_name_lookup::HostWithStore<CellState> for Gate {
    async fn resolve_addresses(
        accessor: &Accessor<CellState, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<p3::types::IpAddress>, p3::ip_name_lookup::ErrorCode>> {
        let network = accessor.with(|mut access| access.get().0.network.clone());
        if !network.may_resolve(&name) {
            return Ok(Err(p3::ip_name_lookup::ErrorCode::AccessDenied));
        }
        let Some(_place) = accessor.with(|mut access| access.get().0.outbound_place()) else {
            return Ok(Err(p3::ip_name_lookup::ErrorCode::TemporaryResolverFailure));
        };
        let inner = accessor.with_getter::<WasiSockets>(CellState::sockets);
        let found =
            <WasiSockets as p3::ip_name_lookup::HostWithStore<CellState>>::resolve_addresses(
                &inner,
                name.clone(),
            );
        Ok(found.await?.map(|addresses| {
            addresses
                .into_iter()
                .filter(|address| network.learn(&name, p3_ip(*address)))
                .collect()
        }))
    }
}

fn p2_ip(address: IpAddress) -> std::net::IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

fn p3_ip(address: p3::types::IpAddress) -> std::net::IpAddr {
    match address {
        p3::types::IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        p3::types::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

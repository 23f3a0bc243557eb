//! Host ports, held for a sandbox from before its start to its end, and forwarded to its address once it runs.
//!
//! A connection is two sockets and two fixed buffers. Half-closes pass through. A connection that the sandbox refuses is closed.

use bulkhead_protocol::{Failure, FailureCode, PortBinding};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Bytes of buffer per direction of a connection.
const BUFFER_BYTES: usize = 16 * 1024;
/// Connections that wait for the sandbox to run, per port.
const BACKLOG: i32 = 512;
/// Tries to find a number that is free for IPv4 and IPv6.
const EPHEMERAL_ATTEMPTS: usize = 16;
/// A sandbox that does not answer for this long gets no connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Ports that are bound and listening.
pub struct HeldPorts {
    bindings: Vec<PortBinding>,
    listeners: Vec<(TcpListener, SocketAddr)>,
    forwarders: Vec<AbortHandle>,
}

impl HeldPorts {
    /// Binds all ports, or none: `PortInUse` for the first that is taken. `address` is the sandbox's.
    pub fn hold(bindings: &[PortBinding], address: Option<&str>) -> Result<Self, Failure> {
        let mut held = Self { bindings: Vec::new(), listeners: Vec::new(), forwarders: Vec::new() };
        for binding in bindings {
            let invalid = |what: &str| {
                let message = format!("port {}/{}: {what}", binding.container_port, binding.protocol);
                Failure::new(FailureCode::InvalidRequest, message)
            };
            if binding.protocol != "tcp" {
                return Err(invalid("only tcp can be published"));
            }
            let target = address
                .and_then(|address| address.parse::<Ipv4Addr>().ok())
                .ok_or_else(|| invalid("the sandbox has no network address to forward it to"))?;
            let target = SocketAddr::from((target, binding.container_port));
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                text => Some(text.parse::<IpAddr>().map_err(|_| invalid("the host address cannot be read"))?),
            };
            let (sockets, host_port) = bind(host_ip, binding)?;
            for socket in sockets {
                socket.set_nonblocking(true).map_err(|cause| bind_failure(binding, &cause))?;
                let listener = TcpListener::from_std(socket.into()).map_err(|cause| bind_failure(binding, &cause))?;
                held.listeners.push((listener, target));
            }
            held.bindings.push(PortBinding { host_port, ..binding.clone() });
        }
        Ok(held)
    }

    /// The bindings, with the numbers that were chosen.
    pub fn bindings(&self) -> &[PortBinding] {
        &self.bindings
    }

    /// Starts to accept and forward. A second call does nothing.
    pub fn forward(&mut self) {
        for (listener, target) in self.listeners.drain(..) {
            self.forwarders.push(tokio::spawn(accept(listener, target)).abort_handle());
        }
    }
}

impl Drop for HeldPorts {
    fn drop(&mut self) {
        for forwarder in &self.forwarders {
            forwarder.abort();
        }
    }
}

fn bind(host_ip: Option<IpAddr>, binding: &PortBinding) -> Result<(Vec<Socket>, u16), Failure> {
    let wanted = binding.host_port;
    for attempt in 1.. {
        let first = host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let socket = listen(SocketAddr::new(first, wanted)).map_err(|cause| bind_failure(binding, &cause))?;
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        let port = local.map_or(wanted, |address| address.port());
        if host_ip.is_some() {
            return Ok((vec![socket], port));
        }
        match listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
            Ok(second) => return Ok((vec![socket, second], port)),
            // A host without IPv6.
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
                return Ok((vec![socket], port));
            }
            Err(_) if wanted == 0 && attempt < EPHEMERAL_ATTEMPTS => {}
            Err(cause) => return Err(bind_failure(&PortBinding { host_ip: "::".into(), ..binding.clone() }, &cause)),
        }
    }
    unreachable!("the loop above has no end")
}

fn listen(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn bind_failure(binding: &PortBinding, cause: &std::io::Error) -> Failure {
    let ip = if binding.host_ip.is_empty() { "0.0.0.0" } else { &binding.host_ip };
    let place = match ip.contains(':') {
        true => format!("[{ip}]:{}/{}", binding.host_port, binding.protocol),
        false => format!("{ip}:{}/{}", binding.host_port, binding.protocol),
    };
    let (code, cause) = match cause.kind() {
        ErrorKind::AddrInUse => (FailureCode::PortInUse, "address already in use".to_owned()),
        ErrorKind::AddrNotAvailable => (FailureCode::InvalidRequest, "cannot assign requested address".to_owned()),
        _ => (FailureCode::Internal, cause.to_string()),
    };
    Failure::new(code, format!("failed to bind host port {place}: {cause}"))
}

/// Connections are tasks of a set that dies with this future, so that a sandbox's end closes them.
async fn accept(listener: TcpListener, target: SocketAddr) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(forward(client, target));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr) {
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await;
}

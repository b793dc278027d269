//! Ports that a test can rely on: known before a server listens on them, and still its own after it was stopped.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A port on loopback that nobody else is given. Whoever knows it can listen on it, again and again, as long as this lives.
///
/// It is a socket that is bound and never listens. Linux lets a listener that allows reuse (as those of the standard
/// library and of tokio do) have the same port, and gives the port to nobody who asks for any free one.
#[derive(Debug)]
pub struct ReservedPort {
    _socket: TcpSocket,
    address: SocketAddr,
}

impl ReservedPort {
    /// Takes a free one.
    pub fn take() -> Self {
        let take = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let address = socket.local_addr()?;
            Ok::<_, std::io::Error>(Self {
                _socket: socket,
                address,
            })
        };
        take().expect("loopback has free ports")
    }

    /// `127.0.0.1` and the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_port_can_be_listened_on_again_and_again() {
        let port = ReservedPort::take();
        for _ in 0..3 {
            let listener = TcpListener::bind(port.address()).expect("the port is ours");
            TcpListener::bind(port.address()).expect_err("it is taken now");
            drop(listener);
        }
        assert_ne!(ReservedPort::take().port(), port.port());
    }
}

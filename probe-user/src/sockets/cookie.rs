//! The number that the kernel gives a network namespace.
//!
//! A socket can be asked for it since Linux 5.14 (`SO_NETNS_COOKIE`). Before that the kernel tells it to programs alone (5.7): those that note the owner
//! of each socket that is bound. So a socket is bound in the namespace, and what they noted is read back.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::{PoisonError, RwLock};

use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn};

/// Reads the number that programs noted for a socket that was bound.
type Noted = Box<dyn Fn(BorrowedFd<'_>) -> Option<u64> + Send + Sync>;

/// What the programs of this process note. One for all: what a kernel lacks it lacks everywhere, and those who ask are far apart.
static NOTED: RwLock<Option<Noted>> = RwLock::new(None);

/// From now on `noted` is asked where the kernel cannot be.
pub(crate) fn ask_programs(noted: impl Fn(BorrowedFd<'_>) -> Option<u64> + Send + Sync + 'static) {
    *NOTED.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(noted));
}

/// Cookie of the network namespace of `socket`, which was made by the calling thread where it is now.
///
/// # Errors
/// `ENOPROTOOPT` when neither the kernel nor a program tells.
pub(crate) fn namespace_cookie(socket: &impl AsFd) -> nix::Result<u64> {
    match asked_of_kernel(socket) {
        Err(nix::errno::Errno::ENOPROTOOPT) => noted_here().ok_or(nix::errno::Errno::ENOPROTOOPT),
        told => told,
    }
}

/// Cookie of a namespace, as programs tell it.
///
/// # Errors
/// When there are none, or it cannot be entered.
pub(crate) fn noted_in(namespace: &(impl AsFd + Sync)) -> io::Result<u64> {
    if NOTED.read().unwrap_or_else(PoisonError::into_inner).is_none() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    std::thread::scope(|scope| {
        let there = std::thread::Builder::new().name("netns-cookie".to_owned()).spawn_scoped(scope, || {
            nix::sched::setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            noted_here().ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        there.join().map_err(|_| io::Error::other("the thread that enters a namespace panicked"))?
    })
}

/// Cookie of the network namespace that a socket was made in, wherever that is.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 5.14.
pub(crate) fn asked_of_kernel(socket: &impl AsFd) -> nix::Result<u64> {
    #[derive(Clone, Copy, Debug)]
    struct NetworkNamespaceCookie;
    nix::getsockopt_impl!(NetworkNamespaceCookie, libc::SOL_SOCKET, SO_NETNS_COOKIE, u64, nix::sys::socket::sockopt::GetStruct<u64>);
    const SO_NETNS_COOKIE: libc::c_int = 71;
    nix::sys::socket::getsockopt(socket, NetworkNamespaceCookie)
}

/// Binds a socket where the calling thread is, and reads what was noted. It never listens, so it is told to nobody.
fn noted_here() -> Option<u64> {
    let noted = NOTED.read().unwrap_or_else(PoisonError::into_inner);
    let noted = noted.as_ref()?;
    let socket = nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0)).ok()?;
    noted(socket.as_fd()).filter(|cookie| *cookie != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_tells_is_believed_and_programs_are_asked_otherwise() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let told = asked_of_kernel(&socket);
        ask_programs(|_| Some(7));
        assert_eq!(namespace_cookie(&socket).unwrap(), told.unwrap_or(7));
        assert_eq!(noted_here(), Some(7), "a socket can be bound wherever we are");
        let own = std::fs::File::open("/proc/self/ns/net").unwrap();
        if nix::unistd::geteuid().is_root() {
            assert_eq!(noted_in(&own).unwrap(), 7);
        }
    }
}

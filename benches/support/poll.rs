//! Waits for many sockets.

use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

use super::Result;

pub struct Poll(OwnedFd);

impl Poll {
    pub fn new() -> Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Reports this number while the socket has something to read. A closed socket is removed by itself.
    pub fn add(&self, socket: impl AsFd, number: usize) -> Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(number as u64), EventFlags::IN)?)
    }

    /// The numbers of those that are ready, once there are some or the time is over.
    pub fn ready(&self, timeout: Duration) -> Result<Vec<usize>> {
        let mut events = Vec::with_capacity(1024);
        match epoll::wait(&self.0, spare_capacity(&mut events), Some(&Timespec::try_from(timeout)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event: &epoll::Event| event.data.u64() as usize).collect())
    }
}

//! The control queue of a device that we drive: one command at a time, from the port's own threads (virtio 1.2, 5.1.6.5).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringyard_dataplane::ring::{DriverMemory, DriverOptions, DriverRing, Part, RingLayout};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC,
    VIRTIO_NET_OK,
};

/// Entries of the ring: room for the three descriptors of a command.
pub(super) const RING_SIZE: u16 = 16;
/// Bytes of memory for ring and commands.
pub(super) const FOOTPRINT_EXTRA: usize = 192;

/// The queue.
pub(super) struct ControlQueue {
    ring: DriverRing,
    memory: Arc<DriverMemory>,
    /// Where commands are written: class, command and data; and where the answer comes, a cache line on.
    at: usize,
    kick: Arc<OwnedFd>,
    call: Arc<OwnedFd>,
}

impl ControlQueue {
    /// A queue of `size` entries at `offset`.
    pub(super) fn new(
        memory: Arc<DriverMemory>,
        offset: usize,
        size: u16,
        options: DriverOptions,
        kick: Arc<OwnedFd>,
        call: Arc<OwnedFd>,
    ) -> Result<ControlQueue, String> {
        let ring =
            DriverRing::new(memory.clone(), offset, size, options).map_err(|error| error.to_string())?;
        let at = (offset + DriverRing::footprint(size)).next_multiple_of(LINE);
        Ok(ControlQueue { ring, memory, at, kick, call })
    }

    /// Bytes of memory that a queue of `size` entries takes.
    pub(super) fn footprint(size: u16) -> usize {
        DriverRing::footprint(size).next_multiple_of(LINE) + FOOTPRINT_EXTRA
    }

    /// Where the ring lies, in the device's addresses.
    pub(super) fn layout(&self) -> RingLayout {
        let RingLayout { size, desc, avail, used } = self.ring.layout();
        let addr = |user: u64| self.memory.guest_addr((user - DriverMemory::USER_ADDR) as usize);
        RingLayout { size, desc: addr(desc), avail: addr(avail), used: addr(used) }
    }

    /// Its eventfds: what we signal, and what the device does.
    pub(super) fn eventfds(&self) -> (&OwnedFd, &OwnedFd) {
        (&self.kick, &self.call)
    }

    /// Has the device give us every frame, whoever it is for.
    pub(super) fn set_promiscuous(&mut self) -> Result<(), String> {
        self.command(VIRTIO_NET_CTRL_RX as u8, VIRTIO_NET_CTRL_RX_PROMISC as u8, &[1])
    }

    /// Has the device use `pairs` queue pairs.
    pub(super) fn set_pairs(&mut self, pairs: u16) -> Result<(), String> {
        self.command(VIRTIO_NET_CTRL_MQ as u8, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET as u8, &pairs.to_le_bytes())
    }

    /// Has a command done, and waits for that.
    ///
    /// Errors: the device refuses it, takes too long or breaks the rules. After the latter two it is of no use.
    fn command(&mut self, class: u8, command: u8, data: &[u8]) -> Result<(), String> {
        let (data_at, answer_at) = (self.at + 2, self.at + LINE);
        self.memory.write(self.at, &[class, command]);
        self.memory.write(data_at, data);
        self.memory.write(answer_at, &[NO_ANSWER]);
        let read = |offset, len| Part { offset, len, writable: false };
        let parts = [
            read(self.at, 2),
            read(data_at, data.len() as u32),
            Part { offset: answer_at, len: 1, writable: true },
        ];
        self.ring.add_chain(&parts).ok_or("the control queue is full")?;
        // Kicked whatever the device wishes: once in a device's life.
        self.ring.publish();
        ringyard_dataplane::eventfd::add(&*self.kick);
        self.wait()?;
        let mut answer = [0];
        self.memory.read(answer_at, &mut answer);
        if u32::from(answer[0]) == VIRTIO_NET_OK {
            return Ok(());
        }
        Err(format!("the device refuses the control command {class}.{command}"))
    }

    /// Waits until the command is used.
    fn wait(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        loop {
            let collected = self.ring.collect().map_err(|fault| format!("on the control queue, {fault}"))?;
            if collected.is_some() {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("the device did not do a control command within {ANSWER_TIME_MAX:?}"));
            }
            let _ = rustix::io::read(&*self.call, &mut [0; 8]);
            if !self.ring.ask_for_calls() {
                let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                // Whatever comes of it, the ring is looked at again.
                let _ =
                    poll(&mut [PollFd::from_borrowed_fd(self.call.as_fd(), PollFlags::IN)], Some(&timeout));
            }
        }
    }
}

const LINE: usize = 64;
/// What no device answers.
const NO_ANSWER: u8 = 0xff;
/// A device may be a process that has other things to do.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::event;
    use std::thread;

    /// A device that reads one command by hand, of a split ring, and answers it; the command.
    fn serve(memory: &DriverMemory, layout: RingLayout, call: &OwnedFd, answer: u8) -> Vec<u8> {
        let offset = |addr: u64| (addr - memory.guest_addr(0)) as usize;
        let deadline = Instant::now() + Duration::from_secs(10);
        while memory.read_u64(offset(layout.avail)) >> 16 & 0xffff == 0 {
            assert!(Instant::now() < deadline, "a command comes");
        }
        let mut command = Vec::new();
        for descriptor in 0..3 {
            let place = offset(layout.desc) + 16 * descriptor;
            let (addr, rest) = (memory.read_u64(place), memory.read_u64(place + 8));
            if rest >> 32 & 2 == 2 {
                memory.write(offset(addr), &[answer]);
                continue;
            }
            let mut bytes = vec![0; rest as u32 as usize];
            memory.read(offset(addr), &mut bytes);
            command.extend(bytes);
        }
        memory.write_u64(offset(layout.used) + 4, 1 << 32);
        memory.write(offset(layout.used) + 2, &1u16.to_le_bytes());
        rustix::io::write(call, &1u64.to_ne_bytes()).unwrap();
        command
    }

    fn commanded(
        answer: u8,
        give: impl FnOnce(&mut ControlQueue) -> Result<(), String>,
    ) -> (Vec<u8>, Result<(), String>) {
        let memory = Arc::new(DriverMemory::at("test", 0x1000, 0x10_0000).unwrap());
        let (kick, call) = (event(), event());
        let mut queue = ControlQueue::new(
            memory.clone(),
            0,
            RING_SIZE,
            DriverOptions::default(),
            kick.clone(),
            call.clone(),
        )
        .unwrap();
        let layout = queue.layout();
        let device = thread::spawn(move || serve(&memory, layout, &call, answer));
        let result = give(&mut queue);
        assert!(rustix::io::read(&*kick, &mut [0; 8]).is_ok(), "the device was kicked");
        (device.join().unwrap(), result)
    }

    #[test]
    fn a_command_is_class_number_and_data_and_is_answered() {
        assert_eq!(commanded(0, |queue| queue.set_pairs(0x0102)), (vec![4, 0, 2, 1], Ok(())));
        assert_eq!(commanded(0, ControlQueue::set_promiscuous), (vec![0, 0, 1], Ok(())));
        let (_, refused) = commanded(1, |queue| queue.set_pairs(4));
        assert_eq!(refused, Err("the device refuses the control command 4.0".into()));
    }
}

//! A [`Guest`] plugged straight into a switch of this process: no socket, no vhost-user, the same rings. Or into no
//! switch at all, only a snapshot, for benches that forward on the thread that drives the guests.

use std::sync::Arc;

use ringyard_dataplane::fdb::{AGEING_S, Fdb};
use ringyard_dataplane::filter::RxFilter;
use ringyard_dataplane::hub::{HubTable, Member};
use ringyard_dataplane::mac::Mac;
use ringyard_dataplane::port::{Attachment, Egress, IngressEnd};
use ringyard_dataplane::ring::{self, MemoryTable, Ring, RingEnd, RingLayout, RingSignals, RingView};
use ringyard_dataplane::snapshot::{Duty, PortIndex, PortView, Snapshot};
use ringyard_dataplane::switch::{PortPlan, Switch};

use crate::error::{Doing, Error, Result};
use crate::guest::{Guest, Queue};

/// How long an idle ring is polled before its guest has to kick, in microseconds.
const LINGER_US: u32 = 50;

/// The device's ends of all rings of `guest`, before it has sent anything.
pub fn attachment(guest: &Guest) -> Result<Attachment> {
    let memory = MemoryTable::new(vec![guest.memory().region()]).doing("taking in a guest's memory")?;
    let memory = Arc::new(memory);
    let view = |queue: &Queue| {
        let signals = RingSignals { call: Some(queue.call_fd().clone().into()), ..RingSignals::default() };
        let layout: RingLayout = queue.layout();
        RingView::new(memory.clone(), layout, guest.features().ring_options(), signals)
            .map(Arc::new)
            .doing("taking in a guest's ring")
    };
    let start = |view: &RingView| Ring::start(view, None).map(Arc::new).doing("starting a guest's ring");
    let mut attachment = Attachment { carrier: true, ..Attachment::default() };
    for (number, pair) in guest.pairs().iter().enumerate() {
        let kick = Some(pair.send.queue().kick_fd().clone());
        let view_in = view(pair.send.queue())?;
        let ring = start(&view_in)?;
        let RingEnd { ingress, doorbell } = ring::ingress(view_in, ring, number as u16, kick);
        attachment.ingress.push(Arc::new(IngressEnd {
            queue: number as u16,
            ingress,
            doorbell,
            linger_us: LINGER_US,
            discard: None,
        }));
        let view_out = view(pair.receive.queue())?;
        let ring = start(&view_out)?;
        attachment.egress.push(ring::egress(view_out, ring));
    }
    Ok(attachment)
}

/// Plugs `guest` into hub 0 of `switch` as a NIC of that address. Takes effect at the next publish.
pub fn plug(switch: &mut Switch, guest: &Guest, mac: Mac) -> Result<PortIndex> {
    plug_behind(switch, guest, mac, |egress| egress)
}

/// As [`plug`], with something between the switch and the guest's receive rings.
pub fn plug_behind(
    switch: &mut Switch,
    guest: &Guest,
    mac: Mac,
    wrap: impl Fn(Arc<dyn Egress>) -> Arc<dyn Egress>,
) -> Result<PortIndex> {
    let port = switch.add_port().map_err(|_| Error::new("the switch is full"))?;
    let mut attachment = attachment(guest)?;
    attachment.egress = attachment.egress.into_iter().map(wrap).collect();
    let filter = Some(Arc::new(RxFilter::new(mac)));
    switch.set_port(port, PortPlan { hub: Some(0), link: true, filter, attachment });
    Ok(port)
}

/// All of `guests` on one hub, as one worker sees them: its duty `i` is the first transmit ring of guest `i`, whose
/// address is `macs[i]`.
pub fn snapshot(guests: &[&Guest], macs: &[Mac]) -> Result<Snapshot> {
    let (mut ports, mut members, mut duties) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (guest, mac)) in guests.iter().zip(macs).enumerate() {
        let (port, attachment) = (PortIndex(index as u16), attachment(guest)?);
        let filter = Some(Arc::new(RxFilter::new(*mac)));
        members.push(Member { port, up: true, filter });
        duties.extend(attachment.ingress.into_iter().take(1).map(|end| Duty { port, end }));
        let egress = attachment.egress.into();
        ports.push(Some(Arc::new(PortView { hub: Some(0), silenced: None, egress })));
    }
    let fdb = Fdb::new(AGEING_S).doing("making room for addresses")?;
    let hubs = [Arc::new(HubTable::new(&members).learning(Arc::new(fdb)))];
    Ok(Snapshot { ports: ports.into(), hubs: hubs.into(), duties: [duties.into()].into() })
}

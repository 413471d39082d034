//! The human monitor inside `human-monitor-command`.

use ringyard_tests::Result;

use crate::comparison::Comparison;
use crate::differences;
use crate::pair::Pair;

const LINES: &[&str] = &[
    "",
    " ",
    "\n",
    "bogus",
    " bogus",
    "bogus  with  words",
    "bogus\n",
    "infoo",
    "info bogus",
    "info network x",
    " info  network ",
    "info network",
    "info networ",
    "set_link",
    "set_link x",
    "set_link x maybe",
    "set_link x on",
    "set_link x off",
    "set_link x on y",
    "set_link  x  on ",
    "set_link \"x y\" on",
    "set_link 'x' on",
    "set_link \"x on",
    "set_link x o",
    "set_link x ON",
    "set_link x true",
    "netdev_add",
    "netdev_add bogus",
    "netdev_add bogus,id=a",
    "netdev_add hubport",
    "netdev_add hubport,hubid=1",
    "netdev_add hubport,id=h",
    "netdev_add hubport,id=h,hubid=x",
    "netdev_add hubport,id=h,hubid=99999999999",
    "netdev_add hubport,id=1h,hubid=1",
    "netdev_add hubport,id=h,hubid=1,bogus=1",
    "netdev_add hubport,id=h,hubid=1 x",
    "netdev_add type=hubport,id=h,hubid=1,",
    "netdev_add hubport,id=h,hubid=0x10",
    "netdev_add hubport,id=h,hubid=1",
    "netdev_add id=k,type=hubport,hubid=1",
    "netdev_add none,id=a",
    "netdev_add nic,id=a,macaddr=x",
    "netdev_add user,id=u,restrict=maybe",
    "netdev_add tap,id=t,queues=-1",
    "netdev_add tap,id=t,sndbuf=1Q",
    "netdev_add tap,id=t,fd=3,ifname=x",
    "netdev_add tap,id=t,fd=nosuch",
    "netdev_add socket,id=s",
    "netdev_add l2tpv3,id=l,src=a",
    "netdev_add vde,id=v,port=65536",
    "netdev_add vhost-user,id=v,chardev=nosuch",
    "netdev_add vhost-vdpa,id=v",
    "info network",
    "netdev_del",
    "netdev_del nosuch",
    "netdev_del h x",
    "netdev_del h",
    "netdev_del k",
    "hostfwd_add",
    "hostfwd_add tcp::1-:2",
    "hostfwd_add a b c",
    "hostfwd_remove",
    "hostfwd_remove tcp::1",
    "announce_self",
    "announce_self a,b",
    "announce_self a,b id",
    "announce_self a b c",
    "info usernet",
    "info usernet x",
    "info version x",
    "help bogus",
    "help set_link",
    "help netdev_add",
    "help netdev_del",
    "help announce_self",
    "help hostfwd_add",
    "help hostfwd_remove",
    "help info network",
    "help help",
    "? set_link",
    "help info bogus",
];

#[test]
fn the_human_monitor_prints_what_qemus_prints() -> Result<()> {
    let mut pair = Pair::start()?;
    let mut comparison = Comparison::new(differences::HUMAN);
    for (number, line) in LINES.iter().enumerate() {
        let row =
            if line.trim() == "info network" { format!("{number}: {line}") } else { (*line).to_owned() };
        comparison.type_line(&mut pair, &row, line)?;
    }
    comparison.finish()
}

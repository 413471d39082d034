//! Ports of VDE switches: with `vde_switch` and its other clients, and with a switch that means harm.

mod bench;
mod hostile;
mod switch;

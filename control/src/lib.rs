//! The control side: QMP, the command line, and the one mutable model of the switch.

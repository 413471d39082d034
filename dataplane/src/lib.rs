//! Frames, ports, hubs, workers and rings: everything that touches a frame.

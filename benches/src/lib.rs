//! Virtio front ends, load and measuring methods.

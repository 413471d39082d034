//! The rig that the integration tests share.

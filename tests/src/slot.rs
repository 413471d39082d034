//! The turn of a test that needs the machine to itself. Guests and testpmd take whole cores, and the machines that run
//! the tests have two; so whoever starts one shows the slot that it holds. The lock is a file, so it holds between the
//! threads of one test target as well as between targets and runners that start a process a test.

use std::fs::{self, File};

use crate::error::{Doing, Result};
use crate::tools;

/// The machine, taken. Given back at drop.
pub struct Slot {
    _locked: File,
}

impl Slot {
    /// Waits for the machine, for as long as other tests need it.
    pub fn take() -> Result<Slot> {
        let directory = tools::target_directory();
        fs::create_dir_all(&directory).doing(format!("making {}", directory.display()))?;
        let path = directory.join("rig.lock");
        let file = File::create(&path).doing(format!("creating {}", path.display()))?;
        file.lock().doing(format!("locking {}", path.display()))?;
        Ok(Slot { _locked: file })
    }
}

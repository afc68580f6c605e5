//! Gives up what root may do and memprof does not need.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::ebpf::Attach;

/// What watching takes, and nothing else.
const NEEDED: [Capability; 7] = [
    // The programs, and their probes.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    // Reading the memory and the executables of workers, and holding them.
    Capability::CAP_SYS_PTRACE,
    // Files that a worker maps and that are deleted on disk.
    Capability::CAP_CHECKPOINT_RESTORE,
    // Records in a folder of the application's, whose log keeps its owner.
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_CHOWN,
    Capability::CAP_FOWNER,
];

/// Why capabilities are kept.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refuses to take them.
    #[error("capabilities that are not needed could not be given up: {0}")]
    Capabilities(#[from] CapsError),
    /// The kernel refuses to forbid new ones.
    #[error("new privileges could not be ruled out: {0}")]
    NewPrivileges(#[from] nix::Error),
}

/// Keeps only what is needed of this thread's capabilities, and of those that it starts; none can be gained.
/// Probes that are attached one by one need CAP_SYS_ADMIN.
///
/// # Errors
/// [`PrivilegesError`]; what was given up until then stays so.
pub fn give_up_unneeded(attach: Attach) -> Result<(), PrivilegesError> {
    nix::sys::prctl::set_no_new_privs()?;
    let has = caps::read(None, CapSet::Permitted)?;
    let admin = (attach == Attach::Single).then_some(Capability::CAP_SYS_ADMIN);
    let needed: CapsHashSet = NEEDED
        .into_iter()
        .chain(admin)
        .filter(|one| has.contains(one))
        .collect();
    // While there is still the right to do so.
    if has.contains(&Capability::CAP_SETPCAP) {
        for one in caps::read(None, CapSet::Bounding)? {
            if !needed.contains(&one) {
                caps::drop(None, CapSet::Bounding, one)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)?;
    Ok(())
}

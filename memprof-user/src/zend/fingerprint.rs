//! Which layout a binary has, told by the sizes of its exported globals.

use std::fmt;

use crate::binary::{Globals, PhpVersion};

use super::builds;
use super::layout::Layout;

/// The machine that a build is for, as far as struct layouts differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// aarch64: `struct stat` is 16 bytes shorter, so is `sapi_globals` from behind `global_stat` on.
    Aarch64,
}

impl Machine {
    /// The machine memprof itself runs on, which is that of every process it can read.
    pub const HOST: Machine = if cfg!(target_arch = "aarch64") {
        Machine::Aarch64
    } else {
        Machine::X86_64
    };

    /// Bytes by which `sapi_globals` is shorter behind `global_stat` than on x86-64.
    fn shorter_stat(self) -> u32 {
        match self {
            Machine::X86_64 => 0,
            Machine::Aarch64 => 16,
        }
    }
}

/// The `st_size` of the exported globals, in bytes: what identifies a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `executor_globals`
    pub executor: u64,
    /// `compiler_globals`
    pub compiler: u64,
    /// `sapi_globals`
    pub sapi: u64,
    /// `core_globals`
    pub core: u64,
    /// `ps_globals`; `None` where the session extension is not in the binary.
    pub session: Option<u64>,
}

impl Fingerprint {
    /// The fingerprint of a binary.
    pub fn of(globals: &Globals) -> Fingerprint {
        Fingerprint {
            executor: globals.executor.size,
            compiler: globals.compiler.size,
            sapi: globals.sapi.size,
            core: globals.core.size,
            session: globals.session.map(|session| session.size),
        }
    }

    /// How many of the sizes that both have are equal, and by how many bytes the others differ.
    fn difference(&self, other: &Fingerprint) -> (u32, u64) {
        let session = self.session.zip(other.session);
        [
            (self.executor, other.executor),
            (self.compiler, other.compiler),
            (self.sapi, other.sapi),
            (self.core, other.core),
        ]
        .into_iter()
        .chain(session)
        .fold((0, 0), |(unequal, bytes), (a, b)| {
            (
                unequal + u32::from(a != b),
                bytes.saturating_add(a.abs_diff(b)),
            )
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "executor_globals {}, compiler_globals {}, sapi_globals {}, core_globals {}, ps_globals ",
            self.executor, self.compiler, self.sapi, self.core
        )?;
        match self.session {
            Some(size) => write!(f, "{size}"),
            None => write!(f, "absent"),
        }
    }
}

/// No known layout has these sizes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "PHP {}.{}.{} has an unknown memory layout: the sizes of its globals are {found}; nearest known: {nearest}. \
     memprof does not guess: use a memprof that knows this build, or report these sizes",
    .version.major, .version.minor, .version.patch
)]
pub struct UnknownLayout {
    /// What the binary says it is.
    pub version: PhpVersion,
    /// The sizes found.
    pub found: Fingerprint,
    /// The nearest known layouts with their sizes.
    pub nearest: String,
}

impl Layout {
    /// The layout of a binary with these globals.
    ///
    /// # Errors
    /// [`UnknownLayout`] when no known layout has exactly these sizes.
    pub fn find(
        globals: &Globals,
        version: PhpVersion,
        machine: Machine,
    ) -> Result<Layout, UnknownLayout> {
        let found = Fingerprint::of(globals);
        let mut known: Vec<_> = builds::ALL
            .iter()
            .map(|(fingerprint, layout)| (for_machine(*fingerprint, machine), layout))
            .collect();
        known.sort_by_key(|(fingerprint, _)| fingerprint.difference(&found));
        match known.first() {
            Some((nearest, layout)) if nearest.difference(&found).0 == 0 => {
                Ok(layout.for_machine(machine))
            }
            _ => Err(UnknownLayout {
                version,
                found,
                nearest: known
                    .iter()
                    .take(2)
                    .map(|(fingerprint, layout)| format!("PHP {} ({fingerprint})", layout.php))
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// The same layout where `global_stat` is shorter.
    fn for_machine(mut self, machine: Machine) -> Layout {
        // 8.6 moved sapi_started in front of global_stat (offset 256 everywhere).
        const GLOBAL_STAT: u32 = 256;
        for offset in [
            &mut self.sapi.sapi_started,
            &mut self.sapi.global_request_time,
        ] {
            if *offset > GLOBAL_STAT {
                *offset -= machine.shorter_stat();
            }
        }
        self
    }
}

fn for_machine(fingerprint: Fingerprint, machine: Machine) -> Fingerprint {
    Fingerprint {
        sapi: fingerprint.sapi - u64::from(machine.shorter_stat()),
        ..fingerprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary::Global;

    const VERSION: PhpVersion = PhpVersion {
        major: 8,
        minor: 2,
        patch: 36,
    };

    fn globals(fingerprint: Fingerprint) -> Globals {
        let global = |size| Global { address: 0, size };
        Globals {
            executor: global(fingerprint.executor),
            compiler: global(fingerprint.compiler),
            core: global(fingerprint.core),
            sapi: global(fingerprint.sapi),
            session: fingerprint.session.map(global),
        }
    }

    #[test]
    fn every_fingerprint_finds_its_own_layout() {
        for (mut fingerprint, layout) in builds::ALL {
            for session in [fingerprint.session, None] {
                fingerprint.session = session;
                let found = Layout::find(&globals(fingerprint), VERSION, Machine::X86_64);
                assert_eq!(found.map(|found| found.php), Ok(layout.php));
            }
        }
    }

    #[test]
    fn aarch64_has_a_shorter_stat() {
        for (mut fingerprint, layout) in builds::ALL {
            fingerprint.sapi -= 16;
            let found = Layout::find(&globals(fingerprint), VERSION, Machine::Aarch64);
            let started = match layout.php {
                "8.6.0rc3" => 250,
                _ => 420,
            };
            assert_eq!(found.map(|found| found.sapi.sapi_started), Ok(started));
            assert!(Layout::find(&globals(fingerprint), VERSION, Machine::X86_64).is_err());
        }
    }

    #[test]
    fn an_unknown_fingerprint_is_refused_with_the_nearest() {
        let (mut fingerprint, _) = builds::ALL[4];
        fingerprint.executor += 8;
        let error = Layout::find(&globals(fingerprint), VERSION, Machine::X86_64)
            .map_err(|error| error.to_string());
        let text = error.err().unwrap_or_default();
        assert!(text.contains("executor_globals 1808"), "{text}");
        assert!(
            text.contains("nearest known: PHP 8.2.36 (executor_globals 1800"),
            "{text}"
        );
    }
}

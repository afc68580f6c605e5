//! The worker's registers at a probe.

use core::ffi::c_void;

use memprof_ebpf::Worker;

/// `struct pt_regs` (x86-64) or `struct user_pt_regs` (aarch64) as a row of words.
#[derive(Clone, Copy)]
pub struct Registers(*const u64);

/// Indices of the integer argument registers and of the result.
#[cfg(bpf_target_arch = "aarch64")]
mod index {
    pub const ARGUMENTS: [usize; 4] = [0, 1, 2, 3];
    pub const RESULT: usize = 0;
    pub const COUNT: usize = 31;
}

/// Indices of the integer argument registers (rdi, rsi, rdx, rcx) and of the result (rax).
#[cfg(not(bpf_target_arch = "aarch64"))]
mod index {
    pub const ARGUMENTS: [usize; 4] = [14, 13, 12, 11];
    pub const RESULT: usize = 10;
    pub const COUNT: usize = 20;
}

impl Registers {
    pub fn of(context: *mut c_void) -> Self {
        Self(context.cast_const().cast())
    }

    /// The argument at `N`, from 0.
    #[inline(always)]
    pub fn argument<const N: usize>(self) -> u64 {
        self.word(index::ARGUMENTS[N])
    }

    /// What a function returns.
    #[inline(always)]
    pub fn result(self) -> u64 {
        self.word(index::RESULT)
    }

    #[inline(always)]
    fn word(self, index: usize) -> u64 {
        // SAFETY: every index is a constant below the number of registers; the verifier checks it.
        unsafe { self.0.add(index).read_volatile() }
    }

    /// Puts all registers where they can be had by a number known only at run time, which the
    /// kernel refuses on the context itself.
    #[inline(always)]
    pub fn spread(self, worker: &mut Worker) {
        macro_rules! copy {
            ($($n:literal)*) => { $( if $n < index::COUNT { worker.state.registers[$n] = self.word($n); } )* };
        }
        copy!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30);
    }
}

/// A register that [`Registers::spread`] has put aside.
#[inline(always)]
pub fn spread_register(worker: &Worker, number: u64) -> u64 {
    worker.state.registers[(number & 31) as usize]
}

//! What there is for each architecture, and what this CPU has of it.

use swarmseal_core::Kernels;
#[cfg(any(target_arch = "x86", miri))]
use swarmseal_core::kernels::Portable;

#[cfg(target_arch = "x86_64")]
use crate::adx::Adx;
#[cfg(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64"))]
use crate::lanes;
#[cfg(target_arch = "x86_64")]
use crate::mul::Mul;
#[cfg(umaal)]
use crate::umaal::Umaal;
#[cfg(target_arch = "aarch64")]
use crate::umulh::Umulh;

/// A backend of this architecture, which this CPU may be able to run or not.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The backend's name.
    pub name: &'static str,
    /// What it needs, for people to read.
    pub needs: &'static str,
    kernels: fn() -> Option<&'static Kernels>,
    undetected: &'static Kernels,
}

impl Candidate {
    /// The backend, if the CPU has what it needs, and the operating system keeps the registers.
    pub fn kernels(&self) -> Option<&'static Kernels> {
        (self.kernels)()
    }

    /// The backend in any case: for simulators that run more than they say.
    ///
    /// # Safety
    /// The CPU must run the instructions that it needs.
    pub unsafe fn undetected(&self) -> &'static Kernels {
        self.undetected
    }
}

const PORTABLE: Candidate = Candidate {
    name: "portable",
    needs: "nothing",
    kernels: || Some(Kernels::portable()),
    undetected: Kernels::portable(),
};

// Each asks the CPU once, and the operating system about its registers (XCR0), and remembers the answer.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
cpufeatures::new!(has_sse2, "sse2");
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_adx, "bmi2", "adx");
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_avx2, "avx2");
#[cfg(target_arch = "x86_64")]
cpufeatures::new!(has_ifma, "avx512f", "avx512ifma");

/// The slowest first.
#[cfg(target_arch = "x86_64")]
pub(crate) static CANDIDATES: &[Candidate] = &[
    PORTABLE,
    {
        static MUL: Kernels = Kernels::scalar::<Mul>();
        Candidate { name: "mul", needs: "nothing", kernels: || Some(&MUL), undetected: &MUL }
    },
    {
        #[cfg(not(miri))]
        static SSE2: Kernels = lanes::sse2::kernels::<Mul>();
        // Which reads no assembly.
        #[cfg(miri)]
        static SSE2: Kernels = lanes::sse2::kernels::<Portable>();
        Candidate {
            name: "sse2",
            needs: "SSE2",
            kernels: || has_sse2::get().then_some(&SSE2),
            undetected: &SSE2,
        }
    },
    {
        static ADX: Kernels = Kernels::scalar::<Adx>();
        Candidate {
            name: "adx",
            needs: "BMI2, ADX",
            kernels: || has_adx::get().then_some(&ADX),
            undetected: &ADX,
        }
    },
    {
        static AVX2: Kernels = lanes::avx2::kernels::<Mul>();
        static AVX2_ADX: Kernels = lanes::avx2::kernels::<Adx>();
        Candidate {
            name: "avx2",
            needs: "AVX2",
            kernels: || has_avx2::get().then_some(if has_adx::get() { &AVX2_ADX } else { &AVX2 }),
            undetected: &AVX2,
        }
    },
    {
        // Every CPU with IFMA has had BMI2 and ADX, but a hypervisor may hide them.
        static IFMA: Kernels = lanes::ifma::kernels::<Mul>();
        static IFMA_ADX: Kernels = lanes::ifma::kernels::<Adx>();
        Candidate {
            name: "ifma",
            needs: "AVX-512 F, AVX-512 IFMA",
            kernels: || has_ifma::get().then_some(if has_adx::get() { &IFMA_ADX } else { &IFMA }),
            undetected: &IFMA,
        }
    },
];

/// The slowest first.
#[cfg(target_arch = "x86")]
pub(crate) static CANDIDATES: &[Candidate] = &[PORTABLE, {
    static SSE2: Kernels = lanes::sse2::kernels::<Portable>();
    Candidate { name: "sse2", needs: "SSE2", kernels: || has_sse2::get().then_some(&SSE2), undetected: &SSE2 }
}];

/// The slowest first.
#[cfg(target_arch = "aarch64")]
pub(crate) static CANDIDATES: &[Candidate] = &[
    {
        static NEON: Kernels = lanes::neon::kernels::<Umulh>();
        Candidate { name: "neon", needs: "NEON", kernels: || Some(&NEON), undetected: &NEON }
    },
    PORTABLE,
    {
        static UMULH: Kernels = Kernels::scalar::<Umulh>();
        Candidate { name: "umulh", needs: "nothing", kernels: || Some(&UMULH), undetected: &UMULH }
    },
];

/// The slowest first.
#[cfg(umaal)]
pub(crate) static CANDIDATES: &[Candidate] = &[PORTABLE, {
    static UMAAL: Kernels = Kernels::scalar::<Umaal>();
    Candidate { name: "umaal", needs: "nothing", kernels: || Some(&UMAAL), undetected: &UMAAL }
}];

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64", umaal)))]
pub(crate) static CANDIDATES: &[Candidate] = &[PORTABLE];

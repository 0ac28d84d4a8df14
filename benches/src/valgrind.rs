//! What programs that run under valgrind need of it.

use swarmseal_core::Kernels;

/// A backend by name. Valgrind's CPU runs `adx` without saying so: under valgrind it is handed out all the same.
pub fn backend(name: &str) -> Option<&'static Kernels> {
    let undetected = name == "adx" && is_running();
    swarmseal_accel::candidates().find(|candidate| candidate.name == name).and_then(|candidate| {
        if undetected {
            // SAFETY: valgrind's CPU runs MULX, ADCX and ADOX since 3.17, though its CPUID does not report ADX.
            Some(unsafe { candidate.undetected() })
        } else {
            candidate.kernels()
        }
    })
}

/// Whether this process runs under valgrind, which always loads a library of its own into it.
pub fn is_running() -> bool {
    std::env::var("LD_PRELOAD").is_ok_and(|libraries| libraries.contains("vgpreload_core"))
}

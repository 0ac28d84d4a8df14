//! Which arithmetic this process uses: the fastest that the CPU runs, or one that was forced.

use std::sync::OnceLock;

use swarmseal_core::Kernels;

static FORCED: OnceLock<&'static Kernels> = OnceLock::new();

/// A backend was asked for that this CPU cannot run, or that there is none of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no such backend on this architecture.
    #[error("there is no backend {name:?}: this CPU runs {}", runs())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It needs what the CPU has not.
    #[error("this CPU cannot run the backend {name}, which needs {needs}: it runs {}", runs())]
    NotHere {
        /// What was asked for.
        name: &'static str,
        /// Instructions that it needs.
        needs: &'static str,
    },
}

/// The arithmetic in use.
pub fn kernels() -> &'static Kernels {
    FORCED.get().copied().unwrap_or_else(swarmseal_accel::detect)
}

/// Whether [`force`] chose it.
pub fn is_forced() -> bool {
    FORCED.get().is_some()
}

/// Uses this backend from now on. The first call in a process counts: groups keep the backend that they began with.
pub fn force(name: &str) -> Result<(), Unavailable> {
    let candidate = swarmseal_accel::candidates().find(|candidate| candidate.name == name);
    let candidate = candidate.ok_or_else(|| Unavailable::Unknown { name: name.to_owned() })?;
    let kernels =
        candidate.kernels().ok_or(Unavailable::NotHere { name: candidate.name, needs: candidate.needs })?;
    FORCED.get_or_init(|| kernels);
    Ok(())
}

fn runs() -> String {
    swarmseal_accel::each().map(|kernels| kernels.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_run_is_refused_by_name() {
        let error = force("pentium").unwrap_err();
        assert_eq!(error, Unavailable::Unknown { name: "pentium".to_owned() });
        assert!(error.to_string().contains("this CPU runs ") && error.to_string().contains("portable"));
        for candidate in swarmseal_accel::candidates().filter(|candidate| candidate.kernels().is_none()) {
            let refused = Unavailable::NotHere { name: candidate.name, needs: candidate.needs };
            assert_eq!(force(candidate.name), Err(refused));
        }
        assert!(!is_forced());
        assert_eq!(kernels().name, swarmseal_accel::detect().name);
    }
}

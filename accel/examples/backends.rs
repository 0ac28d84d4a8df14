//! Prints every backend of this architecture, the slowest first, and what the CPU lacks for those that it cannot run.
//!
//! With all of them in it, and the leaks that are planted for the lint, it is what the lint of the disassembly reads of machines on which
//! memcheck does not run.

fn main() {
    for candidate in swarmseal_accel::candidates() {
        match candidate.kernels() {
            Some(kernels) => println!("{}", kernels.name),
            None => println!("{}: not on this CPU (needs {})", candidate.name, candidate.needs),
        }
    }
    // The lint reads these as well, where there is no lane of the real width.
    for model in swarmseal_accel::models() {
        println!("{}: a model, for tests", model.name);
    }
    swarmseal_accel::bench::planted::keep();
}

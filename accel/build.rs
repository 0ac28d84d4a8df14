//! Sets `umaal` where every CPU of the target has that instruction. Rust tells the features of 32-bit ARM to its nightly compilers alone, so
//! this goes by the target's name as well.

use std::env;

/// ARMv6 and later, but for the Thumb state of ARMv6 and for the Cortex-M that have no DSP instructions.
const NAMES: [&str; 9] = [
    "arm-unknown-linux",
    "armv6",
    "armv7",
    "armv8r",
    "thumbv7a",
    "thumbv7em",
    "thumbv7neon",
    "thumbv7r",
    "thumbv8r",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(umaal)");
    let target = env::var("TARGET").unwrap_or_default();
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let has = |name| features.split(',').any(|feature| feature == name);
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let arm = is("CARGO_CFG_TARGET_ARCH", "arm") && is("CARGO_CFG_TARGET_ENDIAN", "little");
    if arm && (NAMES.iter().any(|name| target.starts_with(name)) || has("dsp") && has("thumb2")) {
        println!("cargo::rustc-cfg=umaal");
    }
}

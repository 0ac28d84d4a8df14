//! Links the rivals that are no crates: OpenSSL, built here from its source, and Botan from the system.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "rivals")]
    rivals();
}

#[cfg(feature = "rivals")]
fn rivals() {
    openssl_src::Build::new().build().print_cargo_metadata();
    // Botan's C interface prepares a modulus anew for each product; its C++ interface does so once.
    println!("cargo::rerun-if-changed=src/rivals/botan.cpp");
    let botan = pkg_config::Config::new()
        .atleast_version("2.19")
        .probe("botan-2")
        .expect("Botan 2: apt install libbotan-2-dev");
    cc::Build::new()
        .cpp(true)
        .std("c++11")
        .includes(&botan.include_paths)
        .file("src/rivals/botan.cpp")
        .compile("swarmseal_bench_botan");
}

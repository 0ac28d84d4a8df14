//! `include/swarmseal.h` is what cbindgen makes of the source. `SWARMSEAL_RENEW=1` writes it anew.

use std::path::Path;

#[test]
fn the_committed_header_is_current() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(dir.join("cbindgen.toml")).unwrap();
    let made =
        cbindgen::Builder::new().with_src(dir.join("src/lib.rs")).with_config(config).generate().unwrap();
    let mut text = Vec::new();
    made.write(&mut text);
    let path = dir.join("include/swarmseal.h");
    if std::env::var_os("SWARMSEAL_RENEW").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(committed == text, "{} is not current", path.display());
}

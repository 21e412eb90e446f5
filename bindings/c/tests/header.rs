//! The header is the one that cbindgen makes of the sources.

use std::path::Path;

#[test]
fn the_header_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_src(folder.join("src/api.rs"))
        .with_config(config)
        .generate()
        .unwrap();
    let header = folder.join("include/eddy.h");
    if std::env::var_os("EDDY_UPDATE_HEADER").is_some() {
        bindings.write_to_file(&header);
    }
    let mut made = Vec::new();
    bindings.write(&mut made);
    let kept = std::fs::read_to_string(header).unwrap();
    assert!(kept == String::from_utf8(made).unwrap(), "run with EDDY_UPDATE_HEADER=1");
}

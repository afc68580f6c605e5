//! Puts the BPF object that `cargo xtask build` made where the agent can embed it.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=MEMPROF_BPF_OBJECT");
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return;
    }
    let Some(object) = env::var_os("MEMPROF_BPF_OBJECT") else {
        panic!("the eBPF engine embeds a BPF object: build with `cargo xtask build`");
    };
    println!("cargo::rerun-if-changed={}", object.to_string_lossy());
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::copy(&object, Path::new(&out).join("programs.o")).expect("the BPF object can be read");
}

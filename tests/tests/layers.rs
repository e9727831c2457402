//! Holds the table of the design against every manifest: who may use whom.

use std::{collections::BTreeMap, fs, path::Path};

/// What each crate may use of the workspace, and which outside crates belong to it alone.
const MAY_USE: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("engine", &["wire"]),
    ("net", &["wire"]),
    ("storage", &["wire"]),
    ("client", &["wire"]),
    ("server", &["wire", "engine", "net", "storage", "client"]),
    ("loadgen", &["wire", "client"]),
    ("bench", &["wire", "engine", "net", "storage", "server", "client"]),
    ("tests", &["wire", "engine", "net", "storage", "server", "client"]),
];

/// Outside crates that only some may use.
const CONFINED: &[(&str, &[&str])] = &[
    ("glommio", &["server"]),
    ("io-uring", &["server"]),
    ("quinn-udp", &["server"]),
    // The simulator speaks QUIC from the other side, in virtual time.
    ("quinn-proto", &["net", "server", "tests"]),
    ("tokio", &["client", "loadgen", "server", "tests"]),
    ("quinn", &["client"]),
];

fn dependencies(crate_folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(crate_folder).join("Cargo.toml");
    let manifest: toml::Table =
        fs::read_to_string(path).expect("each crate has a manifest").parse().expect("it is TOML");
    let table = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    table.keys().cloned().collect()
}

#[test]
fn every_manifest_keeps_to_the_layers() {
    for (name, allowed) in MAY_USE {
        for dependency in dependencies(name) {
            if let Some(own) = dependency.strip_prefix("tickwheel-") {
                assert!(allowed.contains(&own), "{name} must not use {own}");
            }
            if let Some((_, users)) = CONFINED.iter().find(|(confined, _)| *confined == dependency) {
                assert!(users.contains(name), "{name} must not use {dependency}");
            }
        }
    }
}

#[test]
fn every_crate_of_the_workspace_is_in_the_table() {
    let root =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).expect("there is a root");
    let root: toml::Table = root.parse().expect("it is TOML");
    let known: BTreeMap<&str, _> = MAY_USE.iter().copied().collect();
    for member in root["workspace"]["members"].as_array().expect("the workspace has members") {
        let member = member.as_str().expect("members are folders");
        assert!(known.contains_key(member), "{member} is missing in the table");
    }
}

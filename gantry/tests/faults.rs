//! What a user is told when something is wrong: one line that says what to do, and an exit code that is not zero.

use std::net::TcpListener;
use std::process::{Command, Output};

fn gantry(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
    command.args(args);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GANTRY_")) {
        command.env_remove(name);
    }
    command.output().expect("the binary runs")
}

fn complaint(args: &[&str]) -> String {
    let output = gantry(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim().lines().count(), 1, "not one line: {text}");
    text
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().to_string_lossy().into_owned();
    let text = complaint(&[
        "server",
        "--no-agent",
        "--data-dir",
        &data,
        "--bind-address",
        "127.0.0.1",
        "--secure-port",
        &port,
    ]);
    assert!(text.contains(&port) && text.contains("--secure-port"), "{text}");
}

#[test]
fn a_bad_configuration_file_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("gantry.yaml");
    std::fs::write(&file, "no-such-setting: 1\n").expect("a file");
    let output = gantry(&["server", "--no-agent", "--config", &file.to_string_lossy()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("gantry.yaml") && text.contains("no-such-setting"),
        "{text}"
    );
}

#[test]
fn networks_that_overlap_are_refused() {
    let text =
        complaint(&["server", "--no-agent", "--service-cidr", "10.0.0.0/8", "--cluster-cidr", "10.1.0.0/16"]);
    assert!(text.contains("overlap"), "{text}");
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    std::fs::create_dir_all(&store).expect("a folder");
    std::fs::write(store.join("FORMAT"), "gantry-store 999\n").expect("a file");
    let data = dir.path().to_string_lossy().into_owned();
    let output = gantry(&[
        "server",
        "--no-agent",
        "--data-dir",
        &data,
        "--bind-address",
        "127.0.0.1",
        "--secure-port",
        "0",
    ]);
    assert!(!output.status.success());
    assert_eq!(std::fs::read_to_string(store.join("FORMAT")).expect("still there"), "gantry-store 999\n");
}

#[test]
fn an_audit_policy_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let (file, data) = (dir.path().join("policy.yaml"), dir.path().join("data"));
    std::fs::write(&file, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{users: [ann]}]\n")
        .expect("a file");
    let (file, data) = (file.to_string_lossy().into_owned(), data.to_string_lossy().into_owned());
    let text = complaint(&["server", "--no-agent", "--data-dir", &data, "--audit-policy-file", &file]);
    assert!(text.contains("loading audit policy file: rules[0].level: Required value: from file"), "{text}");
    let text = complaint(&["server", "--no-agent", "--data-dir", &data, "--audit-log-mode", "lazy"]);
    assert!(text.contains("invalid audit log mode lazy, allowed modes are"), "{text}");
}

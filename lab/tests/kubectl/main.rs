//! Stock kubectls against a whole cluster: what their commands print and do is what users of Kubernetes expect.
//!
//! One cluster for each version: the current one, and Debian's kubectl 1.20, which still speaks SPDY and reads OpenAPI
//! v2 in protobuf. Each step has a namespace of its own and says what it relies on.

mod access;
mod commands;
mod objects;
mod streams;
mod tool;
mod workloads;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;

use gantry_lab::clients::fetched;
use gantry_lab::cluster::Cluster;

use crate::tool::{IMAGE, Kubectl};

#[test]
fn the_current_kubectl_works_as_with_kubernetes() {
    all_steps(Path::new("kubectl"), false);
}

#[test]
fn kubectl_1_20_works_as_with_kubernetes() {
    all_steps(&fetched("kubectl-1.20/usr/bin/kubectl"), true);
}

type Step = fn(&Kubectl<'_>);

/// Several go side by side: they wait more than they work.
const LANES: usize = 4;

/// Steps that work on the node; nothing else runs meanwhile.
const ALONE: &[(&str, Step)] = &[
    ("nodes", workloads::nodes_are_cordoned_tainted_and_drained),
    ("dump", commands::the_cluster_is_dumped),
];

const TOGETHER: &[(&str, Step)] = &[
    ("streams", streams::logs_exec_and_copies),
    ("deletion", objects::deletion_follows_its_propagation),
    ("rollouts", workloads::rollouts_go_on_back_and_rest),
    ("create", objects::create_makes_every_kind),
    ("forward", streams::port_forward_carries_requests),
    ("exec", streams::no_exec_loses_a_line),
    ("large", streams::large_copies_come_back_whole),
    ("attach", streams::attach_run_and_proxy),
    ("apply", objects::apply_creates_configures_and_leaves_alone),
    ("get", objects::get_prints_every_form),
    ("change", objects::changes_by_patch_label_and_annotation),
    ("discovery", access::discovery_and_explanations),
    ("access", access::access_reviews_and_tokens),
    ("certificates", access::certificates_are_approved_and_roles_reconciled),
    ("describe", objects::describe_knows_every_kind),
    ("refusals", objects::bad_input_is_refused_with_the_reason),
    ("watching", objects::watches_and_waits),
    ("manifests", commands::manifests_are_replaced_pruned_and_built),
    ("tools", commands::everyday_commands),
];

fn all_steps(program: &Path, is_old: bool) {
    let cluster = Cluster::start();
    cluster.load_images(&[IMAGE]);
    let failed = Mutex::new(Vec::new());
    let run = |name: &'static str, step: Step| {
        eprintln!("--- {name}");
        let kubectl = Kubectl { cluster: &cluster, program, is_old, namespace: format!("step-{name}") };
        cluster.kubectl_ok(&["create", "namespace", &kubectl.namespace]);
        // One run shows everything that is wrong.
        if std::panic::catch_unwind(AssertUnwindSafe(|| step(&kubectl))).is_err() {
            failed.lock().expect("no panic while noting").push(name);
        }
        cluster.kubectl_ok(&["delete", "namespace", &kubectl.namespace, "--wait=false"]);
    };
    let waiting = Mutex::new(TOGETHER.iter().rev().collect::<Vec<_>>());
    let next = || waiting.lock().expect("no panic while choosing").pop();
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some((name, step)) = next() {
                    run(name, *step);
                }
            });
        }
    });
    for (name, step) in ALONE {
        run(name, *step);
    }
    let failed = failed.into_inner().expect("no panic while noting");
    assert!(failed.is_empty(), "failed: {failed:?}");
}

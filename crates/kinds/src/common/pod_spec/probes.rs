//! Probes and hooks: one handler each.

use gantry_api::core::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodOS, Probe, SleepAction,
    TCPSocketAction,
};
use gantry_api::{IntOrString, names};

use super::super::at::{At, Complaints, items, text};
use crate::kind::Errors;

/// What runs: at most one of these.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

fn check_handler(handler: &Handler<'_>, grace: Option<i64>, at: &At<'_>, errors: &mut Errors) {
    let mut found = false;
    let mut alone = |name: &str, there: bool, errors: &mut Errors| {
        if there && found {
            errors.forbidden(&at.child(name), "may not specify more than 1 handler type");
            return false;
        }
        found |= there;
        there
    };
    if alone("exec", handler.exec.is_some(), errors)
        && handler.exec.is_some_and(|exec| items(&exec.command).is_empty())
    {
        errors.required(&at.child("exec.command"), "");
    }
    if alone("httpGet", handler.http.is_some(), errors)
        && let Some(http) = handler.http
    {
        check_http(http, &at.child("httpGet"), errors);
    }
    if alone("tcpSocket", handler.tcp.is_some(), errors)
        && let Some(tcp) = handler.tcp
    {
        check_port(&tcp.port, &at.child("tcpSocket.port"), errors);
    }
    if alone("grpc", handler.grpc.is_some(), errors)
        && let Some(grpc) = handler.grpc
    {
        errors.check(&at.child("grpc.port"), grpc.port, names::port_number(grpc.port));
    }
    if alone("sleep", handler.sleep.is_some(), errors)
        && let (Some(sleep), Some(grace)) = (handler.sleep, grace)
        && !(0..=grace).contains(&sleep.seconds)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(&at.child("sleep"), sleep.seconds, why);
    }
    if !found {
        errors.required(at, "must specify a handler type");
    }
}

fn check_http(http: &HTTPGetAction, at: &At<'_>, errors: &mut Errors) {
    errors.needed(&at.child("path"), text(&http.path));
    check_port(&http.port, &at.child("port"), errors);
    errors.among(&at.child("scheme"), text(&http.scheme), &["HTTP", "HTTPS"]);
    for header in items(&http.http_headers) {
        let at = at.child("httpHeaders");
        errors.check(&at, header.name.as_str(), names::http_header_name(&header.name));
    }
}

/// A port by number or by name: each complaint about a name.
pub fn check_port(port: &IntOrString, at: &At<'_>, errors: &mut Errors) {
    match port {
        IntOrString::Int(number) => errors.check(at, *number, names::port_number(*number)),
        IntOrString::String(name) => {
            for why in names::port_name_complaints(name) {
                errors.invalid(at, name.as_str(), why);
            }
        }
    }
}

/// Which of the three probes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Liveness,
    Readiness,
    Startup,
}

pub(super) fn check_probe(
    probe: Option<&Probe>,
    role: Role,
    grace: Option<i64>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    let Some(probe) = probe else { return };
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http: probe.http_get.as_ref(),
        tcp: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    check_handler(&handler, grace, at, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        errors.non_negative(&at.child(field), value.unwrap_or(0).into());
    }
    let own_grace = at.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errors.invalid(&own_grace, seconds, "must be greater than 0");
    }
    match (role, probe.termination_grace_period_seconds) {
        (Role::Readiness, Some(seconds)) => {
            errors.invalid(&own_grace, seconds, "must not be set for readinessProbes");
        }
        (Role::Readiness, None) => {}
        (Role::Liveness | Role::Startup, _) => {
            let threshold = probe.success_threshold.unwrap_or(0);
            if threshold != 1 {
                errors.invalid(&at.child("successThreshold"), threshold, "must be 1");
            }
        }
    }
}

pub(super) fn check_lifecycle(
    lifecycle: &Lifecycle,
    os: Option<&PodOS>,
    grace: Option<i64>,
    at: &At<'_>,
    errors: &mut Errors,
) {
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            check_handler(&of_hook(hook), grace, &at.child(field), errors);
        }
    }
    if lifecycle.stop_signal.is_some() && os.is_none() {
        let why = "may not be set for containers with empty `spec.os.name`";
        errors.forbidden(&at.child("stopSignal"), why);
    }
}

fn of_hook(hook: &LifecycleHandler) -> Handler<'_> {
    Handler {
        exec: hook.exec.as_ref(),
        http: hook.http_get.as_ref(),
        tcp: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    }
}

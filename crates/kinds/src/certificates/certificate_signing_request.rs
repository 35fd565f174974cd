//! CertificateSigningRequest: somebody asks a signer for a certificate, somebody else approves, the signer issues.
//!
//! As `pkg/apis/certificates/validation` and `pkg/registry/certificates`.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use gantry_api::certificates::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use gantry_api::field::{Error, Path, quote};
use gantry_api::names;
use gantry_api::time::{human_duration, time};
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::common::check;
use crate::kind::{Errors, FieldPaths, Kind, NameRule, Names, Requester, Verbs};
use crate::table::{AGE, Column, age};

const MIN_SECONDS: i32 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

type Conditions = Option<Vec<CertificateSigningRequestCondition>>;

/// The kind.
pub struct CertificateSigningRequestKind;

impl Kind for CertificateSigningRequestKind {
    type Object = CertificateSigningRequest;
    const NAMES: Names = Names {
        singular: "certificatesigningrequest",
        short: &["csr"],
        categories: &[],
        rule: NameRule::PathSegment,
    };
    const VERBS: Verbs = Verbs { status: true, scale: false, connect: &["approval"] };

    fn reset_fields(subresource: &str) -> FieldPaths {
        match subresource {
            "status" => &[&["spec"], &["status", "conditions"]],
            "approval" => &[&["spec"], &["status", "certificate"]],
            _ => &[&["spec"], &["status"]],
        }
    }

    fn prepare_create(request: &mut CertificateSigningRequest) {
        request.status = Some(CertificateSigningRequestStatus::default());
    }

    fn note_requester(request: &mut CertificateSigningRequest, requester: Requester<'_>) {
        let spec = &mut request.spec;
        let set = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        spec.username = set(requester.name);
        spec.uid = set(requester.uid);
        let groups: Vec<String> = requester.groups.iter().map(|g| (**g).to_owned()).collect();
        spec.groups = (!groups.is_empty()).then_some(groups);
        spec.extra = (!requester.extra.is_empty()).then(|| requester.extra.clone());
    }

    fn prepare_update(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest) {
        new.spec.clone_from(&old.spec);
        for kind in ["Approved", "Denied"] {
            let before: Vec<_> = of_type(old, kind).cloned().collect();
            let Some(list) = new.status.as_mut().and_then(|s| s.conditions.as_mut()) else { continue };
            let slots: Vec<&mut CertificateSigningRequestCondition> =
                list.iter_mut().filter(|c| c.type_ == kind).collect();
            // Where one was added or removed, validation says so.
            if slots.len() == before.len() {
                slots.into_iter().zip(before).for_each(|(slot, condition)| *slot = condition);
            }
        }
    }

    fn prepare_part_update(
        _part: &str,
        new: &mut CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) {
        let conditions = new.status.take().and_then(|s| s.conditions);
        new.spec.clone_from(&old.spec);
        new.status =
            Some(CertificateSigningRequestStatus { conditions, ..old.status.clone().unwrap_or_default() });
    }

    fn note_time(new: &mut CertificateSigningRequest, old: &CertificateSigningRequest, now: SystemTime) {
        for condition in new.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
            condition.last_update_time.get_or_insert_with(|| time(now));
            if condition.last_transition_time.is_none() {
                let same = of_type(old, &condition.type_).filter(|c| c.status == condition.status);
                let since = same.filter_map(|c| c.last_transition_time.clone()).next();
                condition.last_transition_time = Some(since.unwrap_or_else(|| time(now)));
            }
        }
    }

    fn validate(request: &CertificateSigningRequest) -> Errors {
        validate_request(request, None)
    }

    fn validate_replacement(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
        validate_step(new, old, false, false)
    }

    fn validate_status_update(new: &CertificateSigningRequest, old: &CertificateSigningRequest) -> Errors {
        validate_step(new, old, false, true)
    }

    fn validate_part_update(
        _part: &str,
        new: &CertificateSigningRequest,
        old: &CertificateSigningRequest,
    ) -> Errors {
        validate_step(new, old, true, false)
    }

    fn columns() -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            AGE,
            Column::new(
                "SignerName",
                "string",
                "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
            ),
            Column::new("Requestor", "string", "Base64-encoded PKCS#10 CSR data"),
            Column::new(
                "RequestedDuration",
                "string",
                "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
            ),
            Column::new(
                "Condition",
                "string",
                "Conditions applied to the request, such as approval or denial.",
            ),
        ];
        COLUMNS
    }

    fn cells(request: &CertificateSigningRequest, now: SystemTime) -> Vec<Value> {
        let spec = &request.spec;
        let seconds = spec.expiration_seconds.map(|s| u64::try_from(s).unwrap_or(0));
        let asked = seconds.map(|s| human_duration(Duration::from_secs(s)));
        vec![
            age(&request.metadata, now),
            crate::table::or_none(spec.signer_name.as_str()),
            spec.username.clone().unwrap_or_default().into(),
            asked.unwrap_or_else(|| "<none>".into()).into(),
            state(request).into(),
        ]
    }

    fn selectable() -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selectable_values(request: &CertificateSigningRequest) -> Vec<String> {
        vec![request.spec.signer_name.clone()]
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn of_type<'a>(
    request: &'a CertificateSigningRequest,
    kind: &'a str,
) -> impl Iterator<Item = &'a CertificateSigningRequestCondition> {
    conditions(request).iter().filter(move |c| c.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> &[u8] {
    request.status.as_ref().and_then(|s| s.certificate.as_ref()).map_or(&[], |c| c.0.as_slice())
}

fn state(request: &CertificateSigningRequest) -> String {
    let has = |kind: &str| of_type(request, kind).next().is_some();
    let mut text = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !certificate(request).is_empty() {
        text.push_str(",Issued");
    }
    text
}

/// What is wrong with the request in itself; what `old` did wrong may stay.
fn validate_request(request: &CertificateSigningRequest, old: Option<&CertificateSigningRequest>) -> Errors {
    let mut errors = Errors::new();
    let path = Path::new("spec");
    let spec = &request.spec;
    if let Err(why) = check_request(&spec.request.0) {
        let shown = if spec.request.0.is_empty() { Value::Null } else { json!(spec.request) };
        errors.push(Error::invalid(&path.child("request"), shown, why));
    }
    validate_usages(request, old, &path.child("usages"), &mut errors);
    let at = path.child("signerName");
    let legacy = old.is_some_and(|o| o.spec.signer_name == LEGACY_SIGNER);
    if !legacy && spec.signer_name == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(Error::invalid(&at, LEGACY_SIGNER, why));
    } else {
        validate_signer_name(&spec.signer_name, &at, &mut errors);
    }
    if let Some(seconds) = spec.expiration_seconds.filter(|s| *s < MIN_SECONDS) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&path.child("expirationSeconds"), seconds, why));
    }
    validate_conditions(request, old, &Path::new("status").child("conditions"), &mut errors);
    let keep = |o: &CertificateSigningRequest| {
        certificate(o) == certificate(request) || check_certificates(certificate(o)).is_err()
    };
    if !old.is_some_and(keep)
        && let Err(why) = check_certificates(certificate(request))
    {
        errors.push(Error::invalid(&Path::new("status").child("certificate"), "<certificate data>", why));
    }
    errors
}

fn check_request(pem: &[u8]) -> Result<(), String> {
    let blocks = Pem::iter_from_buffer(pem).next().and_then(Result::ok);
    let block = blocks.filter(|b| b.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (rest, request) = X509CertificationRequest::from_der(&block.contents)
        .map_err(|e| format!("asn1: structure error: {e}"))?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".into());
    }
    request.verify_signature().map_err(|_| "x509: signature verification failure".to_owned())
}

fn check_certificates(pem: &[u8]) -> Result<(), String> {
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else { break };
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {}", quote(&block.label)));
        }
        block.parse_x509().map_err(|e| format!("x509: malformed certificate: {e}"))?;
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn validate_usages(
    request: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    path: &Path,
    errors: &mut Errors,
) {
    let list = |r: &CertificateSigningRequest| r.spec.usages.clone().unwrap_or_default();
    let repeats = |usages: &[String]| usages.len() != usages.iter().collect::<BTreeSet<_>>().len();
    let usages = list(request);
    let before = old.map(list).unwrap_or_default();
    if usages.is_empty() {
        errors.push(Error::required(path, ""));
    }
    if !before.iter().any(|usage| !USAGES.contains(&usage.as_str())) {
        for (i, usage) in usages.iter().enumerate() {
            check::supported(&path.index(i), usage, &USAGES, errors);
        }
    }
    if !repeats(&before) {
        let mut seen = BTreeSet::new();
        for (i, usage) in usages.iter().enumerate().filter(|(_, usage)| !seen.insert(*usage)) {
            errors.push(Error::duplicate(&path.index(i), usage.as_str()));
        }
    }
}

/// `example.com/signer-name`
fn validate_signer_name(name: &str, path: &Path, errors: &mut Errors) {
    const MAX_DOMAIN: usize = 253;
    const MAX: usize = MAX_DOMAIN + 253 + 63 + 2;
    if name.is_empty() {
        errors.push(Error::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(Error::invalid(path, name, why));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(Error::too_long(path, MAX_DOMAIN));
    }
    validate_parts(domain, names::dns1123_label, path, errors);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(path, domain, why));
    }
    validate_parts(rest, names::dns1123_subdomain, path, errors);
    if name.len() > MAX {
        errors.push(Error::too_long(path, MAX));
    }
}

fn validate_parts(text: &str, check: fn(&str) -> Result<(), String>, path: &Path, errors: &mut Errors) {
    let wrong = text.split('.').find_map(|part| Some((part, check(part).err()?)));
    if let Some((part, why)) = wrong {
        errors.push(Error::invalid(path, text, format!("validating label {}: {why}", quote(part))));
    }
}

fn validate_conditions(
    request: &CertificateSigningRequest,
    old: Option<&CertificateSigningRequest>,
    path: &Path,
    errors: &mut Errors,
) {
    let before = old.map(conditions).unwrap_or_default();
    let had = |kind: &str| before.iter().any(|c| c.type_ == kind);
    let both_allowed = had("Approved") && had("Denied");
    let types: BTreeSet<&str> = before.iter().map(|c| c.type_.as_str()).collect();
    let repeats_allowed = types.len() != before.len();
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions(request).iter().enumerate() {
        let at = path.index(i);
        let kind = condition.type_.as_str();
        if kind.is_empty() && !had("") {
            errors.push(Error::required(&at.child("type"), ""));
        }
        let only_true = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if only_true { &["True"] } else { &["False", "True", "Unknown"] };
        match condition.status.as_str() {
            "" => errors.push(Error::required(&at.child("status"), "")),
            status => check::supported(&at.child("status"), status, allowed, errors),
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !both_allowed && !other.is_empty() && seen.contains(other) {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(Error::invalid(path, kind, why));
        }
        if !seen.insert(kind) && !repeats_allowed {
            errors.push(Error::duplicate(&at.child("type"), kind));
        }
    }
}

/// What is wrong with an update: `approving` may change the approval, `issuing` may set the certificate.
fn validate_step(
    new: &CertificateSigningRequest,
    old: &CertificateSigningRequest,
    approving: bool,
    issuing: bool,
) -> Errors {
    let mut errors = validate_request(new, Some(old));
    let path = Path::new("status");
    let at = path.child("conditions");
    let pick = |request, kind| -> Conditions { Some(of_type(request, kind).cloned().collect()) };
    let count = |list: &Conditions| list.as_ref().map_or(0, Vec::len);
    for kind in ["Approved", "Denied", "Failed"] {
        if count(&pick(new, kind)) < count(&pick(old, kind)) {
            let why = format!("updates may not remove a condition of type {}", quote(kind));
            errors.push(Error::forbidden(&at, why));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| !approving) {
        let (before, after) = (pick(old, kind), pick(new, kind));
        if count(&after) > count(&before) {
            let why = format!("updates may not add a condition of type {}", quote(kind));
            errors.push(Error::forbidden(&at, why));
        } else if count(&after) == count(&before) && after != before {
            let why = format!("updates may not modify a condition of type {}", quote(kind));
            errors.push(Error::forbidden(&at, why));
        }
    }
    if certificate(new) != certificate(old) {
        let at = path.child("certificate");
        if !issuing {
            errors.push(Error::forbidden(&at, "updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            errors.push(Error::forbidden(&at, "updates may not modify existing certificate content"));
        }
    }
    errors
}

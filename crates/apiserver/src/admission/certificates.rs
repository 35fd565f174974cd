//! Certificate signing requests: who may approve and sign for a signer, and whose certificates are not to be had.
//!
//! Behaviour and texts: `plugin/pkg/admission/certificates`.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_api::Resource;
use gantry_api::certificates::CertificateSigningRequest;
use gantry_api::field::quote;
use gantry_api::status::Result;
use gantry_kinds::AnyObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::common::forbidden;
use super::{AdmissionPlugin, AdmissionRequest, Operation};
use crate::authorize::{Attributes, Authorizer};
use crate::identify::User;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

fn is_request(resource: &Resource) -> bool {
    resource.group == "certificates.k8s.io" && resource.plural == "certificatesigningrequests"
}

fn read(object: Option<&dyn AnyObject>) -> Option<&CertificateSigningRequest> {
    object.and_then(|o| o.downcast())
}

/// Whether somebody may do this with what a signer signs, or with what any signer of its domain signs.
async fn may(authorizer: &dyn Authorizer, user: &User, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or("");
    for name in [signer, &format!("{domain}/*")] {
        let attributes = Attributes {
            name,
            version: "*",
            ..Attributes::on_resource(user, verb, "certificates.k8s.io", "signers")
        };
        if authorizer.authorize(&attributes).await.is_allowed() {
            return true;
        }
    }
    false
}

/// Only who may `approve` for a signer approves its requests.
pub(super) struct CertificateApproval {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl AdmissionPlugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is_request(resource) && subresource == "approval"
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(old) = read(old) else { return Ok(()) };
        let signer = &old.spec.signer_name;
        if may(&*self.authorizer, request.user, "approve", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {}", quote(signer));
        Err(forbidden(request, object, why))
    }
}

/// Only who may `sign` for a signer puts certificates into its requests.
pub(super) struct CertificateSigning {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl AdmissionPlugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Update && is_request(resource) && subresource == "status"
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let (Some(new), Some(old)) = (read(object), read(old)) else { return Ok(()) };
        let written = |csr: &CertificateSigningRequest| {
            let status = csr.status.clone().unwrap_or_default();
            (status.certificate.unwrap_or_default(), status.conditions.unwrap_or_default())
        };
        let signer = &old.spec.signer_name;
        if written(new) == written(old) || may(&*self.authorizer, request.user, "sign", signer).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {}", quote(signer));
        Err(forbidden(request, object, why))
    }
}

/// Nobody becomes one of the masters by a certificate.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl AdmissionPlugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation, resource: &Resource, subresource: &str) -> bool {
        operation == Operation::Create && is_request(resource) && subresource.is_empty()
    }

    async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        object: Option<&dyn AnyObject>,
        _old: Option<&dyn AnyObject>,
    ) -> Result<()> {
        let Some(csr) = read(object).filter(|csr| csr.spec.signer_name == CLIENT_SIGNER) else {
            return Ok(());
        };
        match organizations(&csr.spec.request.0) {
            Err(why) => Err(forbidden(request, object, format!("failed to parse CSR: {why}"))),
            Ok(groups) if groups.iter().any(|g| g == MASTERS) => {
                let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
                Err(forbidden(request, object, why))
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The organizations in the subject of a PEM certificate request.
fn organizations(pem: &[u8]) -> Result<Vec<String>, String> {
    const WRONG: &str = "PEM block type must be CERTIFICATE REQUEST";
    let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| WRONG.to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(WRONG.to_owned());
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    let names = csr.certification_request_info.subject.iter_organization();
    Ok(names.filter_map(|name| name.as_str().ok()).map(str::to_owned).collect())
}

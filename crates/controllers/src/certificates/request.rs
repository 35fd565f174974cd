//! What a certificate request asks for, and what the signers of Kubernetes accept.

use std::collections::BTreeSet;
use std::net::IpAddr;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, GeneralName};

/// A request, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
    emails: usize,
    uris: usize,
}

impl Request {
    /// Reads PEM.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let bad = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| bad())?;
        if block.label != "CERTIFICATE REQUEST" {
            return Err(bad());
        }
        let (_, request) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
        let info = &request.certification_request_info;
        let mut read = Self {
            common_name: info
                .subject
                .iter_common_name()
                .filter_map(|n| n.as_str().ok())
                .last()
                .unwrap_or("")
                .to_owned(),
            organizations: info
                .subject
                .iter_organization()
                .filter_map(|o| o.as_str().ok().map(str::to_owned))
                .collect(),
            ..Self::default()
        };
        for attribute in info.iter_attributes() {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { continue };
            for extension in &asked.extensions {
                if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                    names.general_names.iter().for_each(|name| read.name(name));
                }
            }
        }
        Ok(read)
    }

    fn name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                self.addresses.extend(address.ok());
            }
            GeneralName::RFC822Name(_) => self.emails += 1,
            GeneralName::URI(_) => self.uris += 1,
            _ => {}
        }
    }

    /// Whether the signer of kubelets' client certificates takes it.
    pub(super) fn check_kubelet_client(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        let unwanted = [
            (self.dns_names.len(), "DNS subjectAltNames are not allowed"),
            (self.emails, "Email subjectAltNames are not allowed"),
            (self.addresses.len(), "IP subjectAltNames are not allowed"),
            (self.uris, "URI subjectAltNames are not allowed"),
        ];
        if let Some((_, why)) = unwanted.iter().find(|(count, _)| *count > 0) {
            return Err((*why).to_owned());
        }
        self.check_name()?;
        check_usages(usages, "client auth")
    }

    /// Whether the signer of kubelets' serving certificates takes it.
    pub(super) fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), String> {
        self.check_organization()?;
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("DNS or IP subjectAltName is required".to_owned());
        }
        if self.emails > 0 {
            return Err("Email subjectAltNames are not allowed".to_owned());
        }
        if self.uris > 0 {
            return Err("URI subjectAltNames are not allowed".to_owned());
        }
        check_usages(usages, "server auth")?;
        self.check_name()
    }

    fn check_organization(&self) -> Result<(), String> {
        if self.organizations == ["system:nodes"] {
            return Ok(());
        }
        Err("subject organization is not system:nodes".to_owned())
    }

    fn check_name(&self) -> Result<(), String> {
        if self.common_name.starts_with("system:node:") {
            return Ok(());
        }
        Err("subject common name does not begin with system:node:".to_owned())
    }
}

/// Key encipherment is for RSA keys only, and may be left out.
fn check_usages(usages: &[String], main: &str) -> Result<(), String> {
    let has: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from(["digital signature", "key encipherment", main]);
    let some = BTreeSet::from(["digital signature", main]);
    if has == all || has == some {
        return Ok(());
    }
    let wanted: Vec<&str> = all.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

/// Whether the signer of other clients' certificates takes these usages.
pub(super) fn check_client_usages(usages: &[String]) -> Result<(), String> {
    const MAIN: &str = "client auth";
    let known = |usage: &&String| ["digital signature", "key encipherment", MAIN].contains(&usage.as_str());
    if let Some(other) = usages.iter().find(|usage| !known(usage)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.iter().any(|usage| usage == MAIN) {
        return Ok(());
    }
    Err(format!("missing required usage for client certificate: {MAIN}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    fn signers_take_what_upstreams_take() {
        let node = Request {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            ..Request::default()
        };
        let client = usages(&["digital signature", "client auth"]);
        assert_eq!(node.check_kubelet_client(&client), Ok(()));
        let serving = usages(&["digital signature", "key encipherment", "server auth"]);
        let why = |r: Result<(), String>| r.expect_err("refused");
        assert_eq!(
            why(node.check_kubelet_client(&serving)),
            "usages did not match [client auth digital signature key encipherment]"
        );
        assert_eq!(why(node.check_kubelet_serving(&serving)), "DNS or IP subjectAltName is required");
        let named = Request { dns_names: vec!["a".into()], ..node.clone() };
        assert_eq!(named.check_kubelet_serving(&serving), Ok(()));
        assert_eq!(why(named.check_kubelet_client(&client)), "DNS subjectAltNames are not allowed");
        let other = Request { common_name: "jane".into(), ..node.clone() };
        assert_eq!(
            why(other.check_kubelet_client(&client)),
            "subject common name does not begin with system:node:"
        );
        let both = Request { organizations: vec!["system:nodes".into(), "x".into()], ..node };
        assert_eq!(why(both.check_kubelet_client(&client)), "subject organization is not system:nodes");
        assert_eq!(check_client_usages(&client), Ok(()));
        assert_eq!(why(check_client_usages(&serving)), "invalid usage for client certificate: server auth");
        assert_eq!(
            why(check_client_usages(&usages(&["digital signature"]))),
            "missing required usage for client certificate: client auth"
        );
    }
}

//! Successors that another server has made: servers with a copy each of an authority's key cannot agree on one.

use std::time::SystemTime;

use gantry_base::metrics::{Family, Gauge, Stability};

use super::authority::{self, Authority};

static FOREIGN: Gauge = Gauge::new(
    "gantry_foreign_authority_successors",
    "Number of certificate authorities of our names that other servers have told the cluster of and this one does not have.",
    Stability::Own,
);

pub(crate) static FAMILIES: &[&dyn Family] = &[&FOREIGN];

/// Those in `published` (PEM) that are called as `own` is, have not expired, and are not believed by it: their
/// name and the SHA-256 of the certificate.
pub(super) fn successors(own: &Authority, published: &str, now: SystemTime) -> Vec<String> {
    let (Ok(name), Ok(found)) = (own.common_name(), authority::all(published)) else { return Vec::new() };
    let trusted = own.trusted();
    let foreign = found.iter().filter(|certificate| {
        authority::is_valid(certificate, now)
            && !trusted.contains(certificate)
            && authority::common_name(certificate).is_ok_and(|found| found == name)
    });
    foreign
        .map(|certificate| {
            let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
            let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{name} (sha256:{digest})")
        })
        .collect()
}

/// So many are known of.
pub(super) fn note(found: usize) {
    FOREIGN.set(u32::try_from(found).unwrap_or(u32::MAX).into());
}

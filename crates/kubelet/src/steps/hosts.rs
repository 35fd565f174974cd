//! A pod's host name and its `/etc/hosts`.

use std::io;
use std::path::Path;

use gantry_api::core::{HostAlias, Pod};
use gantry_api::meta::MetaExt;

use crate::pod;

/// The longest host name that Linux takes.
const MAX_HOSTNAME: usize = 63;

/// The host name and the domain (may be empty) that a pod has.
pub fn name_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod::spec(pod);
    let filled = |s: &Option<String>| s.clone().filter(|s| !s.is_empty());
    if let Some(hostname) = filled(&spec.hostname_override) {
        return (truncated(&hostname), String::new());
    }
    let hostname = filled(&spec.hostname).unwrap_or_else(|| pod.name().to_owned());
    let domain = filled(&spec.subdomain).map(|sub| format!("{sub}.{}.svc.{cluster_domain}", pod.namespace()));
    (truncated(&hostname), domain.unwrap_or_default())
}

fn truncated(hostname: &str) -> String {
    let cut = hostname.get(..MAX_HOSTNAME).unwrap_or(hostname);
    if cut.len() < hostname.len() { cut.trim_end_matches(['-', '.']).to_owned() } else { hostname.to_owned() }
}

/// What `hostname` says inside the pod.
///
/// # Errors
/// `setHostnameAsFQDN` asks for a name that is too long.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = name_and_domain(pod, cluster_domain);
    if domain.is_empty() || pod::spec(pod).set_hostname_as_fqdn != Some(true) {
        return Ok(hostname);
    }
    let full = format!("{hostname}.{domain}");
    if full.len() > MAX_HOSTNAME {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({MAX_HOSTNAME} \
             characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

/// Writes the pod's hosts file.
///
/// # Errors
/// The file system's.
pub fn write(path: &Path, pod: &Pod, ips: &[String], cluster_domain: &str) -> io::Result<()> {
    let aliases = pod::spec(pod).host_aliases.as_deref().unwrap_or_default();
    let content = if pod::host_network(pod) {
        format!(
            "# Kubernetes-managed hosts file (host network).\n{}{}",
            read_node_hosts()?,
            alias_lines(aliases)
        )
    } else {
        managed(pod, ips, cluster_domain) + &alias_lines(aliases)
    };
    if std::fs::read(path).is_ok_and(|old| old == content.as_bytes()) {
        return Ok(());
    }
    // In place: the file is bind-mounted into running containers.
    std::fs::write(path, content)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
}

fn read_node_hosts() -> io::Result<String> {
    match std::fs::read_to_string("/etc/hosts") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn managed(pod: &Pod, ips: &[String], cluster_domain: &str) -> String {
    let (hostname, domain) = name_and_domain(pod, cluster_domain);
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    text
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::Object;

    #[test]
    fn a_hosts_file_names_the_pod_and_its_aliases() {
        let pod = Pod::decode(
            br#"{"metadata":{"name":"web-0","namespace":"n"},"spec":{"containers":[],"subdomain":"web",
            "hostAliases":[{"ip":"192.0.2.7","hostnames":["a","b"]}]}}"#,
        )
        .expect("a pod");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("hosts");
        write(&path, &pod, &["10.1.2.3".to_owned()], "cluster.local").expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        assert!(text.contains("10.1.2.3\tweb-0.web.n.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n192.0.2.7\ta\tb\n"), "{text}");
    }

    #[test]
    fn long_host_names_are_cut_where_a_name_may_end() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        assert_eq!(truncated(&long), "a".repeat(62));
        assert_eq!(truncated("short"), "short");
    }
}

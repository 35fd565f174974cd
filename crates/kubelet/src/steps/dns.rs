//! The resolver configuration of a pod.

use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_cri::v1::DnsConfig;

use crate::options::Options;
use crate::pod;

/// What the C library's resolver accepts.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The resolver configuration that the pod's DNS policy asks for.
///
/// # Errors
/// The node's own configuration cannot be read.
pub fn config(pod: &Pod, options: &Options) -> std::io::Result<DnsConfig> {
    let spec = pod::spec(pod);
    let policy = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "ClusterFirst" if pod::host_network(pod) => "Default",
        "ClusterFirstWithHostNet" => "ClusterFirst",
        other => other,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        "ClusterFirst" if !options.cluster_dns.is_empty() => {
            let host = host_config(options)?;
            let domain = &options.cluster_domain;
            let namespace = pod.namespace();
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(host.searches);
            DnsConfig {
                servers: options.cluster_dns.iter().map(ToString::to_string).collect(),
                searches: without_repetition(searches),
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => host_config(options)?,
    };
    if let Some(own) = &spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let value = option.value.as_deref().filter(|v| !v.is_empty());
            config.options.retain(|o| o.split(':').next() != Some(&name));
            config.options.push(value.map_or(name.clone(), |v| format!("{name}:{v}")));
        }
        config.servers = without_repetition(config.servers);
        config.searches = without_repetition(config.searches);
    }
    config.servers.truncate(MAX_SERVERS);
    limit_searches(&mut config.searches);
    Ok(config)
}

fn limit_searches(searches: &mut Vec<String>) {
    searches.truncate(MAX_SEARCHES);
    while searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARS + 1 {
        searches.pop();
    }
}

fn without_repetition(list: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

fn host_config(options: &Options) -> std::io::Result<DnsConfig> {
    match std::fs::read_to_string(&options.resolv_conf) {
        Ok(text) => Ok(parse_resolv_conf(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(DnsConfig::default()),
        Err(error) => Err(error),
    }
}

/// Reads resolv.conf(5).
pub(crate) fn parse_resolv_conf(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            // The last one counts.
            Some("search") => config.searches = words.map(|w| trim_dot(&w)).collect(),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}

fn trim_dot(domain: &str) -> String {
    if domain == "." { domain.to_owned() } else { domain.trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_resolver_reads_it() {
        let text =
            "# x\nsearch a.example\nnameserver 192.0.2.1\nsearch b.example. c\noptions ndots:2 edns0\n";
        let config = parse_resolv_conf(text);
        assert_eq!(config.servers, ["192.0.2.1"]);
        assert_eq!(config.searches, ["b.example", "c"]);
        assert_eq!(config.options, ["ndots:2", "edns0"]);
    }
}

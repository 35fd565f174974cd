//! The environment of a container: services, references, literals, and `$(VAR)` expansion.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_api::core::{ConfigMap, Container, EnvVarSource, Pod, Secret};
use gantry_api::meta::MetaExt;

use crate::engine::core::Core;
use crate::engine::services::ServiceView;
use crate::pod;
use crate::steps::field::{self, Surroundings};

/// The environment of `container`, by name.
///
/// # Errors
/// Something it refers to, and not as optional, does not exist.
pub async fn environment(
    core: &Core,
    pod: &Pod,
    container: &Container,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, String> {
    core.services.synced().await;
    let links = pod::spec(pod).enable_service_links.unwrap_or(true);
    let services = service_variables(&core.services.list(), pod.namespace(), links);
    let mut references =
        References { core, pod, around, config_maps: BTreeMap::new(), secrets: BTreeMap::new() };
    let mut own = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or("");
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional == Some(true);
            if let Some(map) = references.config_map(&reference.name, optional).await? {
                own.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
            }
        } else if let Some(reference) = &source.secret_ref {
            let optional = reference.optional == Some(true);
            if let Some(secret) = references.secret(&reference.name, optional).await? {
                let data = secret.data.iter().flatten();
                own.extend(
                    data.map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())),
                );
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let literal = variable.value.as_deref().filter(|v| !v.is_empty());
        let value = match (literal, &variable.value_from) {
            (Some(value), _) => {
                Some(expand(value, |name| own.get(name).or_else(|| services.get(name)).cloned()))
            }
            (None, Some(source)) => references.value(container, source).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            own.insert(variable.name.clone(), value);
        }
    }
    let mut all = services;
    all.extend(own);
    Ok(all)
}

struct References<'a> {
    core: &'a Core,
    pod: &'a Pod,
    around: &'a Surroundings,
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl References<'_> {
    async fn config_map(&mut self, name: &str, optional: bool) -> Result<Option<Arc<ConfigMap>>, String> {
        if let Some(map) = self.config_maps.get(name) {
            return Ok(Some(map.clone()));
        }
        match self.core.config_maps.fetch(self.pod.namespace(), name).await {
            Ok(map) => {
                self.config_maps.insert(name.to_owned(), map.clone());
                Ok(Some(map))
            }
            Err(error) if error.is_not_found() && optional => Ok(None),
            Err(error) if error.is_not_found() => Err(format!("configmap {name:?} not found")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn secret(&mut self, name: &str, optional: bool) -> Result<Option<Arc<Secret>>, String> {
        if let Some(secret) = self.secrets.get(name) {
            return Ok(Some(secret.clone()));
        }
        match self.core.secrets.fetch(self.pod.namespace(), name).await {
            Ok(secret) => {
                self.secrets.insert(name.to_owned(), secret.clone());
                Ok(Some(secret))
            }
            Err(error) if error.is_not_found() && optional => Ok(None),
            Err(error) if error.is_not_found() => Err(format!("secret {name:?} not found")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The value of one source; `None` if it is optional and missing.
    async fn value(
        &mut self,
        container: &Container,
        source: &EnvVarSource,
    ) -> Result<Option<String>, String> {
        let namespace = self.pod.namespace().to_owned();
        if let Some(reference) = &source.field_ref {
            return field::field(self.pod, &reference.field_path, self.around).map(Some);
        }
        if let Some(reference) = &source.resource_field_ref {
            return field::resource(self.pod, Some(container), reference, self.around).map(Some);
        }
        if let Some(reference) = &source.config_map_key_ref {
            let (name, key, optional) = (&reference.name, &reference.key, reference.optional == Some(true));
            let Some(map) = self.config_map(name, optional).await? else { return Ok(None) };
            let value = map.data.as_ref().and_then(|d| d.get(key)).cloned();
            if value.is_none() && !optional {
                return Err(format!("couldn't find key {key} in ConfigMap {namespace}/{name}"));
            }
            return Ok(value);
        }
        if let Some(reference) = &source.secret_key_ref {
            let (name, key, optional) = (&reference.name, &reference.key, reference.optional == Some(true));
            let Some(secret) = self.secret(name, optional).await? else { return Ok(None) };
            let value = secret.data.as_ref().and_then(|d| d.get(key));
            if value.is_none() && !optional {
                return Err(format!("couldn't find key {key} in Secret {namespace}/{name}"));
            }
            return Ok(value.map(|v| String::from_utf8_lossy(&v.0).into_owned()));
        }
        if let Some(reference) = &source.file_key_ref {
            let optional = reference.optional == Some(true);
            let root =
                crate::volumes::host_path(self.core, self.pod, &reference.volume_name).ok_or_else(|| {
                    format!("cannot find the volume {:?} referenced by FileKeyRef", reference.volume_name)
                })?;
            let file = crate::volumes::subpath::open_beneath(&root, &reference.path);
            let text =
                file.and_then(std::io::read_to_string).map_err(|_| "couldn't parse env file".to_owned());
            let value = text.ok().and_then(|t| parse_env_file(&t, &reference.key));
            if value.is_none() && !optional {
                let path = root.join(&reference.path);
                let key = &reference.key;
                return Err(format!(
                    "environment variable key {key:?} not found in file {:?}",
                    path.display().to_string()
                ));
            }
            return Ok(value);
        }
        Ok(Some(String::new()))
    }
}

/// `KEY='value'` lines of an environment file.
fn parse_env_file(text: &str, key: &str) -> Option<String> {
    text.lines().map(str::trim).filter(|l| !l.starts_with('#')).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let plain = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
        (name.trim() == key).then(|| plain.to_owned())
    })
}

/// The variables that tell a container where its namespace's services are (and always the API's own).
pub fn service_variables(
    services: &[Arc<ServiceView>],
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let master = |s: &&Arc<ServiceView>| &*s.key.namespace == "default" && &*s.key.name == "kubernetes";
    let linked = |s: &&Arc<ServiceView>| links && &*s.key.namespace == namespace;
    let own_name_wins = links && namespace != "default";
    let shadowed = own_name_wins
        && services
            .iter()
            .any(|s| &*s.key.namespace == namespace && &*s.key.name == "kubernetes" && s.has_ip());
    let chosen = services.iter().filter(|s| s.has_ip());
    for service in chosen.filter(|s| linked(s) || (master(s) && !shadowed)) {
        variables_of(service, &mut out);
    }
    out
}

fn variables_of(service: &ServiceView, out: &mut BTreeMap<String, String>) {
    let prefix = variable_name(&service.key.name);
    let ip = &*service.cluster_ip;
    let Some(first) = service.ports.first() else { return };
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    out.insert(format!("{prefix}_SERVICE_PORT"), first.number.to_string());
    let bracketed = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (index, port) in service.ports.iter().enumerate() {
        if !port.name.is_empty() {
            let name = format!("{prefix}_SERVICE_PORT_{}", variable_name(&port.name));
            out.insert(name, port.number.to_string());
        }
        let protocol = port.protocol.to_lowercase();
        let url = format!("{protocol}://{bracketed}:{}", port.number);
        if index == 0 {
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.number, port.protocol.to_uppercase());
        out.insert(port_prefix.clone(), url);
        out.insert(format!("{port_prefix}_PROTO"), protocol);
        out.insert(format!("{port_prefix}_PORT"), port.number.to_string());
        out.insert(format!("{port_prefix}_ADDR"), ip.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

/// Replaces `$(NAME)` by its value where there is one; `$$` is a literal `$`.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // A text may have many references that never end: behind the last parenthesis none is looked for.
    let last = text.len() - text.rfind(')').unwrap_or(0);
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let inner = after.strip_prefix('(').filter(|inner| inner.len() >= last);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = inner.and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_upstream_does() {
        let value = |name: &str| (name == "A").then(|| "x".to_owned());
        assert_eq!(expand("$(A)-$(B)-$$(A)-$A-$", value), "x-$(B)-$(A)-$A-$");
        assert_eq!(expand("$(A", value), "$(A");
        let open = "$(".repeat(1 << 20);
        assert!(expand(&open, value) == open, "in linear time");
        assert_eq!(expand("$$$(A)", value), "$x");
    }

    #[test]
    fn services_become_variables() {
        let service =
            ServiceView::for_test("n", "my-db", "10.0.0.5", &[("", "TCP", 5432), ("ui-x", "UDP", 80)]);
        let api = ServiceView::for_test("default", "kubernetes", "10.0.0.1", &[("https", "TCP", 443)]);
        let all = [Arc::new(service), Arc::new(api)];
        let variables = service_variables(&all, "n", true);
        let get = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(get("MY_DB_SERVICE_HOST"), Some("10.0.0.5"));
        assert_eq!(get("MY_DB_SERVICE_PORT"), Some("5432"));
        assert_eq!(get("MY_DB_SERVICE_PORT_UI_X"), Some("80"));
        assert_eq!(get("MY_DB_PORT"), Some("tcp://10.0.0.5:5432"));
        assert_eq!(get("MY_DB_PORT_80_UDP_ADDR"), Some("10.0.0.5"));
        assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
        let without = service_variables(&all, "n", false);
        assert!(!without.contains_key("MY_DB_SERVICE_HOST"));
        assert!(without.contains_key("KUBERNETES_SERVICE_HOST"));
    }
}

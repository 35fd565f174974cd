//! Which container of a pod is meant.

use gantry_api::ApiError;
use gantry_api::core::Pod;
use gantry_api::meta::MetaExt;
use gantry_api::status::Result;

/// The container of that name; without a name, the only one.
pub(super) fn choose(pod: &Pod, wanted: &str) -> Result<String> {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| &c.name);
    let ephemeral = spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(|c| &c.name);
    let names: Vec<&str> =
        init.chain(containers.iter().map(|c| &c.name)).chain(ephemeral).map(String::as_str).collect();
    if !wanted.is_empty() {
        return if names.contains(&wanted) {
            Ok(wanted.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {}", pod.name())))
        };
    }
    let ask = format!("a container name must be specified for pod {}", pod.name());
    match containers {
        [only] => Ok(only.name.clone()),
        [] => Err(ApiError::bad_request(ask)),
        _ => Err(ApiError::bad_request(format!("{ask}, choose one of: [{}]", names.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_api::core::{Container, PodSpec};

    fn pod(containers: &[&str], init: &[&str]) -> Pod {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| Container { name: (*name).into(), ..Container::default() })
                .collect::<Vec<_>>()
        };
        let spec =
            PodSpec { containers: list(containers), init_containers: Some(list(init)), ..PodSpec::default() };
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some("web".into());
        pod
    }

    #[test]
    fn one_is_the_default_and_several_are_a_choice() {
        assert_eq!(choose(&pod(&["a"], &["i"]), "").expect("the only one"), "a");
        assert_eq!(choose(&pod(&["a"], &["i"]), "i").expect("there is one"), "i");
        let text = |pod: &Pod, wanted| choose(pod, wanted).expect_err("a refusal").message().to_owned();
        let two = pod(&["a", "b"], &["i"]);
        assert_eq!(text(&two, ""), "a container name must be specified for pod web, choose one of: [i a b]");
        assert_eq!(text(&two, "x"), "container x is not valid for pod web");
    }
}

//! Image references in the long form that containerd and the kubelet use.

/// The long form of a reference: `busybox` is `docker.io/library/busybox:latest`.
///
/// A digest stays as it is; the tag is `latest` only where neither tag nor digest is given.
pub fn normalize(reference: &str) -> String {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    let (repository, tag) = match name.rsplit_once(':') {
        // The colon of a registry's port is followed by a path.
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
    let full = match repository.split_once('/') {
        Some((first, _)) if is_host(first) => repository.to_owned(),
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    };
    match (tag, digest) {
        (Some(tag), Some(digest)) => format!("{full}:{tag}@{digest}"),
        (None, Some(digest)) => format!("{full}@{digest}"),
        (Some(tag), None) => format!("{full}:{tag}"),
        (None, None) => format!("{full}:latest"),
    }
}

/// The repository of a reference in its long form, without tag and digest.
pub fn repository(normalized: &str) -> &str {
    let name = normalized.split_once('@').map_or(normalized, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_get_the_default_registry_and_tag() {
        let cases = [
            ("busybox", "docker.io/library/busybox:latest"),
            ("shop/web:1", "docker.io/shop/web:1"),
            ("gantry.test/busybox:1", "gantry.test/busybox:1"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("a@sha256:00", "docker.io/library/a@sha256:00"),
            ("registry.k8s.io/pause:3.10.2", "registry.k8s.io/pause:3.10.2"),
        ];
        for (short, long) in cases {
            assert_eq!(normalize(short), long);
        }
    }

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
        assert_eq!(repository("docker.io/library/a@sha256:00"), "docker.io/library/a");
    }
}

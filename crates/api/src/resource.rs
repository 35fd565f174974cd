//! Names of a resource: the REST collection of a kind.

use std::fmt;

/// A resource and its kind by all their names. The built-in ones are constants; custom ones own their strings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: std::borrow::Cow<'static, str>,
    /// API version within the group, for example `v1`.
    pub version: std::borrow::Cow<'static, str>,
    /// Kind, for example `ConfigMap`.
    pub kind: std::borrow::Cow<'static, str>,
    /// Plural resource name as it stands in the URL, for example `configmaps`.
    pub plural: std::borrow::Cow<'static, str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// A built-in resource.
    pub const fn fixed(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
    ) -> Self {
        use std::borrow::Cow::Borrowed;
        Self {
            group: Borrowed(group),
            version: Borrowed(version),
            kind: Borrowed(kind),
            plural: Borrowed(plural),
            namespaced,
        }
    }

    /// `v1`, `apps/v1`: the `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: as error messages name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// The URL path of the collection, in one namespace or (`None`) across all of them.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        path
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified())
    }
}

//! How many watch what: a write is the more work the more are told of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::route::RequestInfo;

/// Counts those who watch by HTTP.
#[derive(Default)]
pub(crate) struct Watchers {
    all: AtomicUsize,
    by_resource: Mutex<HashMap<String, HashMap<Scope, usize>>>,
}

/// What of a resource somebody watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Scope {
    namespace: String,
    name: String,
}

/// Somebody who watches, until it is dropped.
pub(crate) struct Watching {
    watchers: Arc<Watchers>,
    resource: String,
    scope: Scope,
}

impl Watchers {
    /// One more watches.
    pub(super) fn join(self: &Arc<Self>, info: &RequestInfo) -> Watching {
        let scope = Scope { namespace: info.namespace.clone(), name: info.name.clone() };
        let resource = resource(info);
        *self.by_resource.lock().entry(resource.clone()).or_default().entry(scope.clone()).or_default() += 1;
        self.all.fetch_add(1, Ordering::AcqRel);
        Watching { watchers: Arc::clone(self), resource, scope }
    }

    /// How many are told of what a request changes.
    pub(super) fn interested(&self, info: &RequestInfo) -> usize {
        if self.all.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let by_resource = self.by_resource.lock();
        let Some(scopes) = by_resource.get(&resource(info)) else { return 0 };
        let mut scope = Scope::default();
        let mut count = scopes.get(&scope).copied().unwrap_or(0);
        for (place, text) in [(0, &info.namespace), (1, &info.name)] {
            if !text.is_empty() {
                *(if place == 0 { &mut scope.namespace } else { &mut scope.name }) = text.clone();
                count += scopes.get(&scope).copied().unwrap_or(0);
            }
        }
        count
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.all.fetch_sub(1, Ordering::AcqRel);
        let mut by_resource = self.watchers.by_resource.lock();
        let Some(scopes) = by_resource.get_mut(&self.resource) else { return };
        if let Some(count) = scopes.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                scopes.remove(&self.scope);
            }
        }
        if scopes.is_empty() {
            by_resource.remove(&self.resource);
        }
    }
}

fn resource(info: &RequestInfo) -> String {
    format!("{}.{}", info.resource, info.group)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::query::Query;
    use crate::route::resolve;

    #[test]
    fn whoever_sees_a_change_counts() {
        let of = |method: &Method, path: &str, query: &str| resolve(method, path, &Query::parse(query));
        let watchers = Arc::<Watchers>::default();
        let all = watchers.join(&of(&Method::GET, "/api/v1/pods", "watch=1"));
        let here = watchers.join(&of(&Method::GET, "/api/v1/namespaces/a/pods", "watch=1"));
        let one = watchers.join(&of(
            &Method::GET,
            "/api/v1/namespaces/a/pods",
            "watch=1&fieldSelector=metadata.name%3Dp",
        ));
        let count = |path: &str| watchers.interested(&of(&Method::PUT, path, ""));
        assert_eq!(count("/api/v1/namespaces/a/pods/p"), 3);
        assert_eq!(count("/api/v1/namespaces/a/pods/q"), 2);
        assert_eq!(count("/api/v1/namespaces/b/pods/p"), 1);
        assert_eq!(count("/api/v1/namespaces/a/configmaps/p"), 0);
        drop((all, one));
        assert_eq!(count("/api/v1/namespaces/a/pods/p"), 1);
        drop(here);
        assert!(watchers.by_resource.lock().is_empty());
    }
}

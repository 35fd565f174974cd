//! The API server: pipeline, verbs, patch and apply, admission, watch cache, custom resources, discovery.

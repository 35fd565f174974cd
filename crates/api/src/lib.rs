//! Wire types of the Kubernetes API and pure helpers: selectors, quantities, conditions, merge metadata.

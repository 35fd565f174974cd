//! Hollow nodes, benchmarks, golden fixtures, fault simulation and end-to-end tests.

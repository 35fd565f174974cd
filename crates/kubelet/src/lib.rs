//! The node agent: pod workers, volumes, probes and steps over CRI.

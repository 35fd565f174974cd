//! The container runtime port: CRI v1 over gRPC, a supervised containerd, and a fake.

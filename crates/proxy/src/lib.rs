//! Services and network policy: compile, diff, apply to nftables.

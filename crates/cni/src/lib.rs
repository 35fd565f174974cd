//! The pod network: addresses, bridge, overlay.

//! SPDY/3.1 and WebSocket channel protocols for exec, attach and port-forward.

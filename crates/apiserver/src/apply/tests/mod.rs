//! Golden cases and laws of patching, apply and field validation.

mod managed;
mod passes;
mod patches;
mod server_side;
mod strategic;
mod strict;

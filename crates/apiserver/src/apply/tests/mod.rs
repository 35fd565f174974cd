//! Golden cases and laws of patching, apply and field validation.

mod patches;
mod strategic;

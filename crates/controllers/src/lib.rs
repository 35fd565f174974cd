//! The controllers and the engine that drives them.

//! Shared code compiled for NEON.

crate::cpu::entries::entries!("NEON", "neon");

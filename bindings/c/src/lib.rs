//! Eddy for C. `include/eddy.h`, which cbindgen writes from [`api`], describes it.

pub mod api;
mod handles;
mod image;
mod status;

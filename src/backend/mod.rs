//! Between the kernels and the mathematics: checked entry points, and memory that is planned once.
//!
//! A [`Lane`] is one thread's way to the kernels: the operations of one element type and the packing space they need.
//! Everything to the right of this module is written as calls to a lane (one thread's work) or to a
//! [`Team`] of lanes (work that is spread over all threads), and holds no unsafe code.

mod bag_index;
mod operands;
mod ops;
mod pages;
mod product;
mod team;
mod workspace;

pub use bag_index::BagIndex;
pub use operands::{Finish, Form, Mask, Product};
pub use ops::Lane;
pub(crate) use pages::collect_on_huge_pages;
pub use pages::prefer_huge_pages;
pub use team::Team;
pub(crate) use team::split_slice;
pub(crate) use workspace::{Carver, Lines, matrix, matrix_mut, take};

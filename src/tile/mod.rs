//! Tiles: how an image that is too large for one evaluation is cut, and how the results are joined again.

mod axis;
mod plan;
mod seam;

pub use axis::{Axis, Span};
pub use plan::{Locality, TilePlan};
pub use seam::{Band, Seam};

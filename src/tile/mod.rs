//! Tiles: divides images that are too large for one evaluation, and joins the results.

mod axis;
mod plan;
mod seam;

pub use axis::{Axis, Span};
pub use plan::{Locality, TilePlan};
pub use seam::{Band, Seam};

//! The paths on which samplers go through the levels, which decide what settings of a schedule
//! apply.

/// The path of a sampler through the levels.
///
/// On a training schedule, paths follow diffusers. On a range of sigma, all paths but [`Geometric`]
/// use Karras' sigmas and end at the clean image.
///
/// [`Geometric`]: Self::Geometric
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelPath {
    /// DDIM's path: each step goes down by the stride `train_steps / steps`, wherever the next
    /// visited timestep is. The two differ for `linspace`, and for `trailing` with a fractional
    /// stride.
    Strides,
    /// From each visited timestep to the next, for samplers whose noise comes from the schedule.
    Ancestral,
    /// From each visited timestep to the next, for other samplers.
    Markov,
    /// Sigmas in variance-exploding coordinates. Predictions are never clipped. Karras and
    /// exponential sigmas run between the first and the last sigma of the visited timesteps.
    Sigmas,
    /// [`Sigmas`](Self::Sigmas), with predictions clipped where the schedule asks for it.
    Corrected,
    /// [`Sigmas`](Self::Sigmas) in geometric progression.
    Geometric,
    /// DPM-Solver++'s path, in variance-preserving coordinates. Predictions are thresholded where
    /// the schedule asks for it, and never clipped to a range.
    Solver,
    /// [`Solver`](Self::Solver) for `unipc`: Karras and exponential sigmas end at their own last
    /// sigma.
    UniPc,
    /// [`UniPc`](Self::UniPc) for `deis`, which never reaches the clean image itself.
    Deis,
    /// [`Solver`](Self::Solver) for single-step solvers, which support only `linspace` spacing and
    /// no offset.
    Singlestep,
    /// [`Sigmas`](Self::Sigmas), for samplers that also evaluate between two sigmas. Karras
    /// timesteps are rounded.
    Halved,
    /// [`Strides`](Self::Strides) for `pndm`, which ends at timestep 0 by default. Predictions are
    /// not clipped.
    Pndm,
    /// The distilled timesteps of latent consistency models.
    Consistency,
    /// The distilled timesteps, each with the lower timestep from which noise is added. The last
    /// step ends at timestep 0. Predictions are neither clipped nor thresholded.
    Trajectory,
}

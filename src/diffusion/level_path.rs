//! The paths on which samplers go through the levels, which decide what settings of a schedule
//! apply.

/// The path of a sampler through the levels.
///
/// On a training schedule, paths follow diffusers. On a range of sigma, all paths but
/// [`GeometricSigmas`](Self::GeometricSigmas) use Karras' sigmas and end at the clean image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelPath {
    /// DDIM's path: each step goes down by the stride `train_steps / steps`, wherever the next
    /// visited timestep is. The two differ for `linspace`, and for `trailing` with a fractional
    /// stride.
    DdimStride,
    /// From each visited timestep to the next, for samplers whose noise comes from the schedule.
    Ancestral,
    /// From each visited timestep to the next, for other samplers.
    VisitedTimesteps,
    /// Sigmas in variance-exploding coordinates. Predictions are never clipped. Karras and
    /// exponential sigmas run between the first and the last sigma of the visited timesteps.
    VarianceExploding,
    /// [`VarianceExploding`](Self::VarianceExploding), with predictions clipped where the schedule
    /// asks for it.
    VarianceExplodingClipped,
    /// [`VarianceExploding`](Self::VarianceExploding), with sigmas in geometric progression.
    GeometricSigmas,
    /// DPM-Solver++'s path, in variance-preserving coordinates. Predictions are thresholded where
    /// the schedule asks for it, and never clipped to a range.
    DpmSolver,
    /// [`DpmSolver`](Self::DpmSolver) for `unipc`: Karras and exponential sigmas end at their own
    /// last sigma.
    UniPc,
    /// [`UniPc`](Self::UniPc) for `deis`, which never reaches the clean image itself.
    Deis,
    /// [`DpmSolver`](Self::DpmSolver) for single-step solvers, which support only `linspace`
    /// spacing and no offset.
    DpmSolverSinglestep,
    /// [`VarianceExploding`](Self::VarianceExploding), for samplers that also evaluate between two
    /// sigmas. Karras timesteps are rounded.
    VarianceExplodingMidpoint,
    /// [`DdimStride`](Self::DdimStride) for `pndm`, which ends at timestep 0 by default.
    /// Predictions are not clipped.
    Pndm,
    /// The timesteps at which a latent consistency model was distilled, for `lcm`.
    Lcm,
    /// The same timesteps for `tcd`, each with the lower timestep from which noise is added. The
    /// last step ends at timestep 0. Predictions are neither clipped nor thresholded.
    Tcd,
}

//! Change of exposure from one frame to the next.

/// Offset and gain of the line through points (level, change), by least squares without outliers;
/// `None` where all points have the same level.
pub(in crate::video) fn line(points: &mut [(f32, f32)]) -> Option<(f32, f32)> {
    let middle = points.len() / 2;
    // Starts from the median, so that a few patches with other content do not count.
    let offset = points.select_nth_unstable_by(middle, |a, b| a.1.total_cmp(&b.1)).1.1;
    let (mut offset, mut gain) = (offset, 0.0);
    for _ in 0..2 {
        let off = |(level, change): (f32, f32)| (change - offset - gain * level).abs();
        points.sort_unstable_by(|a, b| off(*a).total_cmp(&off(*b)));
        let near = &points[..points.len().div_ceil(2)];
        let count = near.len() as f32;
        let sum = |f: &dyn Fn(f32, f32) -> f32| {
            near.iter().map(|(level, change)| f(*level, *change)).sum::<f32>() / count
        };
        let (level, change) = (sum(&|level, _| level), sum(&|_, change| change));
        let spread = sum(&|l, _| (l - level) * (l - level));
        let slope = sum(&|l, c| (l - level) * (c - change));
        gain = if spread > 1e-3 { (slope / spread).clamp(-0.5, 0.5) } else { 0.0 };
        offset = change - gain * level;
    }
    (offset.is_finite() && gain.is_finite()).then_some((offset, gain))
}

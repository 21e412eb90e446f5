//! Filters of maps that have one value for each block of pixels.

/// Mean over squares of side `side`, an odd number, within the frame.
pub(in crate::video) fn mean(
    values: &[f32],
    [width, height]: [usize; 2],
    side: usize,
    work: &mut [f32],
    out: &mut [f32],
) {
    let reach = side / 2;
    for (from, to) in values.chunks_exact(width).zip(work.chunks_exact_mut(width)) {
        for (x, to) in to.iter_mut().enumerate() {
            let columns = x.saturating_sub(reach)..(x + reach + 1).min(width);
            *to = from[columns.clone()].iter().sum::<f32>() / columns.len() as f32;
        }
    }
    for (y, to) in out.chunks_exact_mut(width).enumerate() {
        let rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
        let scale = 1.0 / rows.len() as f32;
        to.fill(0.0);
        for row in rows {
            to.iter_mut()
                .zip(&work[row * width..][..width])
                .for_each(|(to, from)| *to += from * scale);
        }
    }
}

/// Maximum over squares of side `side`, an odd number.
pub(in crate::video) fn largest(
    values: &mut [f32],
    [width, height]: [usize; 2],
    side: usize,
    work: &mut [f32],
) {
    let reach = side / 2;
    for (from, to) in values.chunks_exact(width).zip(work.chunks_exact_mut(width)) {
        for (x, to) in to.iter_mut().enumerate() {
            let columns = x.saturating_sub(reach)..(x + reach + 1).min(width);
            *to = from[columns].iter().fold(0.0, |most, value| value.max(most));
        }
    }
    for (y, to) in values.chunks_exact_mut(width).enumerate() {
        to.fill(0.0);
        for row in y.saturating_sub(reach)..(y + reach + 1).min(height) {
            to.iter_mut()
                .zip(&work[row * width..][..width])
                .for_each(|(to, from)| *to = to.max(*from));
        }
    }
}

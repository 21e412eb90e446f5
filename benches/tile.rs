//! Cutting a large image into tiles, and joining them.

// The macros of criterion make a public function without documentation.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use eddy::tile::{Locality, Seam, TilePlan};
use std::hint::black_box;

const LOCAL: Locality = Locality { multiple_of: 8, grid: 8, receptive_field: Some(63), size: None };
const PLANES: usize = 3;

fn plan(criterion: &mut Criterion) {
    criterion.bench_function("tile/plan_6000x4000_by_512", |bencher| {
        bencher.iter(|| TilePlan::cut(black_box(6000), 4000, 512, None, LOCAL));
    });
}

fn seam(criterion: &mut Criterion) {
    for (name, overlap) in [("hard", None), ("mixed", Some(192))] {
        let Ok(tiles) = TilePlan::cut(3000, 1000, 512, overlap, LOCAL) else { continue };
        let (width, height) = tiles.tile_size();
        let output = vec![0.5; PLANES * width * height];
        let mut seam = Seam::new(&tiles, PLANES);
        criterion.bench_function(&format!("tile/seam_add_{name}_512"), |bencher| {
            bencher.iter(|| seam.add(&tiles, 0, 1, black_box(&output)));
        });
        // All tiles of an image of 3000x1000, as the executor goes over them.
        criterion.bench_function(&format!("tile/seam_picture_{name}_3000x1000"), |bencher| {
            bencher.iter(|| {
                seam.restart();
                for row in 0..tiles.vertical.spans.len() {
                    for column in 0..tiles.horizontal.spans.len() {
                        seam.add(&tiles, row, column, black_box(&output));
                    }
                    let rows = seam.complete(&tiles, row);
                    black_box(seam.band().row(0, rows.start, 3000));
                    seam.advance(rows.end);
                }
            });
        });
    }
}

criterion_group!(benches, plan, seam);
criterion_main!(benches);

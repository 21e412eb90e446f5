//! Lanes with networks that are slow, fail or panic.

use std::ops::ControlFlow;
use std::time::Duration;

use super::{LaneFrame, LaneWork, Lanes, Outcome};
use crate::diffusion::denoise_plan;
use crate::error::{Error, Result};
use crate::model::Layout;
use crate::network::{Inputs, Network, Shape};
use crate::task::Recipe;
use crate::tile::TilePlan;
use crate::video::noise::Noise;
use crate::video::planes::Planes;

/// What a network does with a frame of this value.
#[derive(Clone, Copy, PartialEq)]
enum Behavior {
    Fails(f32),
    Panics(f32),
    GivesNan(f32),
}

/// Its output is its sample plus one; with a pause.
struct Plus {
    x: Vec<f32>,
    pause: Duration,
    behavior: Option<Behavior>,
}

impl Network for Plus {
    fn bind(&mut self, shape: Shape) -> Result<()> {
        self.x.resize(shape.iter().product(), 0.0);
        Ok(())
    }

    fn inputs(&mut self) -> Inputs<'_> {
        Inputs { sample: &mut self.x, sigma: None, condition: None, class: None }
    }

    fn evaluate(&mut self, _: f64) -> Result<&[f32]> {
        std::thread::sleep(self.pause);
        let value = self.x[0];
        match self.behavior {
            Some(Behavior::Fails(at)) if at == value => return Err(Error::evaluation("failed")),
            Some(Behavior::Panics(at)) if at == value => panic!("an intended panic"),
            Some(Behavior::GivesNan(at)) if at == value => self.x.fill(f32::NAN),
            _ => self.x.iter_mut().for_each(|x| *x += 1.0),
        }
        Ok(&self.x)
    }
}

const SIDE: usize = 4;

fn lanes(pauses: &[u64], behavior: Option<Behavior>) -> Lanes {
    let network = |&pause: &u64| {
        let pause = Duration::from_millis(pause);
        Box::new(Plus { x: Vec::new(), pause, behavior }) as Box<dyn Network + Send>
    };
    let work = LaneWork {
        recipe: Recipe::new(denoise_plan(1, 0.0).unwrap(), 0),
        tiles: TilePlan::whole(SIDE, SIDE, 1),
        layout: Layout::Full,
        planes: Planes::full(1, SIDE, SIDE),
    };
    Lanes::new(pauses.iter().map(network).collect(), work).unwrap()
}

fn frame(value: usize) -> LaneFrame {
    let planes = Planes::full(1, SIDE, SIDE);
    let mut frame = LaneFrame::new(Layout::Full, &planes, Noise::none(&planes, true));
    frame.x.fill(value as f32);
    frame
}

fn next(lanes: &mut Lanes) -> (f32, Outcome) {
    let (frame, outcome) = lanes.next(&mut || ControlFlow::Continue(())).unwrap();
    assert_eq!(frame.x.len(), SIDE * SIDE);
    (frame.x[0], outcome)
}

#[test]
fn frames_return_in_order_whichever_lane_is_slow() {
    for pauses in [[0, 20], [20, 0]] {
        let mut lanes = lanes(&pauses, None);
        (0..4).for_each(|value| lanes.denoise(frame(value)));
        for value in 0..20 {
            let (found, outcome) = next(&mut lanes);
            assert_eq!(found, value as f32 + 1.0);
            assert!(outcome.unwrap().is_some());
            lanes.denoise(frame(value + 4));
        }
    }
}

#[test]
fn a_frame_that_fails_is_the_only_one() {
    let cases = [
        (Behavior::Fails(2.0), "failed"),
        (Behavior::Panics(2.0), "panicked"),
        (Behavior::GivesNan(2.0), "non-finite"),
    ];
    for (behavior, expected) in cases {
        let mut lanes = lanes(&[0, 1], Some(behavior));
        (0..6).for_each(|value| lanes.denoise(frame(value)));
        for value in 0..6 {
            let (found, outcome) = next(&mut lanes);
            if value == 2 {
                let text = outcome.unwrap_err().to_string();
                assert!(text.contains(expected), "{text}");
            } else {
                assert_eq!(found, value as f32 + 1.0);
                outcome.unwrap();
            }
        }
        assert!(lanes.pending.is_empty());
    }
}

#[test]
fn frames_that_need_no_evaluation_keep_their_place() {
    let mut lanes = lanes(&[5, 5], None);
    lanes.denoise(frame(0));
    lanes.keep(frame(10), Ok(()));
    lanes.keep(frame(20), Err(Error::usage("invalid")));
    lanes.denoise(frame(30));
    let found: Vec<_> = (0..4).map(|_| next(&mut lanes)).collect();
    assert_eq!(found.iter().map(|(x, _)| *x).collect::<Vec<_>>(), [1.0, 10.0, 20.0, 31.0]);
    assert!(matches!(&found[1].1, Ok(None)) && matches!(&found[2].1, Err(Error::Usage { .. })));
}

#[test]
fn a_stop_ends_the_lanes() {
    let mut lanes = lanes(&[30, 30], None);
    (0..100).for_each(|value| lanes.denoise(frame(value)));
    let started = std::time::Instant::now();
    let stopped = lanes.next(&mut || ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Interrupted)));
    drop(lanes);
    // Not the three seconds of all frames.
    assert!(started.elapsed() < Duration::from_secs(1));
}

//! What the run and those who look at it share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::frame::picture::{self, Options};
use crate::frame::stream::{Picture, Video};
use crate::frame::{Frame, Metadata, Samples};
use crate::tensor::{Pictures, Range};
use crate::video::{Histogram, Running, Tally, Treatment, Wishes, record};

/// Figures are brought up to date so often.
const FRESH: Duration = Duration::from_millis(250);

/// The time over which the rate is told.
const RATE: Duration = Duration::from_secs(2);

/// Wider pictures are shown smaller.
const WIDEST: usize = 1280;

/// How good the pictures that are shown are.
const JPEG_QUALITY: u8 = 85;

/// How long whoever wants a picture waits for one.
const PATIENCE: Duration = Duration::from_secs(2);

/// The figures of a run.
#[derive(Clone)]
pub(super) struct Figures {
    pub(super) tally: Tally,
    pub(super) rate: f64,
    pub(super) treatment: Treatment,
    pub(super) latency: Histogram,
}

/// A picture before and after.
pub(super) struct Pair {
    pub(super) index: u64,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// What the run and those who look at it share.
pub(super) struct Board {
    before: Video,
    after: Video,
    figures: Mutex<Option<Figures>>,
    /// Whether somebody waits for a picture.
    wanted: AtomicBool,
    pair: Mutex<Option<Arc<Pair>>>,
    shown: Condvar,
    wishes: Mutex<Option<Wishes>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever a thread that panicked left is still figures, pictures and wishes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub(super) fn new(before: Video, after: Video) -> Self {
        Self {
            before,
            after,
            figures: Mutex::default(),
            wanted: AtomicBool::new(false),
            pair: Mutex::default(),
            shown: Condvar::new(),
            wishes: Mutex::default(),
        }
    }

    /// From the run: a picture, which is kept if somebody waits for one.
    pub(super) fn show(&self, before: &Picture, after: &Picture) {
        if self.wanted.swap(false, Ordering::Relaxed) {
            let pair = Pair { index: after.index, before: before.bytes.clone(), after: after.bytes.clone() };
            *lock(&self.pair) = Some(Arc::new(pair));
            self.shown.notify_all();
        }
    }

    /// From the run: what is wished for since it last asked.
    pub(super) fn take_wishes(&self) -> Option<Wishes> {
        lock(&self.wishes).take()
    }

    /// From whoever looks: what is wished for, beside what was and is not done yet.
    pub(super) fn wish(&self, more: Wishes) {
        let mut wishes = lock(&self.wishes);
        let Wishes { sigma, steps, temporal } = wishes.take().unwrap_or_default();
        *wishes = Some(Wishes {
            sigma: more.sigma.or(sigma),
            steps: more.steps.or(steps),
            temporal: more.temporal.or(temporal),
        });
    }

    pub(super) fn figures(&self) -> Option<Figures> {
        lock(&self.figures).clone()
    }

    /// The next picture after that of number `seen`; none when none comes for long.
    pub(super) fn next(&self, seen: Option<u64>) -> Option<Arc<Pair>> {
        let mut pair = lock(&self.pair);
        let began = Instant::now();
        loop {
            // What is there may be old: it is what somebody else, or nobody, wanted.
            self.wanted.store(true, Ordering::Relaxed);
            let left = PATIENCE.saturating_sub(began.elapsed());
            if left.is_zero() {
                return None;
            }
            pair = self.shown.wait_timeout(pair, left).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(new) = pair.as_ref().filter(|pair| Some(pair.index) != seen) {
                return Some(Arc::clone(new));
            }
        }
    }

    /// Two JPEGs, the first behind its length in four bytes, the most significant first.
    pub(super) fn encode(&self, pair: &Pair) -> Result<Vec<u8>> {
        let before = jpeg(&self.before, &pair.before)?;
        let after = jpeg(&self.after, &pair.after)?;
        let length = u32::try_from(before.len()).unwrap_or(u32::MAX).to_be_bytes();
        Ok([length.as_slice(), &before, &after].concat())
    }
}

/// Brings a board's figures up to date.
pub(super) struct Pen {
    written: Instant,
    recent: record::Recent,
}

impl Pen {
    pub(super) fn new() -> Self {
        Self { written: Instant::now(), recent: record::Recent::over(RATE) }
    }

    pub(super) fn write(&mut self, board: &Board, running: &Running<'_>) {
        let mut figures = lock(&board.figures);
        if figures.is_some() && self.written.elapsed() < FRESH {
            return;
        }
        self.written = Instant::now();
        let tally = running.tally();
        let (rate, _) = self.recent.rate(&tally);
        *figures = Some(Figures { tally, rate, treatment: running.treatment().clone(), latency: running.latency() });
    }
}

/// A picture of a stream as a JPEG, made smaller where it is wide.
fn jpeg(video: &Video, bytes: &[u8]) -> Result<Vec<u8>> {
    let range = Range::new(0.0, 255.0)?;
    let area = video.width * video.height;
    let mut planes = vec![0.0; 3 * area];
    Pictures::new(video, 3, range)?.read(bytes, &mut planes);
    let step = video.width.div_ceil(WIDEST).max(1);
    let (width, height) = ((video.width / step).max(1), (video.height / step).max(1));
    let mut samples = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for plane in planes.chunks_exact(area) {
                let mut sum = 0.0;
                for row in plane[y * step * video.width..].chunks(video.width).take(step) {
                    sum += row[x * step..].iter().take(step).sum::<f32>();
                }
                // A cast holds to 0 and 255.
                samples.push((sum / (step * step) as f32).round() as u8);
            }
        }
    }
    let frame = Frame { width, height, channels: 3, samples: Samples::U8(samples), metadata: Metadata::default() };
    picture::encoded(&frame, picture::Format::Jpeg, &Options { jpeg_quality: JPEG_QUALITY })
}

#[cfg(test)]
mod tests {
    use super::{Board, jpeg};
    use crate::frame::picture::{Limits, decode};
    use crate::frame::stream::{Picture, Rate, Video};
    use crate::frame::{Frame, Samples};
    use crate::video::Wishes;
    use std::sync::Arc;
    use std::time::Duration;

    fn read(jpeg: &[u8]) -> Frame {
        decode("a.jpg".as_ref(), std::io::Cursor::new(jpeg), &Limits::default()).unwrap()
    }

    #[test]
    fn a_picture_is_shown_as_it_is_or_smaller() {
        for (width, height, shown) in [(64, 48, (64, 48)), (1300, 20, (650, 10)), (1, 1, (1, 1))] {
            let video = Video::new(width, height, Rate::of(25), "rgb24".parse().unwrap());
            let frame = read(&jpeg(&video, &[200, 100, 50].repeat(width * height)).unwrap());
            assert_eq!((frame.width, frame.height), shown);
            let Samples::U8(samples) = frame.samples else { panic!("a JPEG has 8 bits") };
            assert!(samples.iter().zip([200_u8, 100, 50].iter().cycle()).all(|(a, b)| a.abs_diff(*b) <= 4));
        }
    }

    #[test]
    fn pictures_are_kept_for_whoever_waits_and_for_nobody_else() {
        let video = Video::new(2, 2, Rate::of(25), "gray".parse().unwrap());
        let board = Arc::new(Board::new(video.clone(), video));
        let picture = |index| Picture { bytes: vec![index as u8; 4], index, ..Picture::default() };
        board.show(&picture(0), &picture(0));
        assert!(super::lock(&board.pair).is_none());
        let waiting = std::thread::spawn({
            let board = Arc::clone(&board);
            move || board.next(None).map(|pair| (pair.index, board.encode(&pair).unwrap()))
        });
        let mut index = 1;
        while !waiting.is_finished() {
            board.show(&picture(index), &picture(index));
            index += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        let (seen, bytes) = waiting.join().unwrap().unwrap();
        assert!(seen > 0);
        let length = u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize;
        assert_eq!((read(&bytes[4..4 + length]).width, read(&bytes[4 + length..]).width), (2, 2));
    }

    #[test]
    fn wishes_add_up() {
        let video = Video::new(2, 2, Rate::of(25), "gray".parse().unwrap());
        let board = Board::new(video.clone(), video);
        board.wish(Wishes { steps: Some(2), ..Wishes::default() });
        board.wish(Wishes { steps: Some(3), temporal: Some(true), ..Wishes::default() });
        board.wish(Wishes { temporal: Some(false), ..Wishes::default() });
        assert_eq!(board.take_wishes(), Some(Wishes { sigma: None, steps: Some(3), temporal: Some(false) }));
        assert_eq!(board.take_wishes(), None);
    }
}

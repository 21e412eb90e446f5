//! Queues of frames between threads.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bounded queue between two threads.
pub(in crate::video) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Condvar,
    room: usize,
}

struct Inner<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// The result of waiting for an item.
pub(in crate::video) enum Popped<T> {
    Item(T),
    /// No item yet.
    Waiting,
    /// The queue is closed and empty.
    Closed,
}

impl<T> Queue<T> {
    pub(in crate::video) fn new(room: usize) -> Self {
        let inner = Inner { items: VecDeque::with_capacity(room), closed: false };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), room }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // The queue stays valid when a thread panics with the lock held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        inner: MutexGuard<'a, Inner<T>>,
        patience: Duration,
    ) -> MutexGuard<'a, Inner<T>> {
        self.changed.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for space, at most for `patience`. Returns the item when there is none, or when the
    /// queue is closed.
    pub(in crate::video) fn push(&self, item: T, patience: Duration) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.items.len() >= self.room && !inner.closed {
            inner = self.wait(inner, patience);
        }
        if inner.closed || inner.items.len() >= self.room {
            return Err(item);
        }
        inner.items.push_back(item);
        self.changed.notify_all();
        Ok(())
    }

    /// Pushes an item, and drops and returns the oldest when the queue is full. A closed queue
    /// returns the item itself.
    pub(in crate::video) fn replace(&self, item: T) -> Option<T> {
        let mut inner = self.lock();
        if inner.closed {
            return Some(item);
        }
        let dropped = if inner.items.len() >= self.room { inner.items.pop_front() } else { None };
        inner.items.push_back(item);
        self.changed.notify_all();
        dropped
    }

    /// Waits for an item, at most for `patience`. A closed queue still returns the items that it
    /// holds.
    pub(in crate::video) fn pop(&self, patience: Duration) -> Popped<T> {
        let mut inner = self.lock();
        if inner.items.is_empty() && !inner.closed {
            inner = self.wait(inner, patience);
        }
        match inner.items.pop_front() {
            Some(item) => {
                self.changed.notify_all();
                Popped::Item(item)
            }
            None if inner.closed => Popped::Closed,
            None => Popped::Waiting,
        }
    }

    /// Closes the queue for new items.
    pub(in crate::video) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(in crate::video) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

#[cfg(test)]
mod tests {
    use super::{Popped, Queue};
    use std::time::Duration;

    const SHORT: Duration = Duration::from_millis(1);

    fn popped(queue: &Queue<u32>) -> Option<u32> {
        match queue.pop(SHORT) {
            Popped::Item(item) => Some(item),
            Popped::Waiting | Popped::Closed => None,
        }
    }

    #[test]
    fn waits_or_drops_the_oldest_when_full() {
        let queue = Queue::new(2);
        assert!(queue.push(1, SHORT).is_ok() && queue.push(2, SHORT).is_ok());
        assert_eq!(queue.push(3, SHORT), Err(3));
        assert_eq!(queue.replace(3), Some(1));
        assert_eq!([popped(&queue), popped(&queue), popped(&queue)], [Some(2), Some(3), None]);
    }

    #[test]
    fn returns_remaining_items_and_rejects_new_ones_when_closed() {
        let queue = Queue::new(2);
        assert_eq!(queue.replace(1), None);
        queue.close();
        assert_eq!((queue.push(2, SHORT), queue.replace(3)), (Err(2), Some(3)));
        assert_eq!(popped(&queue), Some(1));
        assert!(matches!(queue.pop(SHORT), Popped::Closed));
    }

    #[test]
    fn waits_for_space() {
        let queue = Queue::new(1);
        assert!(queue.push(0, SHORT).is_ok());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (1..100).for_each(|i| assert!(queue.push(i, Duration::from_secs(60)).is_ok()))
            });
            (0..100).for_each(|i| {
                assert!(matches!(queue.pop(Duration::from_secs(60)), Popped::Item(got) if got == i))
            });
        });
    }
}

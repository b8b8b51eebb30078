//! Memory that the next call on the same thread uses again: to ask for it, a list at a time, would be most of what a call costs that
//! is tried again once.

use std::cell::Cell;

/// Lists that are longer are not kept.
const MOST: usize = 128;

/// An empty list with room. Lives in a thread-local.
pub struct Spare<T>(Cell<Vec<T>>);

impl<T> Spare<T> {
    /// Nothing is kept yet.
    pub const fn none() -> Self {
        Spare(Cell::new(Vec::new()))
    }

    /// An empty list, with room for so many where none was kept.
    #[inline]
    pub fn take(&self, room: usize) -> Vec<T> {
        let mut list = self.0.take();
        if list.capacity() == 0 {
            list.reserve(room);
        }
        list
    }

    /// Takes a list back, without what is in it.
    #[inline]
    pub fn keep(&self, mut list: Vec<T>) {
        // Before it is kept: letting a value go may run code that makes a call.
        list.clear();
        if (1..=MOST).contains(&list.capacity()) {
            self.0.set(list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_used_again_and_is_empty() {
        let spare = Spare::none();
        let mut list = spare.take(4);
        let at = list.as_ptr();
        list.extend([1, 2, 3]);
        spare.keep(list);
        let again: Vec<i32> = spare.take(4);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        // It is taken: the next one has its own.
        let other = spare.take(4);
        assert_ne!(other.as_ptr(), at);
    }

    #[test]
    fn what_is_no_use_is_not_kept() {
        let spare = Spare::none();
        spare.keep(vec![0; MOST + 1]);
        assert!(spare.take(3).capacity() < MOST);
        spare.keep(vec![0; 9]);
        spare.keep(Vec::new());
        assert_eq!(spare.take(3).capacity(), 9);
    }
}

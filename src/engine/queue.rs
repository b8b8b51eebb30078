//! A queue that holds one value most of the time.

use std::collections::VecDeque;

/// First in, first out. The first value lies in place, so that a queue of one asks for no memory. Values are copied: one that was moved
/// to where the rare ones wait would lie in memory on its way to the first place as well.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Empty only if the queue is.
    first: Option<T>,
    rest: VecDeque<T>,
}

impl<T: Copy> Queue<T> {
    pub fn new() -> Self {
        Queue { first: None, rest: VecDeque::new() }
    }

    #[inline]
    pub fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.push_behind(value);
        }
    }

    #[cold]
    fn push_behind(&mut self, value: T) {
        self.rest.push_back(value);
    }

    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let first = self.first.take();
        if !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        first
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub fn clear(&mut self) {
        self.first = None;
        self.rest.clear();
    }

    /// Lets go what is not to be kept.
    pub fn retain(&mut self, mut keeps: impl FnMut(&T) -> bool) {
        self.first = self.first.take().filter(&mut keeps);
        self.rest.retain(keeps);
        if self.first.is_none() {
            self.first = self.rest.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Deed {
        Push(u8),
        Pop,
        Retain(u8),
        Clear,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            6 => any::<u8>().prop_map(Deed::Push),
            4 => Just(Deed::Pop),
            2 => (2..5_u8).prop_map(Deed::Retain),
            1 => Just(Deed::Clear),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue(deeds in prop::collection::vec(deed(), 0..60)) {
            let (mut queue, mut model) = (Queue::new(), VecDeque::new());
            for deed in deeds {
                match deed {
                    Deed::Push(value) => {
                        queue.push(value);
                        model.push_back(value);
                    }
                    Deed::Pop => prop_assert_eq!(queue.pop(), model.pop_front()),
                    Deed::Retain(part) => {
                        queue.retain(|value| value % part != 0);
                        model.retain(|value| value % part != 0);
                    }
                    Deed::Clear => {
                        queue.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}

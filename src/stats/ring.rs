//! A ring that keeps the newest `capacity` values. Memory grows with what is really kept, up to the capacity.

/// The newest values, oldest first.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    slots: Vec<T>,
    /// Where the oldest value lies; stays 0 until the ring is full.
    oldest: usize,
    capacity: usize,
}

impl<T> Ring<T> {
    /// An empty ring. A capacity of 0 is taken as 1: a ring always keeps the newest value.
    pub fn new(capacity: usize) -> Self {
        Ring { slots: Vec::new(), oldest: 0, capacity: capacity.max(1) }
    }

    /// Takes in what is made there, part by part where it will lie; the value that has to leave for it, if any, is shown first.
    #[inline(always)] // writing a value is all it does, most of the time
    pub fn push(&mut self, made: impl FnOnce() -> T, leaves: impl FnOnce(Option<&T>)) {
        if self.slots.len() < self.capacity {
            leaves(None);
            return self.grow(made());
        }
        let slot = &mut self.slots[self.oldest];
        leaves(Some(slot));
        *slot = made();
        self.oldest = if self.oldest + 1 == self.capacity { 0 } else { self.oldest + 1 };
    }

    #[cold]
    fn grow(&mut self, value: T) {
        let len = self.slots.len();
        if len == self.slots.capacity() {
            // Doubling, but never past the capacity: a full ring wastes nothing.
            self.slots.reserve_exact((len * 2).max(16).min(self.capacity) - len);
        }
        self.slots.push(value);
    }

    /// How many values are kept now.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many values are kept at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let (newer, older) = self.slots.split_at(self.oldest);
        older.iter().chain(newer)
    }
}

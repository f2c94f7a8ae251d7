//! Small dense numbers for things that come and go, each with a generation.

/// Values by index and generation. An index is used again, a pair of both never: the generation
/// counts all insertions (and wraps after four billion, when an id that old is long forgotten).
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    generation: u32,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
        }
    }

    pub(super) fn insert(&mut self, value: T) -> (u32, u32) {
        self.generation = self.generation.wrapping_add(1);
        let filled = (self.generation, Some(value));
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            *slot = filled;
            return (index, self.generation);
        }
        self.slots.push(filled);
        ((self.slots.len() - 1) as u32, self.generation)
    }

    pub(super) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        match self.slots.get(index as usize) {
            Some((known, value)) if *known == generation => value.as_ref(),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let removed = match self.slots.get_mut(index as usize) {
            Some((known, value)) if *known == generation => value.take()?,
            _ => return None,
        };
        self.free.push(index);
        if self.free.len() == self.slots.len() {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        Some(removed)
    }
}

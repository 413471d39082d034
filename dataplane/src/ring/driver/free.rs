//! The heads that are free, the longest free first: a queue that never grows.

/// See the module.
pub(super) struct FreeList {
    /// As many places as there are heads, or more: a power of two.
    places: Box<[u16]>,
    /// Heads taken and given back so far; as positions of the ring are, of four bytes and running free.
    taken: u32,
    given: u32,
}

impl FreeList {
    /// The heads from 0 to `count`, in order.
    pub(super) fn new(count: u16) -> FreeList {
        let len = usize::from(count).next_power_of_two();
        let places = (0..len).map(|place| place as u16).collect();
        FreeList { places, taken: 0, given: count.into() }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.given.wrapping_sub(self.taken) as usize
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u16> {
        let head = self.front()?;
        self.taken = self.taken.wrapping_add(1);
        Some(head)
    }

    #[inline]
    pub(super) fn front(&self) -> Option<u16> {
        (self.taken != self.given).then(|| self.at(self.taken))
    }

    /// Gives back a head that was taken.
    #[inline]
    pub(super) fn push(&mut self, head: u16) {
        let place = self.given as usize & (self.places.len() - 1);
        self.places[place] = head;
        self.given = self.given.wrapping_add(1);
    }

    /// The first `count`, as far as there are as many.
    #[inline]
    pub(super) fn peek(&self, count: usize) -> impl Iterator<Item = u16> {
        let count = count.min(self.len()) as u32;
        (0..count).map(|ahead| self.at(self.taken.wrapping_add(ahead)))
    }

    #[inline]
    fn at(&self, position: u32) -> u16 {
        self.places[position as usize & (self.places.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_in_the_order_in_which_they_were_given_back() {
        let mut free = FreeList::new(3);
        assert_eq!((free.len(), free.peek(9).collect::<Vec<_>>()), (3, vec![0, 1, 2]));
        assert_eq!((free.pop(), free.pop(), free.pop(), free.pop()), (Some(0), Some(1), Some(2), None));
        for head in [2, 0, 1] {
            free.push(head);
        }
        assert_eq!((free.front(), free.peek(2).collect::<Vec<_>>()), (Some(2), vec![2, 0]));
        for round in 0..10u16 {
            let head = free.pop().unwrap();
            free.push(head);
            assert_eq!((free.len(), head), (3, [2, 0, 1][usize::from(round % 3)]));
        }
    }
}

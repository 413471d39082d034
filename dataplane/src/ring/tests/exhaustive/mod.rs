//! Small models, all of them: every guest of a small world, walked by us and by a reference that knows nothing of how we do
//! it, must come to the same end, with the same bytes in every place of its memory.
//!
//! A [`Guest`] is what it says in its descriptors, [`Slate`] its memory with one ring in it, and [`reference`] what is to
//! become of them. What a chain cannot reach, or only behind a buffer that is outside memory, is left as it is; all else that
//! the alphabets can spell is tried. A [`Slate`] checks besides that a walk ends within as many descriptors as the ring has.

mod packed;
mod reference;
mod slate;
mod split;

use super::{INDIRECT, NEXT, WRITE};
use slate::Slate;

/// Where the guest's memory begins and ends in its own addresses: one region.
const START: u64 = 0x4000;
const END: u64 = START + 0x500;
/// Entries of a ring, at most.
const SIZE_MAX: u16 = 4;
/// Where descriptors' buffers are: a place for each descriptor of the ring, and for each entry of a table.
const PLACES: u64 = START + 0x300;
const PLACE_LEN: u64 = 0x40;
/// Entries of a table, at most: as many as a ring may have, one more, and the place of [`LOST`].
const TABLE_MAX: usize = 4;
/// Where tables are, and how far apart.
const TABLES: u64 = START + 0x80;
const TABLE_LEN: u64 = 16 * TABLE_MAX as u64;
/// Frames that are sent to a receive ring, by their length: one that one good buffer holds and one that needs two.
const SENT: [usize; 2] = [28, 60];

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Out of the guest: its buffers are to be readable.
    In,
    /// To the guest: its buffers are to be writable; whether frames may be merged over several.
    Out { mergeable: bool },
}

const WAYS: [Way; 3] = [Way::In, Way::Out { mergeable: false }, Way::Out { mergeable: true }];

/// A descriptor, as the guest means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    what: What,
    /// The descriptor that follows; of a packed ring, whether one does.
    next: Option<u16>,
    writable: bool,
}

impl Entry {
    /// Whether it is a buffer in memory.
    fn is_inside(&self) -> bool {
        matches!(self.what, What::Buffer(Buffer::Short | Buffer::Long | Buffer::Empty))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Buffer(Buffer),
    /// An indirect table, by its number.
    Table(usize),
}

/// Where buffers lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Buffer {
    /// A net header's length.
    Short,
    /// A net header and a short frame.
    Long,
    /// Nothing, in memory.
    Empty,
    /// Over the end of memory.
    Crossing,
    /// Nothing, at the end of memory, where there is none.
    EmptyOutside,
    /// Over the end of all addresses.
    Wrapping,
}

const BUFFERS: [Buffer; 6] =
    [Buffer::Short, Buffer::Long, Buffer::Empty, Buffer::Crossing, Buffer::EmptyOutside, Buffer::Wrapping];

impl Buffer {
    /// Address and length of the buffer at a place.
    fn range(self, place: usize) -> (u64, u32) {
        let here = PLACES + PLACE_LEN * place as u64;
        match self {
            Buffer::Short => (here, 12),
            Buffer::Long => (here, 40),
            Buffer::Empty => (here, 0),
            Buffer::Crossing => (END - 8, 40),
            Buffer::EmptyOutside => (END, 0),
            Buffer::Wrapping => (u64::MAX - 3, 40),
        }
    }
}

/// An indirect table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// Bytes, as the descriptor says that points to it.
    len: u32,
    /// It hangs over the end of memory; its entries are not there.
    outside: bool,
    entries: Vec<Entry>,
}

/// What stands in the memory of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    entries: Vec<Entry>,
    tables: Vec<Table>,
}

impl Guest {
    /// The descriptor of `entry`, which is at a place: address, length and flags.
    fn descriptor(&self, entry: Entry, place: usize) -> (u64, u32, u16) {
        let ((addr, len), indirect) = match entry.what {
            What::Buffer(buffer) => (buffer.range(place), 0),
            What::Table(table) => (self.table_range(table), INDIRECT),
        };
        let next = if entry.next.is_some() { NEXT } else { 0 };
        (addr, len, indirect | next | if entry.writable { WRITE } else { 0 })
    }

    fn table_range(&self, table: usize) -> (u64, u32) {
        let Table { len, outside, .. } = self.tables[table];
        (if outside { END - 8 } else { TABLES + TABLE_LEN * table as u64 }, len)
    }
}

/// The place of the first entry of a table; descriptors of the ring are before it.
const TABLE_PLACE: usize = SIZE_MAX as usize;

fn plain(buffer: Buffer, next: Option<u16>, writable: bool) -> Entry {
    Entry { what: What::Buffer(buffer), next, writable }
}

/// A descriptor that is good for that way.
fn good(way: Way) -> Entry {
    plain(Buffer::Long, None, way != Way::In)
}

/// All descriptors: the last of a chain and those that one of `nexts` follows, buffers and `tables` tables. What follows a
/// table does not matter, only that something does.
fn alphabet(nexts: &[u16], tables: usize) -> Vec<Entry> {
    let ends = || std::iter::once(None);
    let all_nexts: Vec<_> = ends().chain(nexts.iter().copied().map(Some)).collect();
    let table_nexts: Vec<_> = ends().chain(nexts.first().copied().map(Some)).collect();
    let buffers = BUFFERS.into_iter().map(|buffer| (What::Buffer(buffer), &all_nexts));
    let tables = (0..tables).map(|table| (What::Table(table), &table_nexts));
    let mut all = Vec::new();
    for (what, nexts) in buffers.chain(tables) {
        for &next in nexts {
            all.extend([false, true].map(|writable| Entry { what, next, writable }));
        }
    }
    all
}

/// Gives the entries of `row` that can be reached from `place` every value of the alphabet, the first `free` of them; the
/// others stay.
fn every_graph(
    row: &mut Vec<Entry>,
    place: usize,
    free: usize,
    alphabet: &[Entry],
    visit: &mut dyn FnMut(&[Entry]),
) {
    fn follow(
        (row, fixed): (&mut Vec<Entry>, u8),
        place: usize,
        free: usize,
        alphabet: &[Entry],
        visit: &mut dyn FnMut(&[Entry]),
    ) {
        if place >= free || fixed >> place & 1 == 1 {
            return visit(row);
        }
        let before = row[place];
        for &entry in alphabet {
            row[place] = entry;
            let next = entry.next.filter(|_| entry.is_inside()).map_or(usize::MAX, usize::from);
            follow((row, fixed | 1 << place), next, free, alphabet, visit);
        }
        row[place] = before;
    }
    follow((row, 0), place, free, alphabet, visit);
}

/// A handful of tables: good ones, and each way to be bad.
fn telling_tables(way: Way) -> Vec<Table> {
    let writable = way != Way::In;
    let long = good(way);
    let short = |next| plain(Buffer::Short, Some(next), writable);
    let table = |len, entries: &[Entry]| Table { len, outside: false, entries: entries.to_vec() };
    vec![
        table(16, &[long]),
        table(32, &[short(1), long]),
        table(48, &[short(2), long, plain(Buffer::Empty, Some(1), writable)]),
        table(64, &[short(1), short(2), short(3), long]),
        table(0, &[long]),
        table(17, &[long, long]),
        table(16, &[Entry { what: What::Table(0), ..long }]),
        table(32, &[short(1), short(0)]),
        Table { len: 16, outside: true, entries: Vec::new() },
    ]
}

/// What a table may say of its length, besides the truth.
const TABLE_LENS: [u32; 11] = [0, 1, 15, 17, 31, 33, 64, 65, 80, 1 << 20, u32::MAX - 15];

/// A guest of `size` good descriptors, but for the first, which is a table, and the second, which the first follows.
fn guest_with_a_table(way: Way, size: usize) -> Guest {
    let writable = way != Way::In;
    let mut entries = vec![good(way); size];
    entries[0] = Entry { what: What::Table(0), next: None, writable };
    entries[1] = plain(Buffer::Short, Some(0), writable);
    let table = Table { len: 0, outside: false, entries: vec![good(way); TABLE_MAX] };
    Guest { entries, tables: vec![table] }
}

//! Advanced Systems Format (ASF: WMV, WMA), whose packets number the objects in them: its
//! specification, sections 3.2, 3.16 and 5.2.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use super::ElementReader;

const FILE_PROPERTIES: [u8; 16] = [
    0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11, 0x8e, 0xe4, 0x00, 0xc0, 0x0c, 0x20, 0x53, 0x65,
];

const DATA: [u8; 16] = [
    0x36, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11, 0xa6, 0xd9, 0x00, 0xaa, 0x00, 0x62, 0xce, 0x6c,
];

/// The largest packet that is examined.
const MAX_PACKET: u32 = 1 << 20;

impl ElementReader {
    /// Whether no object of an ASF is missing between its packets; `None` if it is shorter than its
    /// file properties say, unless it was broadcast live.
    pub(super) fn asf(&mut self) -> Option<bool> {
        let mut header = Vec::new();
        self.file.by_ref().take(1 << 16).read_to_end(&mut header).ok()?;
        let at = header.windows(FILE_PROPERTIES.len()).position(|bytes| bytes == FILE_PROPERTIES);
        let Some(properties) = at.and_then(|at| header.get(at + 40..at + 100)) else {
            return Some(true);
        };
        let mut properties = Fields { bytes: properties };
        let [size, _, _, _, _, _] = [(); 6].map(|()| properties.take(8));
        let [flags, smallest, largest] = [(); 3].map(|()| properties.take(4) as u32);
        if flags & 1 == 0 && size > self.length {
            return None;
        }
        if smallest != largest || !(1..=MAX_PACKET).contains(&largest) {
            return Some(true);
        }
        let mut sizes = Fields { bytes: header.get(16..).unwrap_or_default() };
        Some(self.has_all_objects(sizes.take(8), largest as usize).unwrap_or(true))
    }

    /// Whether the objects in the packets that begin after a header of that size follow one
    /// another; `None` where there are none to examine.
    fn has_all_objects(&mut self, header: u64, size: usize) -> Option<bool> {
        self.file.seek(SeekFrom::Start(header)).ok()?;
        let head: [u8; 50] = self.take()?;
        if !head.starts_with(&DATA) {
            return None;
        }
        let count = Fields { bytes: &head[40..] }.take(8);
        let mut packet = vec![0; size];
        let mut objects = HashMap::new();
        for _ in 0..count {
            self.file.read_exact(&mut packet).ok()?;
            if !follows(&packet, &mut objects) {
                return Some(false);
            }
        }
        Some(true)
    }
}

/// Little-endian fields; those that are missing are 0.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn skip(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    fn take(&mut self, length: usize) -> u64 {
        self.skip(length).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// A field whose length the two lowest bits of `kind` say.
    fn take_as(&mut self, kind: u8) -> usize {
        self.take(length(kind)) as usize
    }
}

/// The length in bytes that two bits say.
fn length(kind: u8) -> usize {
    [0, 1, 2, 4][usize::from(kind & 3)]
}

/// Whether the objects in a packet are whole or go on, and follow those that came before in their
/// streams. `objects` has the number of the last of each stream.
fn follows(packet: &[u8], objects: &mut HashMap<u8, u64>) -> bool {
    let mut fields = Fields { bytes: packet };
    if let Some(flags) = packet.first().filter(|flags| **flags >= 0x80) {
        // Neither a length of the usual kind nor data of a kind that only its maker knows.
        if flags & 0x70 != 0 {
            return true;
        }
        fields.skip(1 + usize::from(*flags & 0xf));
    }
    let [lengths, kinds] = [(); 2].map(|()| fields.take(1) as u8);
    let packet_length = fields.take_as(lengths >> 5);
    fields.take_as(lengths >> 1);
    let mut padding = fields.take_as(lengths >> 3);
    if packet_length > 0 {
        padding += packet.len().saturating_sub(packet_length);
    }
    fields.skip(6);
    let has_several = lengths & 1 != 0;
    let flags = if has_several { fields.take(1) as u8 } else { 1 };
    for _ in 0..flags & 0x3f {
        let stream = fields.take(1) as u8 & 0x7f;
        let number_length = length(kinds >> 4);
        let first = fields.take(number_length);
        fields.take_as(kinds >> 2);
        let replicated = fields.take_as(kinds);
        fields.skip(replicated);
        let payload = if has_several {
            fields.take_as(flags >> 6)
        } else {
            fields.bytes.len().saturating_sub(padding)
        };
        if payload > fields.bytes.len() {
            return false;
        }
        let mut data = Fields { bytes: fields.skip(payload) };
        let mut last = first;
        // Several small objects, each after its length.
        if replicated == 1 {
            let next = data.take_as(1);
            data.skip(next);
            while !data.bytes.is_empty() {
                let next = data.take_as(1);
                data.skip(next);
                last += 1;
            }
        }
        let numbers = (1 << (8 * number_length)) - 1;
        let before = objects.insert(stream, last & numbers);
        if before.is_some_and(|before| first != before && first != (before + 1) & numbers) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::follows;

    /// A packet of 32 bytes with these objects of stream 1, each of 3 bytes.
    fn packet(objects: &[u8]) -> Vec<u8> {
        // Error correction, lengths, kinds, time and duration.
        let mut packet = vec![0x82, 0, 0, 0x01, 0x5d, 0, 0, 0, 0, 0, 0, 0x80 | objects.len() as u8];
        for number in objects {
            // Stream, number, offset, no replicated data, length, bytes.
            packet.extend([0x81, *number, 0, 0, 0, 0, 0, 3, 0, 1, 2, 3]);
        }
        packet
    }

    #[test]
    fn finds_gaps_in_sequence_numbers() {
        let mut objects = HashMap::new();
        assert!(follows(&packet(&[254, 255]), &mut objects));
        assert!(follows(&packet(&[255, 0]), &mut objects));
        assert!(!follows(&packet(&[2]), &mut objects));
        let mut objects = HashMap::new();
        let long = packet(&[1]);
        assert!(!follows(&long[..long.len() - 1], &mut objects), "a payload beyond its packet");
        for length in 0..long.len() {
            follows(&long[..length], &mut objects);
        }
    }
}

//! The fields of protobuf messages, without a schema.

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// An integer, a boolean or an enumeration.
    Number(u64),
    /// Four bytes, such as a float.
    Fixed32(u32),
    /// A text, a nested message, or a packed list.
    Bytes(&'a [u8]),
}

/// The fields of a message and of its groups, up to the first invalid one, by number. They include
/// all fields that protobuf reads, so that nothing can be hidden from a check.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

/// The length-delimited fields of a message.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    Fields(bytes).filter_map(|(field, value)| match value {
        Value::Bytes(bytes) => Some((field, bytes)),
        _ => None,
    })
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for i in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << (7 * i).min(63);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Protobuf truncates field keys to 32 bits.
            let key = self.number()? & u64::from(u32::MAX);
            let value = match key & 7 {
                0 => Value::Number(self.number()?),
                1 => {
                    self.take(8)?;
                    continue;
                }
                2 => {
                    let length = self.number()?;
                    Value::Bytes(self.take(length)?)
                }
                5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
                // The start or end of a group.
                3 | 4 => continue,
                _ => return None,
            };
            return Some((key >> 3, value));
        }
    }
}

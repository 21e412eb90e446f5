//! The fields of protobuf messages, read and written without a schema.

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

/// The last length-delimited field of that number, which is the one that protobuf takes.
pub(crate) fn last(bytes: &[u8], wanted: u64) -> Option<&[u8]> {
    messages(bytes).filter(|(field, _)| *field == wanted).last().map(|(_, body)| body)
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

/// A field with all its bytes, so that it can be copied as it is. Bytes that no field has, which
/// protobuf skips, belong to the next field.
pub(crate) struct Field<'a> {
    pub(crate) number: u64,
    pub(crate) value: Value<'a>,
    pub(crate) encoded: &'a [u8],
}

/// The fields of a message with their bytes, and what follows the last valid one.
pub(crate) fn split(bytes: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let (mut fields, mut found) = (Fields(bytes), Vec::new());
    loop {
        let before = fields.0;
        let Some((number, value)) = fields.next() else { return (found, before) };
        let encoded = &before[..before.len() - fields.0.len()];
        found.push(Field { number, value, encoded });
    }
}

/// A message that is written field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// The encoded message.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A field of an integer, a boolean or an enumeration.
    pub(crate) fn number(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value.cast_unsigned());
        self
    }

    /// A field of four bytes.
    pub(crate) fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A field of a text, a nested message or a packed list.
    pub(crate) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    /// A field of a nested message.
    pub(crate) fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    /// Fields that are encoded already.
    pub(crate) fn encoded(mut self, fields: &[u8]) -> Self {
        self.0.extend(fields);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, Message, Value, split};

    #[test]
    fn written_fields_are_read_back() {
        let inner = Message::default().bytes(2, "text");
        let message = Message::default()
            .number(1, -1)
            .number(20, 300)
            .float(2, -0.5)
            .message(5, inner.clone())
            .into_bytes();
        let inner = inner.into_bytes();
        let found: Vec<_> = Fields(&message).collect();
        let expected = [
            (1, Value::Number(u64::MAX)),
            (20, Value::Number(300)),
            (2, Value::Fixed32((-0.5_f32).to_bits())),
            (5, Value::Bytes(&inner)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_bytes_of_all_fields_are_the_message() {
        // A field of eight bytes, which is skipped, and an invalid one at the end.
        let skipped = [9, 1, 2, 3, 4, 5, 6, 7, 8];
        let message = Message::default()
            .bytes(1, "first")
            .encoded(&skipped)
            .number(3, 7)
            .encoded(&[0x0F, 1])
            .into_bytes();
        let (fields, rest) = split(&message);
        assert_eq!(fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 3]);
        let copied: Vec<u8> =
            fields.iter().flat_map(|field| field.encoded).chain(rest).copied().collect();
        assert_eq!(copied, message);
    }
}

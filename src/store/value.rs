//! What can be stored: anything that turns into bytes and back.

/// A storable value.
pub trait Value: Sized {
    /// Appends the value's bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// The inverse; `None` when the bytes are no such value.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// Index rows that are only their key.
impl Value for () {
    fn encode(&self, _out: &mut Vec<u8>) {}

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

/// Index rows that point at an id, and digests.
impl<const N: usize> Value for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

/// Makes serde types storable as JSON, which lets a later version add a field with a default without a migration.
macro_rules! json_value {
    ($($kind:ty),+ $(,)?) => {$(
        impl $crate::store::Value for $kind {
            fn encode(&self, out: &mut Vec<u8>) {
                serde_json::to_writer(out, self).expect("our own structs have string keys and write to memory");
            }

            fn decode(bytes: &[u8]) -> Option<Self> {
                serde_json::from_slice(bytes).ok()
            }
        }
    )+};
}
pub(crate) use json_value;

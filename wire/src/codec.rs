//! Reading and writing little-endian fields. Strings and byte strings carry their length in front.

/// Why bytes could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends within a field.
    #[error("truncated: `{field}` needs {needed} more bytes")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// How many bytes are missing.
        needed: usize,
    },
    /// A field holds a value outside its range.
    #[error("`{field}` has the invalid value {value}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
    /// A string is not UTF-8.
    #[error("`{field}` is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// Bytes are left over after the last field.
    #[error("{0} bytes follow the last field")]
    Trailing(usize),
}

/// Reads fields from the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_integer {
    ($($name:ident $type:ty),*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($type), "`.\n\n# Errors\nWhen the input is too short.")]
        #[inline]
        pub fn $name(&mut self, field: &'static str) -> Result<$type, DecodeError> {
            self.array(field).map(<$type>::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    read_integer!(u8 u8, u16 u16, u32 u32, u64 u64, u128 u128);

    /// Reads exactly `length` bytes.
    ///
    /// # Errors
    /// When the input is too short.
    #[inline]
    pub fn take(&mut self, length: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.rest.split_at_checked(length) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(DecodeError::Truncated { field, needed: length - self.rest.len() }),
        }
    }

    /// Reads exactly `N` bytes.
    ///
    /// # Errors
    /// When the input is too short.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(DecodeError::Truncated { field, needed: N - self.rest.len() }),
        }
    }

    /// Reads a byte string with a `u32` length in front.
    ///
    /// # Errors
    /// When the input is too short.
    pub fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(field)?;
        self.take(length as usize, field)
    }

    /// Reads a UTF-8 string with a `u16` length in front.
    ///
    /// # Errors
    /// When the input is too short or not UTF-8.
    pub fn str(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = self.u16(field)?;
        let bytes = self.take(usize::from(length), field)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8 { field })
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }
}

/// Appends fields to a byte vector; the mirror of [`Reader`].
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

macro_rules! write_integer {
    ($($name:ident $type:ty),*) => {$(
        #[doc = concat!("Appends a little-endian `", stringify!($type), "`.")]
        #[inline]
        pub fn $name(&mut self, value: $type) -> &mut Self {
            self.out.extend_from_slice(&value.to_le_bytes());
            self
        }
    )*};
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    write_integer!(u8 u8, u16 u16, u32 u32, u64 u64, u128 u128);

    /// Appends `bytes` as they are.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Appends a `u32` length and `bytes`.
    ///
    /// # Panics
    /// If `bytes` is 4 GiB or longer.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("byte strings are bounded far below 4 GiB");
        self.u32(length).raw(bytes)
    }

    /// Appends what `write` appends, with its `u32` length in front, as [`Writer::bytes`] does.
    ///
    /// # Panics
    /// If `write` appends 4 GiB or more.
    pub fn nested(&mut self, write: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        let length_at = self.out.len();
        self.u32(0);
        let start = self.out.len();
        write(&mut Writer::new(self.out));
        let length = u32::try_from(self.out.len() - start).expect("byte strings are bounded far below 4 GiB");
        self.out[length_at..start].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// Appends a `u16` length and `text`.
    ///
    /// # Panics
    /// If `text` is 64 KiB or longer.
    pub fn str(&mut self, text: &str) -> &mut Self {
        let length = u16::try_from(text.len()).expect("strings are bounded far below 64 KiB");
        self.u16(length).raw(text.as_bytes())
    }
}

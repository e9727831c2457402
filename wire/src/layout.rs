//! Byte layouts declared once: a struct's fields, in order, without padding, are its layout.
//!
//! `fixed_layout!` is for what is hot (work frames, log events): every field has a fixed size, the whole is moved as one
//! array, and its length is a constant that callers assert at compile time. `variable_layout!` is for cold frames: fields
//! may be strings and byte strings. Both refuse trailing bytes when decoded as a whole.

use crate::{
    DecodeError, FireSequence, InstanceId, JobId, PartitionId, Reader, ShardId, TenantId, Timestamp, Token, Writer,
};

/// A field with a fixed number of bytes.
pub trait FixedField: Copy + Sized {
    /// How many bytes it takes.
    const BYTES: usize;

    /// Writes it to the front of `out`, which has at least [`FixedField::BYTES`] bytes.
    fn put(self, out: &mut [u8]);

    /// Reads it from the front of `bytes`, which has at least [`FixedField::BYTES`] bytes.
    ///
    /// # Errors
    /// When the bytes hold no value of the type.
    fn pick(bytes: &[u8], field: &'static str) -> Result<Self, DecodeError>;
}

/// A field of any size.
pub trait Field<'a>: Sized {
    /// Appends it.
    fn write(&self, out: &mut Writer<'_>);

    /// Reads it from the front of `input`.
    ///
    /// # Errors
    /// When the input is too short or holds no value of the type.
    fn read(input: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError>;
}

macro_rules! fixed_integer {
    ($($type:ident)*) => {$(
        impl FixedField for $type {
            const BYTES: usize = size_of::<$type>();

            #[inline]
            fn put(self, out: &mut [u8]) {
                out[..Self::BYTES].copy_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn pick(bytes: &[u8], field: &'static str) -> Result<Self, DecodeError> {
                Reader::new(bytes).$type(field)
            }
        }
    )*};
}

fixed_integer!(u8 u16 u32 u64 u128);

macro_rules! fixed_newtype {
    ($($type:ty, $inner:ty, $value:ident => $to:expr, $from:expr;)*) => {$(
        impl FixedField for $type {
            const BYTES: usize = size_of::<$inner>();

            #[inline]
            fn put(self, out: &mut [u8]) {
                let $value = self;
                FixedField::put($to, out);
            }

            #[inline]
            fn pick(bytes: &[u8], field: &'static str) -> Result<Self, DecodeError> {
                <$inner>::pick(bytes, field).map($from)
            }
        }
    )*};
}

fixed_newtype! {
    Timestamp, u64, value => value.as_micros(), Self::from_micros;
    JobId, u64, value => value.raw(), Self::from_raw;
    FireSequence, u64, value => value.0, Self;
    Token, u64, value => value.0, Self;
    TenantId, u32, value => value.0, Self;
    PartitionId, u16, value => value.0, Self;
    ShardId, u16, value => value.0, Self;
    InstanceId, u128, value => value.0, Self;
}

impl FixedField for bool {
    const BYTES: usize = 1;

    #[inline]
    fn put(self, out: &mut [u8]) {
        out[0] = u8::from(self);
    }

    #[inline]
    fn pick(bytes: &[u8], field: &'static str) -> Result<Self, DecodeError> {
        match u8::pick(bytes, field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Invalid { field, value: u64::from(other) }),
        }
    }
}

impl<'a, T: FixedField> Field<'a> for T {
    fn write(&self, out: &mut Writer<'_>) {
        let mut bytes = [0; 16];
        self.put(&mut bytes);
        out.raw(&bytes[..T::BYTES]);
    }

    fn read(input: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        T::pick(input.take(T::BYTES, field)?, field)
    }
}

impl<'a> Field<'a> for &'a str {
    fn write(&self, out: &mut Writer<'_>) {
        out.str(self);
    }

    fn read(input: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        input.str(field)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn write(&self, out: &mut Writer<'_>) {
        out.bytes(self);
    }

    fn read(input: &mut Reader<'a>, field: &'static str) -> Result<Self, DecodeError> {
        input.bytes(field)
    }
}

/// An enum whose values are its wire numbers.
macro_rules! wire_enum {
    (
        $(#[$outer:meta])*
        pub enum $name:ident : $repr:ident { $($(#[$inner:meta])* $variant:ident = $value:literal => $text:literal,)* }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$inner])* $variant = $value,)* }

        impl $name {
            /// Every value, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The number on the wire.
            pub const fn number(self) -> $repr {
                self as $repr
            }

            /// The value with this number.
            pub const fn from_number(number: $repr) -> Option<Self> {
                match number {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Its name, as the CLI, the metrics and the documents write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The value with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl $crate::layout::FixedField for $name {
            const BYTES: usize = size_of::<$repr>();

            #[inline]
            fn put(self, out: &mut [u8]) {
                $crate::layout::FixedField::put(self.number(), out);
            }

            #[inline]
            fn pick(bytes: &[u8], field: &'static str) -> Result<Self, $crate::DecodeError> {
                let number = <$repr as $crate::layout::FixedField>::pick(bytes, field)?;
                Self::from_number(number).ok_or($crate::DecodeError::Invalid { field, value: u64::from(number) })
            }
        }
    };
}

/// A struct of fixed-size fields, laid out in order without padding.
macro_rules! fixed_layout {
    (
        $(#[$outer:meta])*
        pub struct $name:ident { $($(#[$inner:meta])* pub $field:ident : $type:ty,)* }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$inner])* pub $field: $type,)* }

        impl $name {
            /// Length of the layout in bytes.
            pub const BYTES: usize = 0 $(+ <$type as $crate::layout::FixedField>::BYTES)*;

            /// The bytes of the layout.
            #[inline]
            pub fn to_bytes(&self) -> [u8; Self::BYTES] {
                let mut out = [0; Self::BYTES];
                let mut at = 0;
                $(
                    $crate::layout::FixedField::put(self.$field, &mut out[at..]);
                    at += <$type as $crate::layout::FixedField>::BYTES;
                )*
                debug_assert_eq!(at, Self::BYTES);
                out
            }

            /// The value whose bytes are `bytes`.
            ///
            /// # Errors
            /// When a field holds no value of its type.
            #[inline]
            pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Result<Self, $crate::DecodeError> {
                let mut at = 0;
                $(
                    let $field = <$type as $crate::layout::FixedField>::pick(&bytes[at..], stringify!($field))?;
                    at += <$type as $crate::layout::FixedField>::BYTES;
                )*
                debug_assert_eq!(at, Self::BYTES);
                Ok(Self { $($field,)* })
            }

            /// Takes the value from the front of `input`.
            ///
            /// # Errors
            /// When the input is too short or a field holds no value of its type.
            #[inline]
            pub fn take(input: &mut $crate::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                Self::from_bytes(&input.array(stringify!($name))?)
            }
        }
    };
}

/// A struct of fields of any size, laid out in order without padding.
macro_rules! variable_layout {
    (
        $(#[$outer:meta])*
        pub struct $name:ident $(<$life:lifetime>)? { $($(#[$inner:meta])* pub $field:ident : $type:ty,)* }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[$inner])* pub $field: $type,)* }

        $crate::layout::variable_layout!(@impl $name $($life)? { $($field : $type,)* });
    };
    (@impl $name:ident { $($field:ident : $type:ty,)* }) => {
        $crate::layout::variable_layout!(@field 'a, $name, $($field : $type,)*);
    };
    (@impl $name:ident $life:lifetime { $($field:ident : $type:ty,)* }) => {
        $crate::layout::variable_layout!(@field $life, $name<$life>, $($field : $type,)*);
    };
    (@field $life:lifetime, $full:ty, $($field:ident : $type:ty,)*) => {
        impl<$life> $crate::layout::Field<$life> for $full {
            fn write(&self, out: &mut $crate::Writer<'_>) {
                $($crate::layout::Field::write(&self.$field, out);)*
            }

            fn read(input: &mut $crate::Reader<$life>, _: &'static str) -> Result<Self, $crate::DecodeError> {
                Ok(Self { $($field: $crate::layout::Field::read(input, stringify!($field))?,)* })
            }
        }
    };
}

/// What may follow the fields of a frame: laid out as by `variable_layout!`, and left out as a whole when it says nothing, so that
/// frames of peers that do not know it keep their bytes. Nothing may follow it.
macro_rules! trailing_layout {
    (
        $(#[$outer:meta])*
        pub struct $name:ident $(<$life:lifetime>)? { $($(#[$inner:meta])* pub $field:ident : $type:ty,)* }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $(<$life>)? { $($(#[$inner])* pub $field: $type,)* }

        $crate::layout::trailing_layout!(@impl $name $($life)? { $($field : $type,)* });
    };
    (@impl $name:ident { $($field:ident : $type:ty,)* }) => {
        $crate::layout::trailing_layout!(@field 'a, $name, $($field : $type,)*);
    };
    (@impl $name:ident $life:lifetime { $($field:ident : $type:ty,)* }) => {
        $crate::layout::trailing_layout!(@field $life, $name<$life>, $($field : $type,)*);
    };
    (@field $life:lifetime, $full:ty, $($field:ident : $type:ty,)*) => {
        impl<$life> $crate::layout::Field<$life> for $full {
            fn write(&self, out: &mut $crate::Writer<'_>) {
                if *self != Self::default() {
                    $($crate::layout::Field::write(&self.$field, out);)*
                }
            }

            fn read(input: &mut $crate::Reader<$life>, field: &'static str) -> Result<Self, $crate::DecodeError> {
                if input.is_empty() {
                    return Ok(Self::default());
                }
                let value = Self { $($field: $crate::layout::Field::read(input, stringify!($field))?,)* };
                // What says nothing has one encoding: none.
                if value == Self::default() { Err($crate::DecodeError::Invalid { field, value: 0 }) } else { Ok(value) }
            }
        }
    };
}

pub(crate) use {fixed_layout, trailing_layout, variable_layout, wire_enum};

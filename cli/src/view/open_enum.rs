//! Enums of the wire: open sets, because a newer server may say what this version does not know.

/// Defines an enum with one variant for each known value and `Unknown(number)` for the rest, made
/// from the number on the wire, shown and serialized as a word (`Unknown(7)` for a stranger).
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        $name:ident from $wire:ty { $($(#[$variant_meta:meta])* $variant:ident,)+ }
        $(and { $($(#[$own_meta:meta])* $own:ident,)+ })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant,)+
            $($($(#[$own_meta])* $own,)+)?
            /// A value that this version does not know, or none at all (0).
            Unknown(i32),
        }

        impl $name {
            /// From the number on the wire.
            pub(crate) fn from_wire(number: i32) -> Self {
                match <$wire>::try_from(number) {
                    $(Ok(<$wire>::$variant) => Self::$variant,)+
                    _ => Self::Unknown(number),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => f.pad(stringify!($variant)),)+
                    $($(Self::$own => f.pad(stringify!($own)),)+)?
                    Self::Unknown(number) => write!(f, "Unknown({number})"),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

pub(crate) use open_enum;

//! Names of the values of an enum, in manifests and on the command line.

/// Gives an enum without fields a table of its names: `ALL`, `name`, [`Display`](std::fmt::Display)
/// and [`FromStr`](std::str::FromStr), whose error lists them. The text says what a value is, with
/// its article.
macro_rules! named {
    ($type:ident, $what:literal, $($variant:ident = $name:literal),+ $(,)?) => {
        impl $type {
            /// All values, in the order of their declaration.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// The name in a manifest and on the command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| {
                    let names = Self::ALL.map(Self::name).join(", ");
                    format!("{text} is not {}; expected {names}", $what)
                })
            }
        }
    };
}

pub(crate) use named;

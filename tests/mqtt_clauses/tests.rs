//! The list of tests: one line each, named after its clause.

/// Makes tests, and a list of their names.
macro_rules! tests {
    ($(fn $name:ident() $body:block)*) => {
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() $body
        )*
    };
}
pub(crate) use tests;

//! GraphQL SDL as schemas use it: text → tokens (`lexer`) → syntax tree (`parser`) → table definitions (`define`).
//! Called by `app::App::load`. Grammar: GraphQL specification, October 2021, sections 2 and 3.

mod define;
mod directives;
mod lexer;
mod parser;
mod types;

#[cfg(test)]
mod define_tests;

pub use define::define;
pub use parser::parse;

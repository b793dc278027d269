//! Tests of what goes out: the book as a machine, and the whole against a real store and other servers that the tests play.

mod bars;
mod book;
mod durable;
mod support;
mod users;

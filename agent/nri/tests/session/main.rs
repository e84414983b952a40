//! A plugin and a runtime that does what the test says: every way in which a conversation can go.

mod connection;
mod late;
mod plugin;
mod reconnect;
mod requests;

//! The objects that users write, and their conversion into validated core values.

//! tablecast: a real-time table server.

//! Private listener.

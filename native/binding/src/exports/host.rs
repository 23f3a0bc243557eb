//! Host effects from any language.

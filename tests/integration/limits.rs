//! SPEC.md, "Limits, as clients meet them".

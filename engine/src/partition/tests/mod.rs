//! Tests of a partition alone.

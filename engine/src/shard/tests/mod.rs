//! Tests of the shard core, through its inputs and effects.

mod allow;
mod backlog;
mod calendars;
mod claims;
mod filters;
mod harness;
mod model;
mod properties;
mod remarks;
mod ruled_model;
mod rules;
mod siblings;
mod steps;
mod when;
mod zones;

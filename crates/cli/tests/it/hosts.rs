//! Realms of many machines, each a host of its own, and what goes wrong between them.

mod links;
mod many;
mod nodes;
mod scene;

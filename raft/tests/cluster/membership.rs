//! Nodes that come and go for good.

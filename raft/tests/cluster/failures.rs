//! Nodes that go down and come back.

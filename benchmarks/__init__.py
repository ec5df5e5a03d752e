"""The same work done by the harness and by a peer, and both beside what the machine allows; see `README.md`."""

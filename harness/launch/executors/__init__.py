"""Where workers run: each executor implements the protocol of :mod:`harness.launch.executor`, which also lists them."""

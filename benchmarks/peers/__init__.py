"""Libraries whose dependencies do not fit beside the project's: each has an environment and a process of its own."""

"""Real servers for the tests: found, started in Docker, or built from package registries."""

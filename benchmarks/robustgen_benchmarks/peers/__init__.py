"""The same work done by robustgen and by other libraries, in one process, on the same inputs."""

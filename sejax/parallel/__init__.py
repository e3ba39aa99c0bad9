"""Devices and processes: mesh, array layouts, collectives, the workdir's lock and stop requests."""

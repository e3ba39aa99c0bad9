"""Where arrays lie on a mesh."""

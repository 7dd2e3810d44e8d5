"""The playground: people give the model a radiograph to read, or findings to draw, and watch it work."""

"""Prefect flows: orchestration only. Every step is one command of `unix`, run as a subprocess; see `runtime`."""

"""The paper's ablations as jobs: short runs that differ in one thing, from one checkpoint, measured alike."""

"""UniX for chest X-rays: curate MIMIC-CXR, stream it, train the dual-branch model, evaluate it."""

__version__ = "0.1.0"

"""The chest phantom: synthetic radiographs and reports in MIMIC-CXR's layout, with the ground truth beside them."""

from unix.data.phantom.write import PhantomConfig, PhantomSummary, write_phantom

__all__ = ["PhantomConfig", "PhantomSummary", "write_phantom"]

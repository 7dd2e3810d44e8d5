"""From files to samples: sources, sections, labels, cleaning, splits, images, shards and streams."""

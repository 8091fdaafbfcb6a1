"""Images from any source: readers, decoding, cache, splits, augmentation, audit."""

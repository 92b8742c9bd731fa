"""From token records to estimates with intervals.  The unit of resampling is the document, everywhere."""
